// What the forward and the backward of attention share: a tile of queries by keys, its mask and its dropout.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/attention.h"
#include "ops/ceil_div.h"
#include "ops/dropout.h"
#include "ops/work.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

// Queries `row`.. by keys `column`.. of one head.
struct AttentionTile {
  int64_t batch, head, row, rows, column, columns;
};

// How many of the tile's keys its first query sees; each further query sees one more.
template <class T>
int64_t visible_keys(const AttentionArguments<T>& a, int64_t row, int64_t column) {
  return a.causal ? a.past + row + 1 - column : INT64_MAX;
}

// How the kernels make scores of the tile; a mask of bool is converted into bias[rows, ldbias].
template <class T>
AttentionScores<T> tile_scores(const AttentionArguments<T>& a, const AttentionTile& tile, T* bias, int64_t ldbias) {
  const AttentionMask<T>& mask = a.mask;
  const int64_t at =
      tile.batch * mask.batch_stride + tile.head * mask.head_stride + tile.row * mask.row_stride + tile.column;
  const T scale = static_cast<T>(a.scale);
  const int64_t visible = visible_keys(a, tile.row, tile.column);
  if (mask.add != nullptr) return {scale, mask.add + at, mask.row_stride, visible};
  if (mask.keep == nullptr) return {scale, nullptr, 0, visible};
  kernels<T>().attention.bias_of_bool(bias, ldbias, mask.keep + at, mask.row_stride, tile.rows, tile.columns);
  return {scale, bias, ldbias, visible};
}

// to[rows, columns] = dropout(from) by the counters of each query, which begin at multiples of four keys.
template <class T>
void tile_dropout(T* to, const T* from, int64_t ld, const AttentionArguments<T>& a, const AttentionTile& tile) {
  const uint64_t per_row = static_cast<uint64_t>(ceil_div(a.keys, 4));
  const auto first = static_cast<uint64_t>((tile.batch * a.heads + tile.head) * a.queries + tile.row);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const uint64_t counter =
        a.offset + (first + static_cast<uint64_t>(r)) * per_row + static_cast<uint64_t>(tile.column / 4);
    kernels<T>().dropout.dropout(to + r * ld, from + r * ld, dropout_threshold(a.dropout),
                                 static_cast<T>(dropout_scale(a.dropout)), a.seed, counter, tile.columns);
  }
}

// Packs rows [count, features] as the columns of a product's right side; see GemmPanels.
template <class T>
GemmPanels<T> pack_rows_as_columns(T* packed, const T* rows, int64_t ld, int64_t count, int64_t features) {
  const GemmKernels<T>& gemm = kernels<T>().gemm;
  for (int64_t j = 0; j < count; j += gemm.nr) {
    gemm.pack_panel(packed + j * features, rows + j * ld, ld, true, features, std::min(gemm.nr, count - j));
  }
  return {packed, gemm.nr, gemm.nr * features};
}

// Calls fn(task) for all tasks, on one thread if a second would cost more than it gives.
template <class T, class Function>
void run_attention_tasks(const AttentionArguments<T>& a, int64_t tasks, const Function& fn) {
  const double work =
      double(a.batch * a.heads) * double(a.queries) * double(a.keys) * double(a.features + a.value_features);
  parallel_for_if(threads_for(work) > 1, tasks, fn);
}

}  // namespace pynn::ops
