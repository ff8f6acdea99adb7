#include "ops/broadcast.h"

#include <algorithm>

#include "ops/elementwise.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

template <int K>
Broadcast<K>::Broadcast(const int64_t* shape, int shape_ndim, const int64_t* const (&shapes)[K],
                        const int (&ndims)[K]) {
  ndim = 0;
  total = 1;
  int64_t next[K];  // stride of the axis at hand in operand k
  for (int k = 0; k < K; ++k) next[k] = 1;
  // From the last axis; turned round at the end.
  for (int axis = shape_ndim - 1; axis >= 0; --axis) {
    const int64_t n = shape[axis];
    if (n == 1) continue;
    total *= n;
    bool merges = ndim > 0;
    int64_t step[K];
    for (int k = 0; k < K; ++k) {
      const int own = axis - (shape_ndim - ndims[k]);
      const bool repeated = own < 0 || shapes[k][own] == 1;
      step[k] = repeated ? 0 : next[k];
      if (!repeated) next[k] *= n;
      merges = merges && step[k] == stride[k][ndim - 1] * size[ndim - 1];
    }
    if (merges) {
      size[ndim - 1] *= n;
      continue;
    }
    size[ndim] = n;
    for (int k = 0; k < K; ++k) stride[k][ndim] = step[k];
    ++ndim;
  }
  if (ndim == 0) {
    ndim = 1;
    size[0] = 1;
    for (int k = 0; k < K; ++k) stride[k][0] = 1;
  }
  std::reverse(size, size + ndim);
  for (int k = 0; k < K; ++k) std::reverse(stride[k], stride[k] + ndim);
}

template struct Broadcast<1>;
template struct Broadcast<2>;
template struct Broadcast<3>;

namespace {

// Calls fn(y, offset, rows, n) for blocks [rows, n] that cover the output, y and offset[k] being where the block begins
// in the output and in operand k; within it, rows of operand k are row(g, k) apart.
template <int K, class Function>
void for_blocks(const Broadcast<K>& g, const Function& fn) {
  if (g.total == 0) return;
  const int64_t n = g.size[g.ndim - 1], inner = g.ndim > 1 ? g.size[g.ndim - 2] : 1, rows = g.total / n;
  const auto run = [&](int64_t begin, int64_t end, int64_t from, int64_t to) {
    while (begin < end) {
      const int64_t first = begin % inner, count = std::min(inner - first, end - begin);
      int64_t offset[K];
      for (int k = 0; k < K; ++k) {
        offset[k] = from * g.stride[k][g.ndim - 1] + (g.ndim > 1 ? first * g.stride[k][g.ndim - 2] : 0);
      }
      int64_t rest = begin / inner;
      for (int axis = g.ndim - 3; axis >= 0; --axis) {
        const int64_t index = rest % g.size[axis];
        rest /= g.size[axis];
        for (int k = 0; k < K; ++k) offset[k] += index * g.stride[k][axis];
      }
      fn(begin * n + from, offset, count, to - from);
      begin += count;
    }
  };
  if (g.total < 2 * kElementGrain) {
    run(0, rows, 0, n);
  } else if (rows >= 4 * num_threads()) {
    parallel_ranges(rows, std::max<int64_t>(1, kElementGrain / n),
                    [&](int64_t begin, int64_t end) { run(begin, end, 0, n); });
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      parallel_ranges(n, kElementGrain, [&](int64_t from, int64_t to) { run(i, i + 1, from, to); });
    }
  }
}

template <class T, int K>
Operand<T> operand(const Broadcast<K>& g, int k, const T* data, int64_t offset) {
  return {data + offset, g.ndim > 1 ? g.stride[k][g.ndim - 2] : 0, g.stride[k][g.ndim - 1]};
}

constexpr int64_t kShortRow = 64;  // elements; shorter rows are better done several at a time
constexpr int64_t kTiledRow = 512;

// y[rows, n] = a[rows, n] op b[n] (or the operands the other way round) with a short n: repeat b to several rows'
// length.
template <class T>
bool binary_tiled(typename BroadcastKernels<T>::Binary kernel, T* y, const T* a, const T* b, const Broadcast<2>& g) {
  const int64_t n = g.size[g.ndim - 1];
  if (g.ndim != 2 || n >= kShortRow || g.total < 2 * kTiledRow || g.stride[0][1] != 1 || g.stride[1][1] != 1) {
    return false;
  }
  const bool b_repeats = g.stride[1][0] == 0;  // else a does: the axes would have been merged
  const int64_t repeats = kTiledRow / n, tiled = repeats * n;
  const T* source = b_repeats ? b : a;
  T tile[kTiledRow];
  for (int64_t i = 0; i < tiled; i += n) std::copy(source, source + n, tile + i);
  const auto run = [&](int64_t begin, int64_t rows, int64_t columns) {
    const Operand<T> full{(b_repeats ? a : b) + begin, tiled, 1}, repeated{tile, 0, 1};
    kernel(y + begin, b_repeats ? full : repeated, b_repeats ? repeated : full, rows, columns);
  };
  const int64_t rows = g.total / tiled;
  const auto rows_run = [&](int64_t begin, int64_t end) { run(begin * tiled, end - begin, tiled); };
  if (g.total < 2 * kElementGrain) {
    rows_run(0, rows);
  } else {
    parallel_ranges(rows, kElementGrain / kTiledRow, rows_run);
  }
  if (g.total % tiled != 0) run(rows * tiled, 1, g.total % tiled);
  return true;
}

}  // namespace

