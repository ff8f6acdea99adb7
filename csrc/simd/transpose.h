// Transposition of a matrix of any size, in square blocks of registers where they fit.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// dst[cols, rows] = src[rows, cols] transposed
template <class T>
void transpose(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t rows, int64_t cols) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < rows; i += lanes) {
    const int height = static_cast<int>(rows - i < lanes ? rows - i : lanes);
    for (int64_t j = 0; j < cols; j += lanes) {
      const int width = static_cast<int>(cols - j < lanes ? cols - j : lanes);
      T* to = dst + j * dst_stride + i;
      const T* from = src + i * src_stride + j;
      if (height == lanes && width == lanes) {
        transpose_block(to, dst_stride, from, src_stride);
      } else {
        transpose_block(to, dst_stride, from, src_stride, height, width);
      }
    }
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
