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
    int64_t j = 0;
    if (rows - i >= lanes) {
      for (; j + lanes <= cols; j += lanes) {
        transpose_block(dst + j * dst_stride + i, dst_stride, src + i * src_stride + j, src_stride);
      }
    }
    for (; j < cols; ++j) {
      for (int64_t q = i; q < i + lanes && q < rows; ++q) dst[j * dst_stride + q] = src[q * src_stride + j];
    }
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
