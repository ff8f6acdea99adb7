#include "ops/pool.h"

#include <algorithm>
#include <atomic>
#include <type_traits>

#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

// Offsets of a range of planes in the arrays.
struct Range {
  int64_t in, out, planes;
};

// Calls fn(range) for the planes, a thread's share at a time; small work stays on one thread.
template <class Function>
void for_planes(const PoolShape& shape, int64_t planes, const Function& fn) {
  constexpr int64_t kSerialElements = 32768;
  const int64_t in = shape.rows.size * shape.columns.size, out = shape.rows.out * shape.columns.out;
  const int64_t grain = std::max<int64_t>(1, kSerialElements / std::max<int64_t>(1, in + out));
  parallel_ranges(planes, grain, [&](int64_t begin, int64_t end) { fn(Range{begin * in, begin * out, end - begin}); });
}

bool is_2x2(const PoolAxis& axis) {
  return axis.kernel == 2 && axis.stride == 2 && axis.padding == 0 && axis.dilation == 1 && 2 * axis.out <= axis.size;
}

bool is_2x2(const PoolShape& shape) { return is_2x2(shape.rows) && is_2x2(shape.columns); }

// The way through planes laid out anew; its limits keep what is laid out small.
bool fits_planes(const PoolShape& shape) {
  constexpr int64_t kMostTaps = 256, kMostStride = 4, kMostElements = int64_t(1) << 22;
  return shape.rows.kernel <= kMostTaps && shape.columns.kernel <= kMostTaps &&
         shape.rows.kernel * shape.columns.kernel <= kMostTaps && shape.columns.stride <= kMostStride &&
         shape.rows.size <= kMostElements / shape.columns.size;
}

template <class T>
T* plane_scratch(const PoolShape& shape) {
  const int64_t rows = std::max(shape.rows.size * shape.columns.stride, shape.rows.out);
  return arena::scratch<T>(arena::Slot::columns, pool_width(shape.columns) * (2 + rows));
}

// Kernels by how the windows lie.
enum class Path { side_by_side, planes, general };

// `worth`: that laying out a plane would pay.
Path path_of(const PoolShape& shape, bool worth = true) {
  static Counter path_2x2("pool2d.2x2"), path_planes("pool2d.planes"), path_general("pool2d.general");
  const Path path = is_2x2(shape) ? Path::side_by_side : worth && fits_planes(shape) ? Path::planes : Path::general;
  (path == Path::side_by_side ? path_2x2 : path == Path::planes ? path_planes : path_general).add();
  return path;
}

}  // namespace

template <class T, class Index>
void max_pool2d(T* y, Index* indices, const T* x, const PoolShape& shape, int64_t planes) {
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const Path path = path_of(shape);
  for_planes(shape, planes, [&](const Range& r) {
    T* to = y + r.out;
    const T* from = x + r.in;
    if constexpr (std::is_same_v<Index, uint8_t>) {
      if (path == Path::side_by_side) return kernel.max_pool2d_2x2(to, indices + r.out, from, shape, r.planes);
      if (path == Path::planes) {
        return kernel.max_pool2d_planes(to, indices + r.out, from, shape, r.planes, plane_scratch<T>(shape));
      }
      kernel.max_pool2d(to, indices + r.out, from, shape, r.planes);
    } else {
      kernel.max_pool2d_large(to, indices + r.out, from, shape, r.planes);
    }
  });
}

template <class T, class Index>
bool max_pool2d_backward(T* dx, const T* dy, const Index* indices, const PoolShape& shape, int64_t planes) {
  constexpr int64_t kFewColumns = 8;  // would leave the vectors of the 2 x 2 kernel half empty
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const bool by_pairs = path_of(shape, false) == Path::side_by_side && shape.columns.out >= kFewColumns;
  std::atomic<bool> valid{true};
  for_planes(shape, planes, [&](const Range& r) {
    T* to = dx + r.in;
    const T* from = dy + r.out;
    const Index* index = indices + r.out;
    bool inside;
    if constexpr (!std::is_same_v<Index, uint8_t>) {
      inside = kernel.max_pool2d_large_backward(to, from, index, shape, r.planes);
    } else if (by_pairs) {
      inside = kernel.max_pool2d_2x2_backward(to, from, index, shape, r.planes);
    } else {
      inside = kernel.max_pool2d_backward(to, from, index, shape, r.planes);
    }
    if (!inside) valid.store(false, std::memory_order_relaxed);
  });
  return valid.load();
}

template <class T>
void avg_pool2d(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const Path path = path_of(shape, shape.columns.out > 2);
  for_planes(shape, planes, [&](const Range& r) {
    T* to = y + r.out;
    const T* from = x + r.in;
    if (path == Path::side_by_side) return kernel.avg_pool2d_2x2(to, from, shape, r.planes);
    if (path == Path::general) return kernel.avg_pool2d(to, from, shape, count_include_pad, r.planes);
    kernel.avg_pool2d_planes(to, from, shape, count_include_pad, r.planes, plane_scratch<T>(shape));
  });
}

template <class T>
void avg_pool2d_backward(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  const PoolKernels<T>& kernel = kernels<T>().pool;
  // Elements that one window sees, or few of them, are written as quickly one by one.
  const PoolAxis& columns = shape.columns;
  const bool worth = columns.stride < columns.kernel && (columns.stride == 1 || columns.size >= 16);
  const Path path = path_of(shape, worth);
  for_planes(shape, planes, [&](const Range& r) {
    T* to = dx + r.in;
    const T* from = dy + r.out;
    if (path == Path::side_by_side) return kernel.avg_pool2d_2x2_backward(to, from, shape, r.planes);
    if (path == Path::general) return kernel.avg_pool2d_backward(to, from, shape, count_include_pad, r.planes);
    kernel.avg_pool2d_planes_backward(to, from, shape, count_include_pad, r.planes, plane_scratch<T>(shape));
  });
}

#define PYNN_INSTANTIATE_INDEX(T, Index)                                     \
  template void max_pool2d(T*, Index*, const T*, const PoolShape&, int64_t); \
  template bool max_pool2d_backward(T*, const T*, const Index*, const PoolShape&, int64_t);
#define PYNN_INSTANTIATE(T)                                                \
  PYNN_INSTANTIATE_INDEX(T, uint8_t)                                       \
  PYNN_INSTANTIATE_INDEX(T, int32_t)                                       \
  template void avg_pool2d(T*, const T*, const PoolShape&, bool, int64_t); \
  template void avg_pool2d_backward(T*, const T*, const PoolShape&, bool, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
