#include "ops/sparse_linear.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
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
constexpr int64_t kLeastVectors = 3;       // of a row of outputs: listing what is not 0 costs the same for each number
constexpr int64_t kLeastVectorsOfFew = 8;  // the same for fewer than
constexpr int64_t kManyRows = 128;         // so many rows, beside which turning the weight costs more,
constexpr int64_t kLeastDweightVectors = 6;  // and for the weight's gradient, which is turned as well
constexpr int64_t kLeastInputRows = 32;
constexpr int64_t kLeastDweightRows = 64;
constexpr int64_t kLeastDepth = 64;
constexpr int64_t kSampledRows = 8;
constexpr int64_t kZeroShare = 3;             // of so many sampled elements at most one is not 0
constexpr int64_t kMostLive = 66;             // percent of a sample of gradients
constexpr int64_t kMostLiveBesideTiles = 30;  // the same where a dense product is made of tiles,
constexpr int64_t kMostLiveInPlace = 38;      // and where x is read in place beside it
constexpr int64_t kMostLiveOfFew = 40;        // the same for a weight of few rows, beside which x is packed
constexpr int64_t kMostLiveBesideInput = 33;  // the same where the zeros of x could be left out
constexpr int64_t kFewOutputs = 64;
constexpr int64_t kLeastGradientVectors = 5;
constexpr int64_t kMostDepth = 64;                    // bits of a word
constexpr int64_t kMostRowsInPlace = 128;             // of C: for more of them, rows of B are best side by side
constexpr int64_t kFewSetsStride = 1024;              // bytes: rows so far apart fall on few sets of the L1 cache
constexpr int64_t kTileColumns = 64;                  // of x that are turned at once
constexpr int64_t kMostGradients = int64_t(1) << 20;  // bytes of dz that a thread holds

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

// Whether a B of a sparse product of m rows is best read where it is, if its rows begin with whole vectors.
template <class T>
bool reads_in_place(int64_t m, int64_t ldb) {
  return m <= kMostRowsInPlace && ldb % lanes<T>() == 0 && ldb * int64_t(sizeof(T)) % kFewSetsStride != 0;
}

// C[m, n] = epilogue(A * B), whose B has rows of `width`. A sum of -0.0 may lack a term that makes it 0.0: who finds
// one multiplies densely.
template <class T>
void multiply(bool sparse, T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t width,
              GemmEpilogue<T> epilogue, int64_t m, int64_t n, int64_t k) {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  if (sparse) {
    uint64_t* live = arena::scratch<uint64_t>(arena::Slot::live, m);
    kernel.live_bits(live, a, lda, m, k);
    kernel.sparse_block(c, ldc, a, lda, live, b, width, nullptr, epilogue, m, n, k);
  } else {
    kernel.block(c, ldc, a, lda, false, {b, width, kernel.nr}, epilogue, m, n, k);
  }
}

// Panels [in, width] of the parts of weight^T[in, columns], one after the other; the columns that fill a part are 0.
template <class T>
void turn_weight(T* turned, std::atomic<bool>& finite, const T* weight, const Parts& parts, int64_t in) {
  const int64_t vectors = ceil_div(parts.columns, parts.lanes), tasks = std::min<int64_t>(num_threads(), vectors);
  parallel_for(tasks, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    const int64_t begin = vectors * task / tasks * parts.lanes;
    const int64_t end = std::min(parts.columns, vectors * (task + 1) / tasks * parts.lanes);
    for (int64_t part = 0; part < parts.count; ++part) {
      const int64_t j = std::max(begin, parts.begin(part)), n = std::min(end, parts.begin(part + 1)) - j;
      if (n <= 0) continue;
      const int64_t width = parts.width(part), at = j - parts.begin(part), filled = round_up(n, parts.lanes);
      T* panel = turned + in * parts.begin(part) + at;
      for (int64_t p = 0; p < in; p += kTileColumns) {
        table.layout.transpose(panel + p * width, width, weight + j * in + p, in, n, std::min(kTileColumns, in - p));
      }
      for (int64_t p = 0; p < in && n < filled; ++p) std::fill(panel + p * width + n, panel + p * width + filled, T(0));
      if (!table.gemm.is_finite(weight + j * in, n * in)) finite.store(false);
    }
  });
}

// The transpose of dweight[n, height] = turned[height, rows] * dz[rows, width], whose columns from n on are 0, added to
// what is there if accumulate.
template <class T>
void add_tile(T* dweight, int64_t in, const T* turned, const T* dz, int64_t height, int64_t n, int64_t width,
              int64_t rows, bool accumulate, bool finite) {
  const KernelTable<T>& table = kernels<T>();
  const int64_t depth = table.gemm.sparse_depth;
  T* tile = arena::scratch<T>(arena::Slot::tile, height * width);
  const auto multiply_all = [&](bool sparse) {
    if (accumulate) table.layout.transpose(tile, width, dweight, in, n, height);
    for (int64_t p = 0; p < rows; p += depth) {
      GemmEpilogue<T> epilogue;
      epilogue.accumulate = accumulate || p > 0;
      multiply(sparse, tile, width, turned + p, rows, dz + p * width, width, epilogue, height, n,
               std::min(depth, rows - p));
    }
  };
  multiply_all(finite);
  if (finite && table.gemm.has_negative_zero(tile, width, height, n)) multiply_all(false);
  table.layout.transpose(dweight, in, tile, width, height, n);
}

}  // namespace

