// Products in tiles: every float is three bfloat16 numbers, of whose nine products the six largest are added.

#include <algorithm>

#include "ops/ceil_div.h"
#include "ops/gemm_product.h"
#include "ops/tiles.h"
#include "runtime/arena.h"
#include "runtime/cpu.h"
#include "runtime/dispatch.h"

namespace pynn::ops {
namespace {

// Rows or columns, whole blocks, whose parts take so many bytes.
int64_t block_range(int64_t bytes, int64_t depth) {
  const int64_t row_bytes = depth * kSplitParts * static_cast<int64_t>(sizeof(uint16_t));
  return std::max(kSplitBlock, bytes / row_bytes / kSplitBlock * kSplitBlock);
}

}  // namespace

template <class T>
void Product<T>::run_split(Range rows, Range columns) const {
  const SplitGemmKernels<T>& split = kernels<T>().split_gemm;
  const GemmKernels<T>& gemm = kernels<T>().gemm;
  // What is gone through again and again has half of the L2 cache: all columns, or all rows, or a slab of columns.
  const int64_t half = block_range(l2_cache_bytes() / 2, depth_);
  const int64_t group_rows = block_range(l2_cache_bytes() / 8, depth_);
  const bool one_slab = columns.size <= half;
  const int64_t slab_columns = !one_slab && rows.size <= half ? group_rows : half;
  const int64_t group_parts = parts_size(std::min(group_rows, rows.size), depth_);
  uint16_t* const a_parts =
      arena::scratch<uint16_t>(arena::Slot::split_a, one_slab ? group_parts : parts_size(rows.size, depth_));
  uint16_t* const b_parts =
      arena::scratch<uint16_t>(arena::Slot::split_b, parts_size(std::min(slab_columns, columns.size), depth_));
  T* const prepared =
      prepares_rows() ? arena::scratch<T>(arena::Slot::pack_a, prepared_size(std::min(group_rows, rows.size), depth_))
                      : nullptr;
  const TileRegisters registers(true, rows.size);
  for (int64_t p = 0; p < g_.k; p += depth_) {
    const Range depth{p, std::min(depth_, g_.k - p)};
    const int64_t step_parts = round_up(depth.size, kSplitDepth) * kSplitParts;
    for (int64_t slab = 0; slab < columns.size; slab += slab_columns) {
      const Range part{columns.begin + slab, std::min(slab_columns, columns.size - slab)};
      const T* b = g_.b + (g_.b_transposed ? part.begin * g_.ldb + p : p * g_.ldb + part.begin);
      split.split_b(b_parts, b, g_.ldb, !g_.b_transposed, part.size, depth.size);
      for (int64_t group = 0; group < rows.size; group += group_rows) {
        const Range group_range{rows.begin + group, std::min(group_rows, rows.size - group)};
        uint16_t* const of_group = a_parts + (one_slab ? 0 : group * step_parts);
        if (slab == 0) {
          const Rows a = prepare_rows(group_range, depth, prepared, false);
          split.split_a(of_group, a.data, a.stride, a.transposed, group_range.size, depth.size);
          if (source_.row_sums != nullptr && part.begin == 0) add_row_sums(a, group_range, depth);
        }
        for (int64_t i = 0; i < group_range.size; i += kSplitBlock) {
          const int64_t m = std::min(kSplitBlock, group_range.size - i);
          for (int64_t j = 0; j < part.size; j += kSplitBlock) {
            const int64_t n = std::min(kSplitBlock, part.size - j);
            GemmEpilogue<T> epilogue;
            epilogue.accumulate = g_.accumulate || p > 0;
            epilogue.relu = g_.activation == Activation::relu && p + depth.size == g_.k;
            if (g_.bias != nullptr && !epilogue.accumulate) epilogue.bias = g_.bias + part.begin + j;
            T* c = g_.c + (group_range.begin + i) * g_.ldc + part.begin + j;
            const uint32_t left =
                split.block(c, g_.ldc, of_group + i * step_parts, b_parts + j * step_parts, epilogue, m, n, depth.size);
            if (left == 0) continue;
            T* panel = arena::scratch<T>(arena::Slot::pack_b, round_up(n, gemm.nr) * depth.size);
            gemm.pack_panel(panel, b + (g_.b_transposed ? j * g_.ldb : j), g_.ldb, g_.b_transposed, depth.size, n);
            for_each_run(left, [&](int64_t first, int64_t count) {
              const Rows a = prepare_rows({group_range.begin + i + first, count}, depth, prepared, false);
              gemm.block(c + first * g_.ldc, g_.ldc, a.data, a.stride, a.transposed,
                         {panel, gemm.nr, gemm.nr * depth.size}, epilogue, count, n, depth.size);
            });
          }
        }
      }
    }
  }
}

template void Product<float>::run_split(Range, Range) const;
template void Product<double>::run_split(Range, Range) const;

}  // namespace pynn::ops
