#include "ops/reduction.h"

#include <algorithm>

#include "ops/broadcast.h"
#include "ops/ceil_div.h"
#include "ops/elementwise.h"
#include "ops/layout.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

// Longer reductions are cut into chunks, whose results are reduced in turn: they can go to several threads, and sums in
// float32 keep their digits.
constexpr int64_t kRowChunk = 4096;
constexpr int64_t kColumnChunk = 256;
constexpr int64_t kColumnBlock = 2048;  // columns that one task takes

// Runs fn(begin, end) over 0..tasks-1, in parallel if that many tasks of `work` elements each are worth it.
template <class Function>
void for_tasks(int64_t tasks, int64_t work, const Function& fn) {
  if (tasks * work < 2 * kElementGrain) {
    fn(int64_t(0), tasks);
  } else {
    parallel_ranges(tasks, std::max<int64_t>(1, kElementGrain / std::max<int64_t>(1, work)), fn);
  }
}

}  // namespace

template <class T>
void reduce(const Reducer<T>& kernel, const Reducer<T>& combine, T* y, const T* x, const T* center, Middle size) {
  const auto [outer, n, inner] = size;
  if (outer * inner == 0) return;
  const auto at = [](const T* p, int64_t i) { return p != nullptr ? p + i : nullptr; };
  const int64_t longest = inner == 1 ? kRowChunk : kColumnChunk;
  const int64_t chunks = std::max<int64_t>(1, ceil_div(n, longest));
  if (inner == 1 && chunks == 1) {
    for_tasks(outer, n, [&, n = n](int64_t begin, int64_t end) {
      kernel.rows(y + begin, x + begin * n, at(center, begin), end - begin, n, n);
    });
    return;
  }
  const arena::Buffer<T> partial(chunks == 1 ? 0 : outer * chunks * inner);  // [outer, chunks, inner]
  T* target = chunks == 1 ? y : partial.get();
  const int64_t blocks = ceil_div(inner, kColumnBlock);
  const int64_t work = std::min(n, longest) * std::min(inner, kColumnBlock);
  for_tasks(outer * chunks * blocks, work, [&, n = n, inner = inner](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task / blocks, i = part / chunks, chunk = part % chunks;
      const int64_t from = n * chunk / chunks, terms = n * (chunk + 1) / chunks - from;
      if (inner == 1) {
        kernel.rows(target + part, x + i * n + from, at(center, i), 1, terms, n);
      } else {
        const int64_t j = task % blocks * kColumnBlock;
        kernel.columns(target + part * inner + j, x + (i * n + from) * inner + j, at(center, i * inner + j), terms,
                       std::min(kColumnBlock, inner - j), inner);
      }
    }
  });
  if (chunks > 1) reduce<T>(combine, combine, y, partial.get(), nullptr, {outer, chunks, inner});
}

namespace {

// The axes with neighbours of one kind merged and those of size 1 dropped.
struct Groups {
  int ndim = 0;
  int64_t size[kMaxAxes];
  bool reduced[kMaxAxes];

  explicit Groups(const Axes& axes) {
    for (int i = 0; i < axes.ndim; ++i) {
      if (axes.shape[i] == 1) continue;
      if (ndim > 0 && reduced[ndim - 1] == axes.reduced[i]) {
        size[ndim - 1] *= axes.shape[i];
      } else {
        size[ndim] = axes.shape[i];
        reduced[ndim++] = axes.reduced[i];
      }
    }
  }

  int count_reduced() const { return static_cast<int>(std::count(reduced, reduced + ndim, true)); }

  Middle middle(int axis) const {
    Middle m{1, size[axis], 1};
    for (int i = 0; i < axis; ++i) m.outer *= size[i];
    for (int i = axis + 1; i < ndim; ++i) m.inner *= size[i];
    return m;
  }
};

constexpr int64_t kShortAxis = 16;  // elements; a row of fewer is better reduced last

// A reduction whose partial results are reduced by itself: one group of axes after another.
template <class T>
void reduce_groups(const Reducer<T>& kernel, T* y, const T* x, const Axes& axes) {
  Groups groups(axes);
  const int left = groups.count_reduced();
  if (left == 0) {
    return for_elements(axes.kept, [&](int64_t begin, int64_t end) { std::copy(x + begin, x + end, y + begin); });
  }
  if (left == 1) {
    const int axis = static_cast<int>(std::find(groups.reduced, groups.reduced + groups.ndim, true) - groups.reduced);
    return reduce<T>(kernel, kernel, y, x, nullptr, groups.middle(axis));
  }
  const int first = groups.reduced[0] ? 0 : 1;
  const int last = groups.reduced[groups.ndim - 1] ? groups.ndim - 1 : groups.ndim - 2;
  const int axis = last == groups.ndim - 1 && groups.size[last] < kShortAxis ? first : last;
  const Middle m = groups.middle(axis);
  const arena::Buffer<T> smaller(m.outer * m.inner);
  reduce<T>(kernel, kernel, smaller.get(), x, nullptr, m);
  groups.size[axis] = 1;
  const Axes rest{groups.size, groups.reduced, groups.ndim, axes.count / std::max<int64_t>(1, m.n), axes.kept};
  reduce_groups(kernel, y, smaller.get(), rest);
}

template <class T>
void divide(T* y, T divisor, int64_t n) {
  for_elements(n, [&](int64_t i, int64_t end) {
    kernels<T>().broadcast.div(y + i, {y + i, 0, 1}, {&divisor, 0, 0}, 1, end - i);
  });
}

template <class T>
T degrees_of_freedom(int64_t count, int64_t correction) {
  return static_cast<T>(std::max(static_cast<double>(count) - static_cast<double>(correction), 0.0));
}

// The array [shape] beside one that has size 1 in the reduced axes.
Broadcast<2> beside_kept(const Axes& axes) {
  int64_t kept[kMaxAxes];
  for (int i = 0; i < axes.ndim; ++i) kept[i] = axes.reduced[i] ? 1 : axes.shape[i];
  return {axes.shape, axes.ndim, {axes.shape, kept}, {axes.ndim, axes.ndim}};
}

}  // namespace