template <class T>
bool zeros_pay(const T* x, int64_t rows, int64_t in, int64_t out) {
  const int64_t least = (rows < kManyRows ? kLeastVectorsOfFew : kLeastVectors) * lanes<T>();
  if (rows < kLeastInputRows || in < kLeastDepth || out < least || rows * in * out < kLeastWork) return false;
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
  const int64_t threads = num_threads();
  // Where x is larger than the weight, threads take rows of it, which they have in their caches, and turn the weight
  // together, each the rows that an optimiser has it write to. Else they take columns of y, and turn for themselves.
  const bool by_rows = threads > 1 && rows > out;
  const Parts columns = parts_of<T>(out, by_rows ? 1 : threads);
  const int64_t row_parts = by_rows ? threads : threads / std::gcd(threads, columns.count);
  const arena::Buffer<T> turned(by_rows ? in * columns.begin(columns.count) : 0);
  std::atomic<bool> finite{true};
  if (by_rows) turn_weight(turned.get(), finite, weight, columns, in);
  parallel_for(columns.count * row_parts, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    const int64_t part = task % columns.count, first = rows * (task / columns.count) / row_parts;
    const int64_t end = rows * (task / columns.count + 1) / row_parts;
    const int64_t j = columns.begin(part), width = columns.width(part), n = columns.size(part);
    const int64_t depth = table.gemm.sparse_depth;
    T* own = nullptr;
    if (!by_rows) {
      own = arena::scratch<T>(arena::Slot::pack_b, depth * width);
      for (int64_t p = 0; p < depth && n < width; ++p) std::fill(own + p * width + n, own + (p + 1) * width, T(0));
    }
    const auto multiply_all = [&](bool sparse) {
      for (int64_t p = 0; p < in; p += depth) {
        const int64_t size = std::min(depth, in - p);
        const T* b = by_rows ? turned.get() + in * j + p * width : own;
        if (!by_rows) table.layout.transpose(own, width, weight + j * in + p, in, n, size);
        GemmEpilogue<T> epilogue;
        epilogue.bias = bias != nullptr ? bias + j : nullptr;
        epilogue.accumulate = p > 0;
        epilogue.relu = activation == Activation::relu && p + size == in;
        const bool left_out = sparse && (by_rows ? finite.load() : table.gemm.is_finite(own, size * width));
        multiply(left_out, y + first * out + j, out, x + first * in + p, in, b, width, epilogue, end - first, n, size);
      }
    };
    multiply_all(true);
    if (table.gemm.has_negative_zero(y + first * out + j, out, end - first, n)) multiply_all(false);
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
  // own would be waited for, and its lines would come from the other core. It does so for a group of panels and the
  // rows of a pass, as the dense product sums dbias.
  const Parts panels = parts_of<T>(out, 1);
  const int64_t pass = pass_depth(rows);
  const int64_t groups =
      std::min(panels.count, ceil_div(pass * panels.begin(panels.count) * int64_t(sizeof(T)), kMostGradients));
  const int64_t vectors = ceil_div(in, lanes<T>()), tasks = std::min<int64_t>(num_threads(), vectors);
  parallel_for(tasks, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    const int64_t begin = vectors * task / tasks * lanes<T>();
    const int64_t end = std::min(in, vectors * (task + 1) / tasks * lanes<T>());
    for (int64_t step = 0; step < ceil_div(rows, pass) * groups; ++step) {
      const int64_t row = step / groups * pass, count = std::min(pass, rows - row);
      const int64_t first = panels.count * (step % groups) / groups, last = panels.count * (step % groups + 1) / groups;
      const int64_t left = panels.begin(first), size = count * (panels.begin(last) - left);
      T* dz = arena::scratch<T>(arena::Slot::pack_b, size);
      for (int64_t part = first; part < last; ++part) {
        const int64_t j = panels.begin(part), width = panels.width(part), n = panels.size(part);
        T* panel = dz + count * (j - left);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = (row + i) * out + j;
          activation_backward(activation, panel + i * width, dy + at, y + at, n);
          std::fill(panel + i * width + n, panel + (i + 1) * width, T(0));
        }
        if (task > 0 || dbias == nullptr) continue;
        T* sums = row > 0 ? arena::scratch<T>(arena::Slot::columns, n) : dbias + j;
        table.gemm.column_sums(sums, panel, width, count, n);
        if (row > 0) table.layout.accumulate(dbias + j, sums, n);
      }
      const bool finite = table.gemm.is_finite(dz, size);
      for (int64_t column = begin; column < end; column += kTileColumns) {
        const int64_t height = std::min(kTileColumns, end - column);
        T* turned = arena::scratch<T>(arena::Slot::pack_a, height * count);
        table.layout.transpose(turned, count, x + row * in + column, in, count, height);
        for (int64_t part = first; part < last; ++part) {
          const int64_t j = panels.begin(part);
          add_tile(dweight + j * in + column, in, turned, dz + count * (j - left), height, panels.size(part),
                   panels.width(part), count, row > 0, finite);
        }
      }
    }
  });
}

