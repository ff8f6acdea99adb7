// Kernels that reduce rows or columns. Each works in an order fixed by the sizes alone.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct Reducer {
  // y[i] = reduction of x[i, 0..n-1], i < rows, whose rows are ldx apart; center [rows], or null where it has no use
  void (*rows)(T* y, const T* x, const T* center, int64_t rows, int64_t n, int64_t ldx);

  // y[j] = reduction of x[0..n-1, j], j < cols; center [cols]
  void (*columns)(T* y, const T* x, const T* center, int64_t n, int64_t cols, int64_t ldx);
};

template <class T>
struct ReductionKernels {
  Reducer<T> sum;
  Reducer<T> squared_deviations;  // sum of (x - center)^2
  Reducer<T> max, min;            // NaN if there is one; of nothing, -infinity and +infinity

  // Index of the first x[i] that is `value` or NaN; n if there is none
  int64_t (*find)(const T* x, T value, int64_t n);

  // index[j] = the first i with x[i, j] equal to value[j] or NaN
  void (*find_columns)(int64_t* index, const T* x, const T* value, int64_t n, int64_t cols, int64_t ldx);
};

}  // namespace pynn
