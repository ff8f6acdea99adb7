#include "ops/linear_update.h"

#include <algorithm>

#include "ops/ceil_div.h"
#include "ops/gemm_product.h"
#include "ops/sparse_linear.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kTileColumns = 4096;           // at most
constexpr int64_t kTileElements = 24000;         // of dweight that are made before they are used
constexpr int64_t kSparseElements = 65536;       // the same without zeros
constexpr int64_t kSparseHeight = 64;            // of their rows, which share a part of x in the L1 cache
constexpr int64_t kChunk = 16384;                // elements of a task that uses a gradient which is there
constexpr int64_t kLongTask = int64_t(1) << 22;  // multiply-adds of a task that is better cut in two

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

Range part_of(int64_t size, int64_t part, int64_t parts) { return {size * part / parts, size * (part + 1) / parts}; }

// Rows of dz, stored transposed: element (i, p) at data[p * stride + i].
template <class T>
struct Rows {
  const T* data;
  int64_t stride;
};

template <class T>
Rows<T> rows_of_dz(const LinearGradient<T>& g, Range rows) {
  if (g.activation == Activation::none && !bad_row_stride(g.out)) return {g.dy + rows.begin, g.out};
  const int64_t size = rows.size(), stride = good_row_stride(size);
  T* dz = arena::scratch<T>(arena::Slot::pack_a, g.rows * stride);
  for (int64_t p = 0; p < g.rows; ++p) {
    const int64_t at = p * g.out + rows.begin;
    activation_backward(g.activation, dz + p * stride, g.dy + at, g.y + at, size);
  }
  return {dz, stride};
}

// The rows and columns of dweight in tiles: a tile is made, then used.
template <class T>
void for_tiles(const LinearGradient<T>& g, const UseGradient<T>& use, Range rows, Range panels, bool pack) {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  const Rows<T> dz = rows_of_dz(g, rows);
  if (g.dbias != nullptr && panels.begin == 0) {
    kernel.column_sums(g.dbias + rows.begin, dz.data, dz.stride, g.rows, rows.size());
  }
  const int64_t nr = kernel.nr, groups = ceil_div(panels.size() * nr, kTileColumns);
  for (int64_t group = 0; group < groups; ++group) {
    Range here = part_of(panels.size(), group, groups);
    here = {panels.begin + here.begin, panels.begin + here.end};
    const int64_t first = here.begin * nr, columns = std::min(g.in, here.end * nr) - first;
    GemmPanels<T> x{g.x + first, g.in, nr};
    if (pack) {
      T* packed = arena::scratch<T>(arena::Slot::pack_b, here.size() * nr * g.rows);
      for (int64_t j = 0; j < columns; j += nr) {
        kernel.pack_panel(packed + j * g.rows, x.data + j, g.in, false, g.rows, std::min(nr, columns - j));
      }
      x = {packed, nr, nr * g.rows};
    }
    const int64_t height =
        std::max<int64_t>(1, std::min<int64_t>(2, kTileElements / (columns * kernel.mr))) * kernel.mr;
    const int64_t tiles = ceil_div(rows.size(), height);
    T* scratch = g.dweight != nullptr ? nullptr : arena::scratch<T>(arena::Slot::tile, height * columns);
    for (int64_t t = 0; t < tiles; ++t) {
      const Range tile = part_of(rows.size(), t, tiles);
      const int64_t at = (rows.begin + tile.begin) * g.in + first;
      T* c = scratch != nullptr ? scratch : g.dweight + at;
      const int64_t ldc = scratch != nullptr ? columns : g.in;
      kernel.block(c, ldc, dz.data + tile.begin, dz.stride, true, x, {}, tile.size(), columns, g.rows);
      if (columns == g.in) {
        use(at, c, tile.size() * columns);
        continue;
      }
      for (int64_t i = 0; i < tile.size(); ++i) use(at + i * g.in, c + i * ldc, columns);
    }
  }
}

