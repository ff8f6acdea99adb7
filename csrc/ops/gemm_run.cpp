// How the tasks of a product run, but those in tiles (gemm_split.cpp).

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "ops/ceil_div.h"
#include "ops/gemm_product.h"
#include "ops/sparse_linear.h"
#include "runtime/arena.h"
#include "runtime/cpu.h"
#include "runtime/dispatch.h"

namespace pynn::ops {
namespace {

constexpr int64_t kGroupSize = int64_t(1) << 17;        // elements of A that stay in the L2 cache beside a panel of B
constexpr int64_t kSlabGroupSize = int64_t(1) << 16;    // the same beside a slab of a packed B
constexpr int64_t kSparseGroupSize = int64_t(1) << 18;  // the same of an A without its zeros
constexpr int64_t kCachedSize = int64_t(1) << 18;       // elements of C that are still in the L2 caches when it is read
constexpr int64_t kShallow = 64;                        // k of blocks that write C often
constexpr int64_t kDotColumns = 12;                     // columns of C: whole blocks of the dot kernel
constexpr int64_t kDotTurnBytes = int64_t(1) << 20;  // of a B that one thread reads and that may not stay in its cache

// Fewer or shorter rows out of another core's cache are not worth asking for ahead of the blocks.
constexpr int64_t kLeastFarRows = 64, kLeastFarDepth = 256;

// Elements of a packed B that stay in the L2 cache beside rows of A and C: half of it.
template <class T>
int64_t slab_size() {
  return l2_cache_bytes() / 2 / static_cast<int64_t>(sizeof(T));
}

// Whether this thread goes through b from its end: in every second call. What it read last is still in its L2
// cache then, where always the same order finds nothing of a b that is a little larger.
bool from_the_end(const void* b) {
  constexpr int kBits = 6;
  static thread_local std::array<bool, size_t(1) << kBits> turned{};
  bool& turn = turned[(reinterpret_cast<uintptr_t>(b) >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - kBits)];
  return std::exchange(turn, !turn);
}

}  // namespace

template <class T>
void activate(Activation activation, T* y, int64_t n) {
  const ElementwiseKernels<T>& elementwise = kernels<T>().elementwise;
  switch (activation) {
    case Activation::none:
    case Activation::relu: break;
    case Activation::leaky_relu: elementwise.leaky_relu(y, y, T(kLeakySlope), n); break;
    case Activation::sigmoid: elementwise.sigmoid(y, y, n); break;
    case Activation::tanh: elementwise.tanh(y, y, n); break;
  }
}

template <class T>
void activation_backward(Activation activation, T* dz, const T* dy, const T* y, int64_t n) {
  const ElementwiseKernels<T>& elementwise = kernels<T>().elementwise;
  switch (activation) {
    case Activation::none:
      if (dz != dy) std::memcpy(dz, dy, static_cast<size_t>(n) * sizeof(T));
      break;
    case Activation::relu: elementwise.relu_backward(dz, dy, y, n); break;
    case Activation::leaky_relu:
      elementwise.leaky_relu_backward(dz, dy, y, T(kLeakySlope), n);
      break;  // sign(y) = sign(x)
    case Activation::sigmoid: elementwise.sigmoid_backward(dz, dy, y, n); break;
    case Activation::tanh: elementwise.tanh_backward(dz, dy, y, n); break;
  }
}

template <class T>
void Product<T>::run(int64_t task) const {
  // Row by row of parts: the tasks that a thread begins with share rows of C.
  const int64_t row_part = task / column_parts_, column_part = task % column_parts_;
  const int64_t unit = column_unit();
  const int64_t units = ceil_div(g_.n, unit);
  const int64_t row_unit = split_ ? kSplitBlock : 1, row_units = ceil_div(g_.m, row_unit);
  const int64_t i = row_units * row_part / row_parts_ * row_unit, j = units * column_part / column_parts_ * unit;
  const Range rows{i, std::min(g_.m, row_units * (row_part + 1) / row_parts_ * row_unit) - i};
  const Range columns{j, std::min(g_.n, units * (column_part + 1) / column_parts_ * unit) - j};
  if (dot_) {
    run_dot(rows, columns);
  } else if (sparse_) {
    run_sparse(rows, columns);
  } else if (split_) {
    run_split(rows, columns);
  } else {
    // What follows the first task of a thread reads the same rows until it comes to another part of them.
    const bool is_first = task == 0 || task * threads_ / tasks() > (task - 1) * threads_ / tasks();
    run_blocks(rows, columns, tasks() > 1 && !turned_ && (is_first || column_part == 0));
  }
  finish(rows, columns);
}

template <class T>
void Product<T>::run_dot(Range rows, Range columns) const {
  GemmEpilogue<T> epilogue;
  epilogue.bias = g_.bias != nullptr ? g_.bias + columns.begin : nullptr;
  epilogue.accumulate = g_.accumulate;
  epilogue.relu = g_.activation == Activation::relu;
  const T *a = g_.a + rows.begin * g_.lda, *b = g_.b + columns.begin * g_.ldb;
  T* c = g_.c + rows.begin * g_.ldc + columns.begin;
  const bool large = columns.size * g_.k * int64_t(sizeof(T)) >= kDotTurnBytes, backward = large && from_the_end(b);
  const int64_t step = large ? kDotColumns : columns.size, pieces = ceil_div(columns.size, step);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t j = (backward ? pieces - 1 - piece : piece) * step;
    GemmEpilogue<T> here = epilogue;
    if (here.bias != nullptr) here.bias += j;
    kernels<T>().gemm.dot(c + j, g_.ldc, a, g_.lda, b + j * g_.ldb, g_.ldb, here, rows.size,
                          std::min(step, columns.size - j), g_.k);
  }
}

