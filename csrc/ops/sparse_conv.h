// Gradients of conv2d_max_pool2d that skip the windows without a gradient: sums over a list of the others.
#pragma once

#include "kernels/sparse_conv.h"
#include "ops/conv.h"

namespace pynn::ops {

// Whether the shape is one that the functions below can do, and do in less time than a convolution's backward.
template <class T>
bool sparse_dweight_pays(const ConvShape& shape);

// dweight and dbias, those that are not null. gradient is that of all images.
template <class T>
void sparse_conv2d_backward_weight(T* dweight, T* dbias, const PooledGradient<T>& gradient, const T* x,
                                   const ConvShape& shape);

template <class T>
bool sparse_dx_pays(const ConvShape& shape);

template <class T>
void sparse_conv2d_backward_data(T* dx, const PooledGradient<T>& gradient, const T* weight, const ConvShape& shape);

}  // namespace pynn::ops
