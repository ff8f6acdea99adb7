// Kernels that move elements, or add them where they land.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct LayoutKernels {
  // dst[cols, rows] = src[rows, cols] transposed; strides between rows
  void (*transpose)(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t rows, int64_t cols);

  // dst[i * dst_stride] = src[i * src_stride]; strides of either sign, or 1 for both
  void (*copy)(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t n);

  void (*fill)(T* y, T value, int64_t n);
  void (*accumulate)(T* y, const T* x, int64_t n);  // y += x
};

}  // namespace pynn
