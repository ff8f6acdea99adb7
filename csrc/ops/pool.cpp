#include "ops/pool.h"

#include <algorithm>
#include <atomic>
#include <type_traits>

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

}  // namespace

template <class T, class Index>
void max_pool2d(T* y, Index* indices, const T* x, const PoolShape& shape, int64_t planes) {
  static Counter path_2x2("max_pool2d.2x2"), path_general("max_pool2d.general");
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const bool fast = is_2x2(shape);
  (fast ? path_2x2 : path_general).add();
  for_planes(shape, planes, [&](const Range& r) {
    if constexpr (std::is_same_v<Index, uint8_t>) {
      (fast ? kernel.max_pool2d_2x2 : kernel.max_pool2d)(y + r.out, indices + r.out, x + r.in, shape, r.planes);
    } else {
      kernel.max_pool2d_large(y + r.out, indices + r.out, x + r.in, shape, r.planes);
    }
  });
}

template <class T, class Index>
bool max_pool2d_backward(T* dx, const T* dy, const Index* indices, const PoolShape& shape, int64_t planes) {
  static Counter path_2x2("max_pool2d_backward.2x2"), path_general("max_pool2d_backward.general");
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const bool fast = is_2x2(shape);
  (fast ? path_2x2 : path_general).add();
  std::atomic<bool> valid{true};
  for_planes(shape, planes, [&](const Range& r) {
    bool inside;
    if constexpr (std::is_same_v<Index, uint8_t>) {
      inside = (fast ? kernel.max_pool2d_2x2_backward : kernel.max_pool2d_backward)(dx + r.in, dy + r.out,
                                                                                    indices + r.out, shape, r.planes);
    } else {
      inside = kernel.max_pool2d_large_backward(dx + r.in, dy + r.out, indices + r.out, shape, r.planes);
    }
    if (!inside) valid.store(false, std::memory_order_relaxed);
  });
  return valid.load();
}

template <class T>
void avg_pool2d(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  static Counter path_2x2("avg_pool2d.2x2"), path_general("avg_pool2d.general");
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const bool fast = is_2x2(shape);
  (fast ? path_2x2 : path_general).add();
  for_planes(shape, planes, [&](const Range& r) {
    if (fast) {
      kernel.avg_pool2d_2x2(y + r.out, x + r.in, shape, r.planes);
    } else {
      kernel.avg_pool2d(y + r.out, x + r.in, shape, count_include_pad, r.planes);
    }
  });
}

template <class T>
void avg_pool2d_backward(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  static Counter path_2x2("avg_pool2d_backward.2x2"), path_general("avg_pool2d_backward.general");
  const PoolKernels<T>& kernel = kernels<T>().pool;
  const bool fast = is_2x2(shape);
  (fast ? path_2x2 : path_general).add();
  for_planes(shape, planes, [&](const Range& r) {
    if (fast) {
      kernel.avg_pool2d_2x2_backward(dx + r.in, dy + r.out, shape, r.planes);
    } else {
      kernel.avg_pool2d_backward(dx + r.in, dy + r.out, shape, count_include_pad, r.planes);
    }
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
