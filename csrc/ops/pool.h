// Pooling over planes, split over the threads.
#pragma once

#include <cstdint>

#include "kernels/pool.h"

namespace pynn::ops {

// x [planes, height, width] -> y, indices [planes, out_height, out_width]. Index is uint8_t, or int32_t for windows of
// more than 256 taps. The backward is false, with dx undefined, if an index lies outside the window.
template <class T, class Index>
void max_pool2d(T* y, Index* indices, const T* x, const PoolShape& shape, int64_t planes);
template <class T, class Index>
bool max_pool2d_backward(T* dx, const T* dy, const Index* indices, const PoolShape& shape, int64_t planes);

template <class T>
void avg_pool2d(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes);
template <class T>
void avg_pool2d_backward(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes);

}  // namespace pynn::ops
