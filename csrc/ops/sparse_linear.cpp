#include "ops/sparse_linear.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "ops/ceil_div.h"
#include "ops/gemm_product.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kLeastWork = int64_t(1) << 18;  // multiply-adds of the dense product
constexpr int64_t kLeastRows = 16;
constexpr int64_t kLeastVectors = 3;  // of a row of outputs: listing what is not 0 costs the same for each number
constexpr int64_t kLeastDepth = 64;
constexpr int64_t kSampledRows = 8;
constexpr int64_t kZeroShare = 3;     // of so many sampled elements at most one is not 0
constexpr int64_t kTileColumns = 64;  // of x that are turned at once

template <class T>
int64_t lanes() {
  return kernels<T>().gemm.nr / 2;
}

// Columns of the outputs in so many nearly equal parts of whole vectors.
struct Parts {
  int64_t columns, lanes, count;

  int64_t begin(int64_t part) const { return ceil_div(columns, lanes) * part / count * lanes; }
  int64_t width(int64_t part) const { return begin(part + 1) - begin(part); }
  int64_t size(int64_t part) const { return std::min(columns, begin(part + 1)) - begin(part); }
};

template <class T>
Parts parts_of(int64_t columns, int64_t threads) {
  const int64_t vectors = ceil_div(columns, lanes<T>());
  const int64_t least = ceil_div(columns, kernels<T>().gemm.sparse_columns);
  return {columns, lanes<T>(), std::max(least, std::min(round_up(least, threads), vectors / kLeastVectors))};
}

// C[m, n] = epilogue(A * B) with the bits of the dense block.
template <class T>
void multiply(bool sparse, T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb,
              GemmEpilogue<T> epilogue, int64_t m, int64_t n, int64_t k) {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  if (sparse) {
    kernel.sparse_block(c, ldc, a, lda, b, ldb, epilogue, m, n, k);
  } else {
    kernel.block(c, ldc, a, lda, false, {b, ldb, kernel.nr}, epilogue, m, n, k);
  }
}

}  // namespace

template <class T>
bool zeros_pay(const T* x, int64_t rows, int64_t in, int64_t out) {
  if (rows < kLeastRows || in < kLeastDepth || out < kLeastVectors * lanes<T>() || rows * in * out < kLeastWork) {
    return false;
  }
  int64_t others = 0;
  for (int64_t sample = 0; sample < kSampledRows; ++sample) {
    const T* row = x + rows * sample / kSampledRows * in;
    int32_t here = 0;
    for (int64_t j = 0; j < in; ++j) here += row[j] != T(0);
    others += here;
    if (others * kZeroShare > kSampledRows * in) return false;
  }
  return true;
}

template <class T>
void sparse_linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
                   int64_t out) {
  static Counter taken("gemm.sparse");
  taken.add();
  // By columns: threads had better not share weights that an optimiser will write to.
  const int64_t threads = num_threads();
  const Parts columns = parts_of<T>(out, threads);
  const int64_t row_parts = threads / std::gcd(threads, columns.count);
  parallel_for(columns.count * row_parts, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    const int64_t part = task % columns.count, first = rows * (task / columns.count) / row_parts;
    const int64_t end = rows * (task / columns.count + 1) / row_parts;
    const int64_t j = columns.begin(part), width = columns.width(part), n = columns.size(part);
    const int64_t depth = table.gemm.sparse_depth;
    T* packed = arena::scratch<T>(arena::Slot::pack_b, depth * width);
    for (int64_t p = 0; p < depth && n < width; ++p) std::fill(packed + p * width + n, packed + (p + 1) * width, T(0));
    for (int64_t p = 0; p < in; p += depth) {
      const int64_t size = std::min(depth, in - p);
      table.layout.transpose(packed, width, weight + j * in + p, in, n, size);
      GemmEpilogue<T> epilogue;
      epilogue.bias = bias != nullptr ? bias + j : nullptr;
      epilogue.accumulate = p > 0;
      epilogue.relu = activation == Activation::relu && p + size == in;
      multiply(table.gemm.is_finite(packed, size * width), y + first * out + j, out, x + first * in + p, in, packed,
               width, epilogue, end - first, n, size);
    }
    if (activation == Activation::none || activation == Activation::relu) return;
    for (int64_t i = first; i < end; ++i) activate(activation, y + i * out + j, n);
  });
}

template <class T>
void sparse_dweight(T* dweight, T* dbias, const T* dy, const T* y, const T* x, Activation activation, int64_t rows,
                    int64_t in, int64_t out) {
  static Counter taken("gemm.sparse_dweight");
  taken.add();
  // The transpose of dweight is that of x, which the zeros are in, times dz. Each task makes all of dz: a phase of its
  // own would be waited for, and its lines would come from the other core.
  const Parts panels = parts_of<T>(out, 1);
  const int64_t vectors = ceil_div(in, lanes<T>()), tasks = std::min<int64_t>(num_threads(), vectors);
  parallel_for(tasks, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    T* dz = arena::scratch<T>(arena::Slot::pack_b, rows * panels.begin(panels.count));
    for (int64_t part = 0; part < panels.count; ++part) {
      const int64_t j = panels.begin(part), width = panels.width(part), n = panels.size(part);
      T* panel = dz + rows * j;
      for (int64_t i = 0; i < rows; ++i) {
        T* row = panel + i * width;
        if (activation == Activation::none) {
          std::copy_n(dy + i * out + j, n, row);
        } else {
          activation_backward(activation, row, dy + i * out + j, y + i * out + j, n);
        }
        std::fill(row + n, row + width, T(0));
      }
      if (task == 0 && dbias != nullptr) table.gemm.column_sums(dbias + j, panel, width, rows, n);
    }
    const bool sparse = table.gemm.is_finite(dz, rows * panels.begin(panels.count));
    const int64_t depth = table.gemm.sparse_depth;
    const int64_t end = std::min(in, vectors * (task + 1) / tasks * lanes<T>());
    for (int64_t column = vectors * task / tasks * lanes<T>(); column < end; column += kTileColumns) {
      const int64_t size = std::min(kTileColumns, end - column);
      T* turned = arena::scratch<T>(arena::Slot::pack_a, size * rows);
      table.layout.transpose(turned, rows, x + column, in, rows, size);
      for (int64_t part = 0; part < panels.count; ++part) {
        const int64_t j = panels.begin(part), width = panels.width(part), n = panels.size(part);
        T* tile = arena::scratch<T>(arena::Slot::tile, size * width);
        for (int64_t p = 0; p < rows; p += depth) {
          GemmEpilogue<T> epilogue;
          epilogue.accumulate = p > 0;
          multiply(sparse, tile, width, turned + p, rows, dz + rows * j + p * width, width, epilogue, size, n,
                   std::min(depth, rows - p));
        }
        table.layout.transpose(dweight + j * in + column, in, tile, width, size, n);
      }
    }
  });
}

#define PYNN_INSTANTIATE(T)                                                                             \
  template bool zeros_pay(const T*, int64_t, int64_t, int64_t);                                         \
  template void sparse_linear(T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t); \
  template void sparse_dweight(T*, T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
