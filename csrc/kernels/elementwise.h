// Elementwise kernels of one operand over n contiguous elements. Outputs first, sizes last; an output may be the same
// array as an input. The gradients take what their forward kept: its input x or its output y.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct ElementwiseKernels {
  using Unary = void (*)(T* y, const T* x, int64_t n);
  using UnaryBackward = void (*)(T* dx, const T* dy, const T* x_or_y, int64_t n);

  Unary relu;
  UnaryBackward relu_backward;  // of y
  void (*leaky_relu)(T* y, const T* x, T negative_slope, int64_t n);
  void (*leaky_relu_backward)(T* dx, const T* dy, const T* x, T negative_slope, int64_t n);
  Unary sigmoid;
  UnaryBackward sigmoid_backward;  // of y
  Unary tanh;
  UnaryBackward tanh_backward;  // of y
  Unary neg;
  Unary gelu;
  UnaryBackward gelu_backward;  // of x
  Unary gelu_tanh;              // the approximation by tanh
  UnaryBackward gelu_tanh_backward;
  Unary silu;
  UnaryBackward silu_backward;  // of x
  void (*elu)(T* y, const T* x, T alpha, int64_t n);
  void (*elu_backward)(T* dx, const T* dy, const T* x, T alpha, int64_t n);
  void (*softplus)(T* y, const T* x, T beta, T threshold, int64_t n);
  void (*softplus_backward)(T* dx, const T* dy, const T* x, T beta, T threshold, int64_t n);
  Unary exp;
  Unary log;
  Unary sqrt;
  UnaryBackward sqrt_backward;  // of y
  Unary abs;
  UnaryBackward abs_backward;  // of x
  void (*clip)(T* y, const T* x, T low, T high, int64_t n);
  void (*clip_backward)(T* dx, const T* dy, const T* x, T low, T high, int64_t n);
};

}  // namespace pynn
