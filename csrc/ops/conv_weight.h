// The gradients of a convolution that are sums over all images.
#pragma once

#include "ops/conv.h"

namespace pynn::ops {

// dweight and dbias, those that are not null; x is read only for dweight. dy reads as 0 where `mask`, if not null, is 0
// or less.
template <class T>
void conv2d_backward_weight(T* dweight, T* dbias, const T* dy, const T* mask, const T* x, const ConvShape& shape);

}  // namespace pynn::ops
