// Two-dimensional convolution (cross-correlation) and its gradients.
#pragma once

#include <cstdint>

namespace pynn::ops {

struct ConvAxis {
  int64_t size, kernel, out;          // kernel: 0 if the weight has no elements
  int64_t stride, padding, dilation;  // padding before; what is behind follows from `out`
};

// x [images, channels, rows.size, columns.size], weight [outputs, channels / groups, rows.kernel, columns.kernel],
// y [images, outputs, rows.out, columns.out]
struct ConvShape {
  int64_t images, channels, outputs, groups;
  ConvAxis rows, columns;
};

template <class T>
void conv2d(T* y, const T* x, const T* weight, const T* bias, bool relu, const ConvShape& shape);

// The gradients whose pointer is not null; x and weight are only read for those that need them, y only with relu.
template <class T>
void conv2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const T* x, const T* weight, bool relu,
                     const ConvShape& shape);

}  // namespace pynn::ops
