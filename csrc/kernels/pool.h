// Pooling of planes [height, width] to [out_height, out_width]: an image's channels, one after the other.
#pragma once

#include <cstdint>

namespace pynn {

struct PoolAxis {
  int64_t size, out;  // of the input and the output along this axis
  int64_t kernel, stride, padding, dilation;
};

struct PoolShape {
  PoolAxis rows, columns;
};

// How many columns the pool kernels with scratch give to a phase of a row: windows or elements, the taps beside them,
// and room for a vector. Inlined always: a kernel file must not export it.
__attribute__((always_inline)) static inline int64_t pool_width(const PoolAxis& columns) {
  const int64_t elements = (columns.size + columns.padding) / columns.stride + 1;
  const int64_t taps = (columns.kernel - 1) * columns.dilation / columns.stride + 1;
  return (elements > columns.out ? elements : columns.out) + taps + 16;
}

// x, dx [planes, height, width]; y, dy, indices [planes, out_height, out_width]; an index counts the taps of a window
// row by row. The backward of max_pool2d is false if an index lies outside the window.
template <class T>
struct PoolKernels {
  void (*max_pool2d)(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes);
  bool (*max_pool2d_backward)(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes);

  // The same for windows of more than 256 taps.
  void (*max_pool2d_large)(T* y, int32_t* indices, const T* x, const PoolShape& shape, int64_t planes);
  bool (*max_pool2d_large_backward)(T* dx, const T* dy, const int32_t* indices, const PoolShape& shape, int64_t planes);

  void (*avg_pool2d)(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes);
  void (*avg_pool2d_backward)(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes);

  // The same, quicker, for at most 256 taps and a column stride of at most 4, with scratch for pool_width(columns)
  // times the sum of 2 and the larger of height * column stride and out_height elements.
  void (*max_pool2d_planes)(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes, T* scratch);
  void (*avg_pool2d_planes)(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes,
                            T* scratch);
  void (*avg_pool2d_planes_backward)(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes,
                                     T* scratch);

  // Windows of 2 x 2 side by side, all of them inside the input.
  void (*max_pool2d_2x2)(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes);
  bool (*max_pool2d_2x2_backward)(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes);
  void (*avg_pool2d_2x2)(T* y, const T* x, const PoolShape& shape, int64_t planes);
  void (*avg_pool2d_2x2_backward)(T* dx, const T* dy, const PoolShape& shape, int64_t planes);
};

}  // namespace pynn
