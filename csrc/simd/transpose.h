// Transposition of a matrix of any size, in square blocks of registers where they fit.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// dst[cols, rows] = src[rows, cols] transposed. The last blocks of a matrix of at least a block overlap those before
// them.
template <class T>
PYNN_INLINE void transpose(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t rows, int64_t cols) {
  constexpr int64_t lanes = Vec<T>::lanes;
  if (rows < lanes || cols < lanes) {
    for (int64_t i = 0; i < rows; i += lanes) {
      for (int64_t j = 0; j < cols; j += lanes) {
        transpose_block(dst + j * dst_stride + i, dst_stride, src + i * src_stride + j, src_stride,
                        static_cast<int>(rows - i < lanes ? rows - i : lanes),
                        static_cast<int>(cols - j < lanes ? cols - j : lanes));
      }
    }
    return;
  }
  for (int64_t i = 0; i < rows; i += lanes) {
    const int64_t row = i < rows - lanes ? i : rows - lanes;
    for (int64_t j = 0; j < cols; j += lanes) {
      const int64_t col = j < cols - lanes ? j : cols - lanes;
      transpose_block(dst + col * dst_stride + row, dst_stride, src + row * src_stride + col, src_stride);
    }
  }
}

// The same as a function of its own, where speed does not ask for a copy of it in each place.
template <class T>
__attribute__((noinline)) void turn(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t rows,
                                    int64_t cols) {
  transpose(dst, dst_stride, src, src_stride, rows, cols);
}

}  // namespace
}  // namespace pynn::PYNN_ISA
