// Elementwise kernels over n contiguous elements. Outputs first, sizes last; an output may be the same array as an
// input.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct ElementwiseKernels {
  void (*relu)(T* y, const T* x, int64_t n);
  void (*relu_backward)(T* dx, const T* dy, const T* y, int64_t n);
  void (*leaky_relu)(T* y, const T* x, T negative_slope, int64_t n);
  void (*leaky_relu_backward)(T* dx, const T* dy, const T* x, T negative_slope, int64_t n);
  void (*sigmoid)(T* y, const T* x, int64_t n);
  void (*sigmoid_backward)(T* dx, const T* dy, const T* y, int64_t n);
  void (*tanh)(T* y, const T* x, int64_t n);
  void (*tanh_backward)(T* dx, const T* dy, const T* y, int64_t n);
};

}  // namespace pynn