template <class T>
void sum(T* y, const T* x, const Axes& axes) {
  reduce_groups(kernels<T>().reduction.sum, y, x, axes);
}

template <class T>
void mean(T* y, const T* x, const Axes& axes) {
  sum(y, x, axes);
  if (axes.count != 1) divide(y, static_cast<T>(axes.count), axes.kept);
}

template <class T>
void max(T* y, const T* x, const Axes& axes) {
  reduce_groups(kernels<T>().reduction.max, y, x, axes);
}

template <class T>
void min(T* y, const T* x, const Axes& axes) {
  reduce_groups(kernels<T>().reduction.min, y, x, axes);
}

template <class T>
void var(T* y, const T* x, int64_t correction, const Axes& axes) {
  const ReductionKernels<T>& kernel = kernels<T>().reduction;
  const Groups groups(axes);
  const int reduced = groups.count_reduced();
  Middle size{axes.kept, axes.count, 1};
  const arena::Buffer<T> rows(reduced > 1 ? axes.kept * axes.count : 0);  // [kept, count]
  if (reduced == 1) {
    size =
        groups.middle(static_cast<int>(std::find(groups.reduced, groups.reduced + groups.ndim, true) - groups.reduced));
  } else if (reduced > 1) {
    std::vector<CopyAxis> order;
    int64_t stride = 1;
    for (const bool which : {true, false}) {  // from the last axis
      int64_t src_stride = 1;
      for (int i = groups.ndim - 1; i >= 0; src_stride *= groups.size[i--]) {
        if (groups.reduced[i] != which) continue;
        order.push_back({groups.size[i], stride, src_stride});
        stride *= groups.size[i];
      }
    }
    std::reverse(order.begin(), order.end());
    strided_copy(rows.get(), x, order);
    x = rows.get();
  }
  const arena::Buffer<T> center(axes.kept);
  reduce<T>(kernel.sum, kernel.sum, center.get(), x, nullptr, size);
  divide(center.get(), static_cast<T>(axes.count), axes.kept);
  reduce<T>(kernel.squared_deviations, kernel.sum, y, x, center.get(), size);
  divide(y, degrees_of_freedom<T>(axes.count, correction), axes.kept);
}

template <class T>
void argmax(int64_t* y, const T* x, Middle size) {
  if (size.inner == 0) return;  // of nothing there can be more slabs than can be counted through
  const ReductionKernels<T>& kernel = kernels<T>().reduction;
  const arena::Buffer<T> best(size.outer * size.inner);
  reduce<T>(kernel.max, kernel.max, best.get(), x, nullptr, size);
  for_tasks(size.outer, size.n * size.inner, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T *slab = x + i * size.n * size.inner, *value = best.get() + i * size.inner;
      if (size.inner == 1) {
        y[i] = kernel.find(slab, *value, size.n);
      } else {
        kernel.find_columns(y + i * size.inner, slab, value, size.n, size.inner, size.inner);
      }
    }
  });
}

template <class T>
void extremum_backward(T* dx, const T* dy, const T* x, const T* y, const Axes& axes) {
  const BroadcastKernels<T>& kernel = kernels<T>().broadcast;
  const Broadcast<2> g = beside_kept(axes);
  const arena::Buffer<T> share(axes.kept);
  binary(kernel.equal, dx, x, y, g);  // 1 at the extrema
  sum(share.get(), dx, axes);
  for_elements(axes.kept, [&](int64_t i, int64_t end) {
    kernel.div(share.get() + i, {dy + i, 0, 1}, {share.get() + i, 0, 1}, 1, end - i);
  });
  binary(kernel.choose, dx, dx, share.get(), g);
}

template <class T>
void var_backward(T* dx, const T* dy, const T* x, int64_t correction, const Axes& axes) {
  const BroadcastKernels<T>& kernel = kernels<T>().broadcast;
  const Broadcast<2> g = beside_kept(axes);
  const arena::Buffer<T> center(axes.kept);
  mean(center.get(), x, axes);
  binary(kernel.sub, dx, x, center.get(), g);
  const T scale = T(2) / degrees_of_freedom<T>(axes.count, correction);
  T* slope = center.get();
  for_elements(axes.kept,
               [&](int64_t i, int64_t end) { kernel.mul(slope + i, {dy + i, 0, 1}, {&scale, 0, 0}, 1, end - i); });
  binary(kernel.mul, dx, dx, slope, g);
}

#define PYNN_INSTANTIATE(T)                                                                   \
  template void reduce(const Reducer<T>&, const Reducer<T>&, T*, const T*, const T*, Middle); \
  template void sum(T*, const T*, const Axes&);                                               \
  template void mean(T*, const T*, const Axes&);                                              \
  template void max(T*, const T*, const Axes&);                                               \
  template void min(T*, const T*, const Axes&);                                               \
  template void var(T*, const T*, int64_t, const Axes&);                                      \
  template void argmax(int64_t*, const T*, Middle);                                           \
  template void extremum_backward(T*, const T*, const T*, const T*, const Axes&);             \
  template void var_backward(T*, const T*, const T*, int64_t, const Axes&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
