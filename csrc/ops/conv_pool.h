// Convolution, bias, ReLU and 2 x 2 max-pooling as one operation: the convolution's output is never kept.
#pragma once

#include <cstdint>

#include "ops/conv.h"

namespace pynn::ops {

// y, indices [images, outputs, rows.out / 2, columns.out / 2]; an odd last row or column belongs to no window. An index
// is 2 * row + column of the maximum in its window. Without a gradient to come, indices may be null.
template <class T>
void conv2d_max_pool2d(T* y, uint8_t* indices, const T* x, const T* weight, const T* bias, bool relu,
                       const ConvShape& shape);

// The gradients whose pointer is not null, from dy and what the forward gave; false, with the gradients undefined, if
// an index is more than 3.
template <class T>
bool conv2d_max_pool2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const uint8_t* indices,
                                const T* x, const T* weight, bool relu, const ConvShape& shape);

}  // namespace pynn::ops