// The same in tiles as high as the rows, without the zeros of dz.
template <class T>
void for_sparse_tiles(const LinearGradient<T>& g, const UseGradient<T>& use, Range rows, Range columns) {
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  const Rows<T> dz = rows_of_dz(g, rows);
  if (g.dbias != nullptr && columns.begin == 0) {
    kernel.column_sums(g.dbias + rows.begin, dz.data, dz.stride, g.rows, rows.size());
  }
  T* turned = arena::scratch<T>(arena::Slot::partial, rows.size() * g.rows);
  kernels<T>().layout.transpose(turned, g.rows, dz.data, dz.stride, g.rows, rows.size());
  const int64_t heights = ceil_div(rows.size(), kSparseHeight);
  const int64_t width = round_up(ceil_div(kSparseElements, ceil_div(rows.size(), heights)), kernel.nr);
  const int64_t widths = ceil_div(columns.size(), width);
  for (int64_t t = 0; t < heights * widths; ++t) {
    const Range height = part_of(rows.size(), t % heights, heights);
    Range here = part_of(ceil_div(columns.size(), kernel.nr), t / heights, widths);
    here = {columns.begin + here.begin * kernel.nr, std::min(columns.end, columns.begin + here.end * kernel.nr)};
    const int64_t at = (rows.begin + height.begin) * g.in + here.begin;
    T* c = g.dweight != nullptr
               ? g.dweight + at
               : arena::scratch<T>(arena::Slot::tile, height.size() * round_up(here.size(), kernel.nr));
    const int64_t ldc = g.dweight != nullptr ? g.in : here.size();
    sparse_multiply(c, ldc, turned + height.begin * g.rows, g.rows, g.x + here.begin, g.in, height.size(), here.size(),
                    g.rows);
    if (ldc == here.size() && here.size() == g.in) {
      use(at, c, height.size() * g.in);
      continue;
    }
    for (int64_t i = 0; i < height.size(); ++i) use(at + i * g.in, c + i * ldc, here.size());
  }
}

}  // namespace

template <class T>
void for_gradient(const LinearGradient<T>& g, const UseGradient<T>& use) {
  const auto zeros_of_dz_pay = [&] { return gradient_zeros_pay(g.activation, g.dy, g.y, g.rows, g.in, g.out); };
  // Products by bfloat16 parts are left whole: each tile of dweight would split both operands anew.
  if (g.rows == 0 || g.rows != pass_depth(g.rows) || g.in == 0 ||
      dweight_zeros_pay(g.x, g.activation, g.dy, g.y, g.rows, g.in, g.out) ||
      (split_pays<T>(g.out, g.in, g.rows, false) && !zeros_of_dz_pay())) {
    const arena::Buffer<T> buffer(g.dweight != nullptr ? 0 : g.in * g.out);
    T* dweight = g.dweight != nullptr ? g.dweight : buffer.get();
    linear_backward<T>(nullptr, dweight, g.dbias, g.dy, g.y, g.x, nullptr, g.activation, g.rows, g.in, g.out);
    parallel_ranges(g.in * g.out, kChunk,
                    [&](int64_t begin, int64_t end) { use(begin, dweight + begin, end - begin); });
    return;
  }
  static Counter taken("gemm.update");
  taken.add();
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  const bool zeros = zeros_of_dz_pay();
  const bool pack = g.out > kernel.mr && bad_to_read<T>(g.in, g.rows * g.in);
  // Threads that cut the rows of dweight each pack all of x; those of narrow layers cut its columns.
  const bool by_columns = pack && g.in > 2 * g.out;
  const int64_t threads = num_threads(), panels = ceil_div(g.in, kernel.nr);
  const int64_t turns = g.rows * g.in * g.out > threads * kLongTask ? 2 : 1;
  const int64_t parts = std::min(turns * threads, by_columns ? panels : g.out);
  parallel_for(parts, [&](int64_t part) {
    const Range rows = by_columns ? Range{0, g.out} : part_of(g.out, part, parts);
    const Range columns = by_columns ? part_of(panels, part, parts) : Range{0, panels};
    if (zeros) {
      for_sparse_tiles(g, use, rows, {columns.begin * kernel.nr, std::min(g.in, columns.end * kernel.nr)});
    } else {
      for_tiles(g, use, rows, columns, pack);
    }
  });
}

template void for_gradient(const LinearGradient<float>&, const UseGradient<float>&);
template void for_gradient(const LinearGradient<double>&, const UseGradient<double>&);

}  // namespace pynn::ops