template <class T>
void Product<T>::run_blocks(Range rows, Range columns, bool are_far) const {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  const int64_t nr = kernel.nr, panels = ceil_div(columns.size, nr);
  // Few rows stay in the L2 cache with C, and meet each panel of B just after it is packed. Otherwise a slab of B
  // stays there, and all rows meet it before the next is packed.
  const bool few_rows = !in_tiles_ && rows.size * depth_ <= kGroupSize && g_.m * g_.n <= kCachedSize;
  const int64_t slab_panels = few_rows ? 1 : std::max<int64_t>(1, slab_size<T>() / std::max<int64_t>(1, nr * depth_));
  const int64_t slabs = pack_b_ ? ceil_div(panels, slab_panels) : 1;
  const int64_t group_elements = pack_b_ && !few_rows ? kSlabGroupSize : kGroupSize;
  const int64_t groups = std::max<int64_t>(1, ceil_div(rows.size * depth_, group_elements));
  const int64_t group_size = prepared_size(ceil_div(rows.size, groups), depth_);
  T *packed_a = nullptr, *packed_b = nullptr;
  if (prepares_rows()) packed_a = arena::scratch<T>(arena::Slot::pack_a, (slabs == 1 ? 1 : groups) * group_size);
  if (pack_b_) packed_b = arena::scratch<T>(arena::Slot::pack_b, ceil_div(panels, slabs) * nr * depth_);
  T* c = g_.c + rows.begin * g_.ldc + columns.begin;
  int64_t ldc = g_.ldc;
  if (turned_) {
    ldc = columns.size;
    c = arena::scratch<T>(arena::Slot::tile, rows.size * ldc);
  }

  int64_t p = 0;
  do {  // once for k = 0 as well, where C becomes its start
    const Range depth{p, std::min(depth_, g_.k - p)};
    GemmEpilogue<T> epilogue;
    epilogue.accumulate = g_.accumulate || p > 0;
    epilogue.relu = g_.activation == Activation::relu && p + depth.size == g_.k;
    // Blocks that run down the columns have the processor fetch ahead beyond the last row, and take lines from the
    // thread that writes there; where C is written often, they run along the rows. So they do where operands are
    // packed, for far caches deliver the lines of C at twice the rate if they lie side by side.
    const bool along_rows = (pack_b_ && !few_rows) || in_tiles_ ||
                            (row_parts_ > 1 && !pack_b_ && depth.size <= kShallow && g_.m * g_.n <= kCachedSize);
    for (int64_t slab = 0; slab < slabs; ++slab) {
      const bool fetches =
          are_far && slab == 0 && !prepares_rows() && rows.size >= kLeastFarRows && depth.size >= kLeastFarDepth;
      const int64_t first_panel = panels * slab / slabs, j = first_panel * nr;
      const int64_t n = std::min(columns.size, panels * (slab + 1) / slabs * nr) - j;
      const T* b = g_.b + (g_.b_transposed ? (columns.begin + j) * g_.ldb + p : p * g_.ldb + columns.begin + j);
      if (pack_b_) kernel.pack_panel(packed_b, b, g_.ldb, g_.b_transposed, depth.size, n);
      const GemmPanels<T> b_panels =
          pack_b_ ? GemmPanels<T>{packed_b, nr, nr * depth.size} : GemmPanels<T>{b, g_.ldb, nr};
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t i = rows.size * group / groups;
        const Range part{rows.begin + i, rows.size * (group + 1) / groups - i};
        T* packed = slabs == 1 || packed_a == nullptr ? packed_a : packed_a + group * group_size;
        const Rows a = prepare_rows(part, depth, packed, slab > 0);
        if (source_.row_sums != nullptr && columns.begin + j == 0) add_row_sums(a, part, depth);
        const int64_t tiles = along_rows ? ceil_div(part.size, kernel.mr) : 1;
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const int64_t first = part.size * tile / tiles, m = part.size * (tile + 1) / tiles - first;
          if (g_.bias != nullptr && p == 0 && !g_.accumulate) {
            (turned_ ? epilogue.row_bias : epilogue.bias) =
                g_.bias + (turned_ ? part.begin + first : columns.begin + j);
          }
          epilogue.far_rows = fetches ? rows.size - i - first : 0;
          const Rows a_tile = tile_of(a, first, m, depth.size);
          kernel.block(c + (i + first) * ldc + j, ldc, a_tile.data, a_tile.stride, a_tile.transposed, b_panels,
                       epilogue, m, n, depth.size);
        }
      }
    }
    p += depth_;
  } while (p < g_.k);
  if (turned_) {
    kernels<T>().layout.transpose(g_.c + columns.begin * g_.ldc + rows.begin, g_.ldc, c, ldc, rows.size, columns.size);
  }
}

