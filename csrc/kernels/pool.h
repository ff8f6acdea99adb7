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

  // Windows of 2 x 2 side by side, all of them inside the input.
  void (*max_pool2d_2x2)(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes);
  bool (*max_pool2d_2x2_backward)(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes);
  void (*avg_pool2d_2x2)(T* y, const T* x, const PoolShape& shape, int64_t planes);
  void (*avg_pool2d_2x2_backward)(T* dx, const T* dy, const PoolShape& shape, int64_t planes);
};

}  // namespace pynn