template <class T>
bool gradient_zeros_pay(Activation activation, const T* dy, const T* y, int64_t rows, int64_t in, int64_t out,
                        int64_t most_live) {
  if (activation != Activation::relu && activation != Activation::none) return false;
  const int64_t least_side = kLeastGradientVectors * lanes<T>();
  if (rows < kLeastRows || in < least_side || out < kLeastRows || rows * in * out < kLeastWork) return false;
  const bool relu = activation == Activation::relu;
  const int64_t beside_tiles = reads_in_place<T>(out, in) ? kMostLiveInPlace : kMostLiveBesideTiles;
  const int64_t percent = split_pays<T>(out, in, rows, false) ? beside_tiles
                          : out < kFewOutputs                 ? kMostLiveOfFew
                                                              : kMostLive;
  const int64_t most = kSampledRows * out * std::min(percent, most_live) / 100;
  int64_t live = 0;
  for (int64_t sample = 0; sample < kSampledRows; ++sample) {
    const int64_t at = rows * sample / kSampledRows * out;
    const T *gradients = dy + at, *outputs = relu ? y + at : gradients;
    int32_t here = 0;
    for (int64_t j = 0; j < out; ++j) here += (gradients[j] != T(0)) & (!relu | (outputs[j] > T(0)));
    live += here;
    if (live > most) return false;
  }
  return true;
}

template <class T>
bool dweight_zeros_pay(const T* x, Activation activation, const T* dy, const T* y, int64_t rows, int64_t in,
                       int64_t out) {
  if (rows < kLeastDweightRows || out < kLeastDweightVectors * lanes<T>() || !zeros_pay(x, rows, in, out)) return false;
  return rows != pass_depth(rows) || !gradient_zeros_pay(activation, dy, y, rows, in, out, kMostLiveBesideInput);
}

template <class T>
void sparse_multiply(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t m, int64_t n,
                     int64_t k) {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  const Parts panels = parts_of<T>(n, 1);
  const bool in_place =
      reads_in_place<T>(m, ldb) && reinterpret_cast<uintptr_t>(b) % (sizeof(T) * static_cast<size_t>(lanes<T>())) == 0;
  const int64_t widest = ceil_div(ceil_div(n, lanes<T>()), panels.count) * lanes<T>();
  const int64_t most = std::min(kMostDepth, kernel.sparse_columns * kernel.sparse_depth / widest);
  const int64_t blocks = ceil_div(k, most);
  uint64_t* live = arena::scratch<uint64_t>(arena::Slot::live, blocks * m);  // of all panels
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t p = k * block / blocks;
    kernel.live_bits(live + block * m, a + p, lda, m, k * (block + 1) / blocks - p);
  }
  T* packed = in_place ? nullptr : arena::scratch<T>(arena::Slot::pack_b, ceil_div(k, blocks) * widest);
  for (int64_t part = 0; part < panels.count; ++part) {
    const int64_t j = panels.begin(part), width = panels.width(part), columns = panels.size(part);
    bool may_differ = false;
    const auto multiply_all = [&](bool sparse) {
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t p = k * block / blocks, size = k * (block + 1) / blocks - p;
        const T* rows = b + p * ldb + j;
        int64_t stride = ldb;
        if (!in_place) {
          kernel.pack_columns(packed, width, rows, ldb, size, columns);
          rows = packed;
          stride = width;
        }
        GemmEpilogue<T> epilogue;
        epilogue.accumulate = p > 0;
        if (!sparse) {
          kernel.block(c + j, ldc, a + p, lda, false, {rows, stride, kernel.nr}, epilogue, m, columns, size);
          continue;
        }
        uint64_t met = 0;
        may_differ |= kernel.sparse_block(c + j, ldc, a + p, lda, live + block * m, rows, stride, &met, epilogue, m,
                                          columns, size);
        for (int64_t i = 0; i < size; ++i) {
          if ((met >> i & 1) == 0) may_differ |= !kernel.is_finite(rows + i * stride, columns);
        }
      }
    };
    multiply_all(true);
    if (may_differ) multiply_all(false);
  }
}

#define PYNN_INSTANTIATE(T)                                                                                    \
  template bool gradient_zeros_pay(Activation, const T*, const T*, int64_t, int64_t, int64_t, int64_t);        \
  template void sparse_multiply(T*, int64_t, const T*, int64_t, const T*, int64_t, int64_t, int64_t, int64_t); \
  template bool dweight_zeros_pay(const T*, Activation, const T*, const T*, int64_t, int64_t, int64_t);        \
  template bool zeros_pay(const T*, int64_t, int64_t, int64_t);                                                \
  template void sparse_linear(T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t);        \
  template void sparse_dweight(T*, T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