template <class T>
void Product<T>::run_sparse(Range rows, Range columns) const {
  const int64_t groups = std::max<int64_t>(1, ceil_div(rows.size * g_.k, kSparseGroupSize));
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t i = rows.begin + rows.size * group / groups;
    const Range part{i, rows.begin + rows.size * (group + 1) / groups - i};
    T* packed = nullptr;
    if (prepares_rows()) packed = arena::scratch<T>(arena::Slot::pack_a, prepared_size(part.size, g_.k));
    Rows a = prepare_rows(part, {0, g_.k}, packed, false);
    if (source_.row_sums != nullptr && columns.begin == 0) add_row_sums(a, part, {0, g_.k});
    if (a.transposed) {
      T* turned = arena::scratch<T>(arena::Slot::tile, part.size * g_.k);
      kernels<T>().layout.transpose(turned, g_.k, a.data, a.stride, g_.k, part.size);
      a = {turned, g_.k, false};
    }
    sparse_multiply(g_.c + i * g_.ldc + columns.begin, g_.ldc, a.data, a.stride, g_.b + columns.begin, g_.ldb,
                    part.size, columns.size, g_.k);
  }
}

template <class T>
bool Product<T>::prepares_rows() const {
  return source_.activation != Activation::none || (pack_a_ && !sparse_);
}

template <class T>
int64_t Product<T>::prepared_size(int64_t rows, int64_t depth) const {
  return g_.a_transposed ? depth * good_row_stride(rows) : rows * good_row_stride(depth);
}

