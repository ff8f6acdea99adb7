// The softmax of attention, forward and backward, on tiles of scores; the products around it are gemm's. The rotation
// that tells queries and keys their positions.
#pragma once

#include <cstdint>

namespace pynn {

// What makes scores of the products s = q k^T [rows, cols], queries by keys: s scale + bias, where row r sees the first
// visible + r columns only.
template <class T>
struct AttentionScores {
  T scale;
  const T* bias;  // [rows, cols] or null
  int64_t ldbias;
  int64_t visible;  // at least cols: all
};

template <class T>
struct AttentionKernels {
  // bias[rows, cols] = 0 where keep != 0, else -infinity
  void (*bias_of_bool)(T* bias, int64_t ldbias, const uint8_t* keep, int64_t ldkeep, int64_t rows, int64_t cols);

  // Takes more keys into the softmax of each row: s[rows, cols] becomes exp(score - max), max and sum [rows] (at first
  // -infinity and 0) take the row in, and y[rows, features], if not null, is scaled to the new maximum.
  void (*softmax_step)(T* s, int64_t lds, T* max, T* sum, T* y, int64_t ldy, AttentionScores<T> scores, int64_t rows,
                       int64_t cols, int64_t features);
  // y[rows, features] /= sum; lse[rows] = log of the sum of exp(score). Of rows that see no key: 0 and infinity.
  void (*softmax_finish)(T* y, int64_t ldy, T* lse, const T* max, const T* sum, int64_t rows, int64_t features);

  // s[rows, cols] becomes p = exp(score - lse), dp the gradient of s: factor p (dp - delta)
  void (*softmax_backward)(T* s, T* dp, int64_t lds, const T* lse, const T* delta, AttentionScores<T> scores, T factor,
                           int64_t rows, int64_t cols);
  // dots[rows] = sum over the columns of a b
  void (*row_dots)(T* dots, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t rows, int64_t cols);

  // y[2 pairs]: each pair (a, b) of neighbours in x becomes (a cos - b sin, b cos + a sin); cos, sin [pairs]
  void (*rotate_pairs)(T* y, const T* x, const T* cos, const T* sin, int64_t pairs);
};

}  // namespace pynn
