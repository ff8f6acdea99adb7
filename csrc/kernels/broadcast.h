// Elementwise kernels of several operands over y[rows, n]. Outputs, dy and the forward's y are contiguous; an operand
// may be repeated along either axis. An output may be the same array as a contiguous operand.
#pragma once

#include <cstdint>

namespace pynn {

// Element (i, j) at data[i * row + j * col]; col is 0 or 1.
template <class T>
struct Operand {
  const T* data;
  int64_t row, col;
};

template <class T>
struct BroadcastKernels {
  using Binary = void (*)(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n);
  using BinaryBackward = void (*)(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, int64_t rows, int64_t n);

  Binary add;
  Binary sub;
  Binary mul;
  Binary div;
  Binary pow;
  void (*pow_half)(T* y, const T* a, int64_t n);  // a^(1/2)
  Binary maximum;
  Binary minimum;
  BinaryBackward maximum_backward;
  BinaryBackward minimum_backward;
  void (*pow_backward)(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, const T* y, int64_t rows, int64_t n);

  // y = condition ? a : b
  void (*where)(T* y, Operand<bool> condition, Operand<T> a, Operand<T> b, int64_t rows, int64_t n);
  void (*where_backward)(T* da, T* db, const T* dy, Operand<bool> condition, int64_t rows, int64_t n);

  Binary equal;   // 1 where a == b or both are NaN, 0 elsewhere
  Binary choose;  // b where a is not 0, 0 elsewhere
  void (*copy)(T* y, Operand<T> a, int64_t rows, int64_t n);
};

}  // namespace pynn
