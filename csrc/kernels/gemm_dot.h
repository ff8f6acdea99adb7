// The block of C for dot products of rows, nothing packed: a sum has a lane for each place in a vector, and these are
// added at the end.
#pragma once

#include "kernels/gemm.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// C[R, Columns] = epilogue(A[R, k] * B[Columns, k]^T)
template <class T, int R, int Columns>
void dot_block(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, const GemmEpilogue<T>& epilogue,
               int64_t k) {
  Vec<T> sum[R][Columns];
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 6
    for (int j = 0; j < Columns; ++j) sum[i][j] = Vec<T>::zero();
  }
  for_lanes<T>(k, [&](int64_t p, auto lanes) {
    Vec<T> x[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) x[i] = load(a + i * lda + p, lanes);
#pragma GCC unroll 6
    for (int j = 0; j < Columns; ++j) {
      const Vec<T> w = in_register(load(b + j * ldb + p, lanes));
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) sum[i][j] = fma(x[i], w, sum[i][j]);
    }
  });
  static constexpr T zeros[Columns] = {};
  const T least = epilogue.relu ? T(0) : -static_cast<T>(__builtin_inff());
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    T* to = c + i * ldc;
    const T* start = epilogue.accumulate ? to : epilogue.bias != nullptr ? epilogue.bias : zeros;
#pragma GCC unroll 6
    for (int j = 0; j < Columns; ++j) {
      const T value = start[j] + reduce_add(sum[i][j]);
      to[j] = value < least ? least : value;
    }
  }
}

// The accumulators of dot_block, as many as the registers hold beside its operands.
template <class T>
constexpr int dot_rows = sizeof(T) == 8  ? 2
                         : gemm_rows > 8 ? 4
                                         : 3;
template <class T>
constexpr int dot_columns = sizeof(T) == 8  ? 4
                            : gemm_rows > 8 ? 6
                                            : 4;

template <class T>
struct DotBlocks {
  void (*blocks[dot_rows<T>][dot_columns<T>])(T*, int64_t, const T*, int64_t, const T*, int64_t, const GemmEpilogue<T>&,
                                              int64_t);
  constexpr DotBlocks() : blocks() { fill<dot_rows<T>, dot_columns<T>>(); }

 private:
  template <int R, int Columns>
  constexpr void fill() {
    blocks[R - 1][Columns - 1] = dot_block<T, R, Columns>;
    if constexpr (Columns > 1) {
      fill<R, Columns - 1>();
    } else if constexpr (R > 1) {
      fill<R - 1, dot_columns<T>>();
    }
  }
};

template <class T>
constexpr DotBlocks<T> dot_blocks;

template <class T>
void dot(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, GemmEpilogue<T> epilogue, int64_t m,
         int64_t n, int64_t k) {
  const int64_t row_blocks = (m + dot_rows<T> - 1) / dot_rows<T>;
  const int64_t column_blocks = (n + dot_columns<T> - 1) / dot_columns<T>;
  const bool rows_outside = m > n;  // the operand with more rows is read once
  for (int64_t q = 0; q < row_blocks * column_blocks; ++q) {
    const int64_t r = rows_outside ? q / column_blocks : q % row_blocks;
    const int64_t s = rows_outside ? q % column_blocks : q / row_blocks;
    const int64_t i = m * r / row_blocks, rows = m * (r + 1) / row_blocks - i;
    const int64_t j = n * s / column_blocks, columns = n * (s + 1) / column_blocks - j;
    GemmEpilogue<T> here = epilogue;
    if (here.bias != nullptr) here.bias += j;
    dot_blocks<T>.blocks[rows - 1][columns - 1](c + i * ldc + j, ldc, a + i * lda, lda, b + j * ldb, ldb, here, k);
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