template <class T>
void binary(typename BroadcastKernels<T>::Binary kernel, T* y, const T* a, const T* b, const Broadcast<2>& g) {
  if (binary_tiled(kernel, y, a, b, g)) return;
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[2], int64_t rows, int64_t n) {
    kernel(y + k, operand(g, 0, a, offset[0]), operand(g, 1, b, offset[1]), rows, n);
  });
}

template <class T>
void binary_backward(typename BroadcastKernels<T>::BinaryBackward kernel, T* da, T* db, const T* dy, const T* a,
                     const T* b, const Broadcast<2>& g) {
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[2], int64_t rows, int64_t n) {
    kernel(da + k, db + k, dy + k, operand(g, 0, a, offset[0]), operand(g, 1, b, offset[1]), rows, n);
  });
}

template <class T>
void pow(T* y, const T* a, const T* b, int64_t b_size, const Broadcast<2>& g) {
  const BroadcastKernels<T>& kernel = kernels<T>().broadcast;
  if (b_size == 1 && g.ndim == 1 && g.total > 0) {
    const T exponent = *b;
    if (exponent == T(1)) {
      return for_elements(g.total, [&](int64_t i, int64_t end) { std::copy(a + i, a + end, y + i); });
    }
    if (exponent == T(0.5)) {
      return for_elements(g.total, [&](int64_t i, int64_t end) { kernel.pow_half(y + i, a + i, end - i); });
    }
    const bool cube = exponent == T(3);
    if (exponent == T(2) || cube) {
      return for_elements(g.total, [&](int64_t i, int64_t end) {
        kernel.mul(y + i, {a + i, 0, 1}, {a + i, 0, 1}, 1, end - i);
        if (cube) kernel.mul(y + i, {y + i, 0, 1}, {a + i, 0, 1}, 1, end - i);
      });
    }
    if (exponent == T(-1)) {
      const T one(1);
      return for_elements(g.total,
                          [&](int64_t i, int64_t end) { kernel.div(y + i, {&one, 0, 0}, {a + i, 0, 1}, 1, end - i); });
    }
  }
  binary(kernel.pow, y, a, b, g);
}

template <class T>
void pow_backward(T* da, T* db, const T* dy, const T* a, const T* b, const T* y, const Broadcast<2>& g) {
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[2], int64_t rows, int64_t n) {
    kernels<T>().broadcast.pow_backward(da + k, db + k, dy + k, operand(g, 0, a, offset[0]),
                                        operand(g, 1, b, offset[1]), y + k, rows, n);
  });
}

template <class T>
void where(T* y, const bool* condition, const T* a, const T* b, const Broadcast<3>& g) {
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[3], int64_t rows, int64_t n) {
    kernels<T>().broadcast.where(y + k, operand(g, 0, condition, offset[0]), operand(g, 1, a, offset[1]),
                                 operand(g, 2, b, offset[2]), rows, n);
  });
}

template <class T>
void where_backward(T* da, T* db, const T* dy, const bool* condition, const Broadcast<1>& g) {
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[1], int64_t rows, int64_t n) {
    kernels<T>().broadcast.where_backward(da + k, db + k, dy + k, operand(g, 0, condition, offset[0]), rows, n);
  });
}

template <class T>
void broadcast_to(T* y, const T* x, const Broadcast<1>& g) {
  for_blocks(g, [&](int64_t k, const int64_t (&offset)[1], int64_t rows, int64_t n) {
    kernels<T>().broadcast.copy(y + k, operand(g, 0, x, offset[0]), rows, n);
  });
}

#define PYNN_INSTANTIATE(T)                                                                                         \
  template void binary(typename BroadcastKernels<T>::Binary, T*, const T*, const T*, const Broadcast<2>&);          \
  template void binary_backward(typename BroadcastKernels<T>::BinaryBackward, T*, T*, const T*, const T*, const T*, \
                                const Broadcast<2>&);                                                               \
  template void pow(T*, const T*, const T*, int64_t, const Broadcast<2>&);                                          \
  template void pow_backward(T*, T*, const T*, const T*, const T*, const T*, const Broadcast<2>&);                  \
  template void where(T*, const bool*, const T*, const T*, const Broadcast<3>&);                                    \
  template void where_backward(T*, T*, const T*, const bool*, const Broadcast<1>&);                                 \
  template void broadcast_to(T*, const T*, const Broadcast<1>&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
