#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/attention_tile.h"
#include "ops/ceil_div.h"
#include "runtime/arena.h"

namespace pynn::ops {
namespace {

constexpr int64_t kKeys = 256;               // whose packed keys and values stay in the L2 cache
constexpr int64_t kTileStride = kKeys + 16;  // rows that do not all fall on few sets of the L1 cache
constexpr int64_t kGroups = 8;               // of queries that share packed keys
constexpr int64_t kUnpackedQueries = 8;      // so few do not pay for packing
constexpr int64_t kFewestTasks = 4;

// Queries whose scores stay in the L1 cache: at least a dozen, in whole blocks of registers.
template <class T>
int64_t group_rows() {
  const int64_t mr = kernels<T>().gemm.mr;
  return round_up(12, mr);
}

template <class T>
int64_t query_blocks(const AttentionArguments<T>& a) {
  const int64_t rows = group_rows<T>(), heads = std::max<int64_t>(1, a.batch * a.heads);
  const int64_t shared = ceil_div(kFewestTasks, heads);
  return std::max(ceil_div(a.queries, kGroups * rows), std::min(shared, ceil_div(a.queries, 2 * rows)));
}

// Queries tile.row.. of one head against all keys: Dao, "FlashAttention-2", 2023, algorithm 1.
template <class T>
void attend(Heads<T> y, T* lse, const AttentionArguments<T>& a, const AttentionTile& all) {
  const GemmKernels<T>& gemm = kernels<T>().gemm;
  const AttentionKernels<T>& kernel = kernels<T>().attention;
  const int64_t groups = ceil_div(all.rows, group_rows<T>());
  const bool pack = all.rows > kUnpackedQueries;
  T* packed = pack ? arena::scratch<T>(arena::Slot::pack_b, kKeys * a.features) : nullptr;
  T* scores = arena::scratch<T>(arena::Slot::tile, 2 * group_rows<T>() * kTileStride);
  T* dropped = scores + group_rows<T>() * kTileStride;
  T* bias = arena::scratch<T>(arena::Slot::partial, group_rows<T>() * kTileStride);
  T* max = arena::scratch<T>(arena::Slot::columns, 2 * all.rows);
  T* sum = max + all.rows;
  std::fill(max, sum, -std::numeric_limits<T>::infinity());
  std::fill(sum, sum + all.rows, T(0));

  const int64_t reached = a.causal ? std::min(a.keys, a.past + all.row + all.rows) : a.keys;
  for (int64_t j = 0; j < reached; j += kKeys) {
    const int64_t keys = std::min(kKeys, reached - j);
    const T* key = a.key.at(all.batch, all.head, j);
    const T* value = a.value.at(all.batch, all.head, j);
    GemmPanels<T> panels{};
    if (pack) panels = pack_rows_as_columns(packed, key, a.key.row_stride, keys, a.features);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t r = all.rows * g / groups, i = all.row + r, rows = all.rows * (g + 1) / groups - r;
      const int64_t seen = a.causal ? std::min(keys, a.past + i + rows - j) : keys;  // by the last query of the group
      if (seen <= 0) continue;
      const AttentionTile tile{all.batch, all.head, i, rows, j, seen};
      const T* query = a.query.at(all.batch, all.head, i);
      if (pack) {
        gemm.block(scores, kTileStride, query, a.query.row_stride, false, panels, {}, rows, seen, a.features);
      } else {
        gemm.dot(scores, kTileStride, query, a.query.row_stride, key, a.key.row_stride, {}, rows, seen, a.features);
      }
      T* to = y.at(all.batch, all.head, i);
      kernel.softmax_step(scores, kTileStride, max + r, sum + r, j == 0 ? nullptr : to, y.row_stride,
                          tile_scores(a, tile, bias, kTileStride), rows, seen, a.value_features);
      const T* weights = scores;
      if (a.dropout > 0) {
        tile_dropout(dropped, scores, kTileStride, a, tile);
        weights = dropped;
      }
      GemmEpilogue<T> epilogue;
      epilogue.accumulate = j > 0;
      gemm.block(to, y.row_stride, weights, kTileStride, false, {value, a.value.row_stride, gemm.nr}, epilogue, rows,
                 a.value_features, seen);
    }
  }
  T* to = y.at(all.batch, all.head, all.row);
  if (reached <= 0) {
    for (int64_t r = 0; r < all.rows; ++r) std::fill_n(to + r * y.row_stride, a.value_features, T(0));
  }
  kernel.softmax_finish(to, y.row_stride, lse + (all.batch * a.heads + all.head) * a.queries + all.row, max, sum,
                        all.rows, a.value_features);
}

}  // namespace

template <class T>
void attention(Heads<T> y, T* lse, const AttentionArguments<T>& a) {
  const int64_t blocks = query_blocks(a);
  run_attention_tasks(a, a.batch * a.heads * blocks, [&](int64_t task) {
    const int64_t head = task / blocks, block = task % blocks;
    const int64_t row = a.queries * block / blocks, end = a.queries * (block + 1) / blocks;
    attend(y, lse, a, {head / a.heads, head % a.heads, row, end - row, 0, a.keys});
  });
}

template <class T>
void rotate_pairs(T* y, const T* x, const T* cos, const T* sin, int64_t sequences, int64_t rows, int64_t pairs) {
  constexpr int64_t kGrain = 8192;  // pairs, so that a second thread pays
  if (rows * pairs == 0) return;
  parallel_ranges(sequences * rows, ceil_div(kGrain, pairs), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin % rows, count = std::min(rows - row, end - begin);
      kernels<T>().attention.rotate_pairs(y + 2 * begin * pairs, x + 2 * begin * pairs, cos + row * pairs,
                                          sin + row * pairs, count * pairs);
      begin += count;
    }
  });
}

template void rotate_pairs(float*, const float*, const float*, const float*, int64_t, int64_t, int64_t);
template void rotate_pairs(double*, const double*, const double*, const double*, int64_t, int64_t, int64_t);
template void attention(Heads<float>, float*, const AttentionArguments<float>&);
template void attention(Heads<double>, double*, const AttentionArguments<double>&);

}  // namespace pynn::ops