template <class T>
typename Product<T>::Rows Product<T>::prepare_rows(Range rows, Range depth, T* packed, bool prepared) const {
  const int64_t first = g_.a_transposed ? depth.begin * g_.lda + rows.begin : rows.begin * g_.lda + depth.begin;
  if (!prepares_rows()) return {g_.a + first, g_.lda, g_.a_transposed};
  if (in_tiles_) {
    const int64_t tiles = ceil_div(rows.size, kernels<T>().gemm.mr);
    for (int64_t tile = 0; tile < tiles && !prepared; ++tile) {
      const int64_t i = rows.size * tile / tiles, m = rows.size * (tile + 1) / tiles - i;
      kernels<T>().gemm.pack_rows(packed + i * depth.size, g_.a + first + i * g_.lda, g_.lda, m, depth.size);
    }
    return {packed, 0, true};
  }
  const int64_t count = g_.a_transposed ? depth.size : rows.size, size = g_.a_transposed ? rows.size : depth.size;
  const int64_t stride = good_row_stride(size);
  if (prepared) return {packed, stride, g_.a_transposed};
  const T *a = g_.a + first, *y = source_.y != nullptr ? source_.y + first : a;
  if (size == g_.lda && size == stride) {
    activation_backward(source_.activation, packed, a, y, count * size);
    return {packed, stride, g_.a_transposed};
  }
  for (int64_t r = 0; r < count; ++r) {
    activation_backward(source_.activation, packed + r * stride, a + r * g_.lda, y + r * g_.lda, size);
  }
  return {packed, stride, g_.a_transposed};
}

template <class T>
typename Product<T>::Rows Product<T>::tile_of(Rows a, int64_t first, int64_t rows, int64_t depth) const {
  if (in_tiles_) return {a.data + first * depth, rows, true};
  return {a.data + first * (a.transposed ? 1 : a.stride), a.stride, a.transposed};
}

template <class T>
void Product<T>::add_row_sums(Rows a, Range rows, Range depth) const {
  const KernelTable<T>& table = kernels<T>();
  T* sums = source_.row_sums + rows.begin;
  if (depth.begin == 0 && !g_.accumulate) {
    table.gemm.column_sums(sums, a.data, a.stride, depth.size, rows.size);
    return;
  }
  T* more = arena::scratch<T>(arena::Slot::columns, rows.size);
  table.gemm.column_sums(more, a.data, a.stride, depth.size, rows.size);
  table.layout.accumulate(sums, more, rows.size);
}

// What the blocks' epilogue does not do.
template <class T>
void Product<T>::finish(Range rows, Range columns) const {
  if (g_.activation == Activation::none || g_.activation == Activation::relu) return;
  const Range outer = turned_ ? columns : rows, inner = turned_ ? rows : columns;
  if (inner.size == g_.ldc) {  // whole rows: vectors across their ends are quicker than a tail for each
    activate(g_.activation, g_.c + outer.begin * g_.ldc, outer.size * inner.size);
    return;
  }
  for (int64_t i = outer.begin; i < outer.begin + outer.size; ++i) {
    activate(g_.activation, g_.c + i * g_.ldc + inner.begin, inner.size);
  }
}

template void Product<float>::run(int64_t) const;
template void Product<double>::run(int64_t) const;
template bool Product<float>::prepares_rows() const;
template bool Product<double>::prepares_rows() const;
template int64_t Product<float>::prepared_size(int64_t, int64_t) const;
template int64_t Product<double>::prepared_size(int64_t, int64_t) const;
template Product<float>::Rows Product<float>::prepare_rows(Range, Range, float*, bool) const;
template Product<double>::Rows Product<double>::prepare_rows(Range, Range, double*, bool) const;
template void Product<float>::add_row_sums(Rows, Range, Range) const;
template void Product<double>::add_row_sums(Rows, Range, Range) const;
template void activate(Activation, float*, int64_t);
template void activate(Activation, double*, int64_t);
template void activation_backward(Activation, float*, const float*, const float*, int64_t);
template void activation_backward(Activation, double*, const double*, const double*, int64_t);

}  // namespace pynn::ops
