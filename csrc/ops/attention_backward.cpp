#include "ops/attention_tile.h"
#include "ops/ceil_div.h"
#include "runtime/arena.h"

namespace pynn::ops {
namespace {

constexpr int64_t kSide = 128;               // queries and keys of a tile, which stays in the L2 cache
constexpr int64_t kTileStride = kSide + 16;  // rows that do not all fall on few sets of the L1 cache
constexpr int64_t kStrip = 16;               // in which a tile on the diagonal of a causal mask is cut
constexpr int64_t kFewestTasks = 8;

template <class T>
struct Gradients {
  Heads<T> query, key, value;
};

// One head's keys column.. against all queries: Dao, "FlashAttention-2", 2023, algorithm 2. The gradient of the queries
// is that of these keys alone.
template <class T>
class Part {
 public:
  Part(const Gradients<T>& d, Heads<const T> dy, const T* lse, const T* delta, const AttentionArguments<T>& a,
       int64_t batch, int64_t head)
      : d_(d), dy_(dy), lse_(lse), delta_(delta), a_(a), batch_(batch), head_(head) {
    packed_keys_ = arena::scratch<T>(arena::Slot::pack_a, kSide * a.features);
    packed_values_ = arena::scratch<T>(arena::Slot::pack_b, kSide * a.value_features);
    scores_ = arena::scratch<T>(arena::Slot::tile, 3 * kSide * kTileStride);
    dscores_ = scores_ + kSide * kTileStride;
    spare_ = dscores_ + kSide * kTileStride;
    bias_ = arena::scratch<T>(arena::Slot::partial, kSide * kTileStride);
  }

  void run(int64_t first, int64_t end) {
    const int64_t unseen = first_query(first);
    for (int64_t i = 0; i < (first < end ? unseen : a_.queries); ++i) {
      std::fill_n(d_.query.at(batch_, head_, i), a_.features, T(0));
    }
    for (int64_t j = first; j < end; j += kSide) {
      const int64_t keys = std::min(kSide, end - j), row = first_query(j);
      key_panels_ = pack_rows_as_columns(packed_keys_, key(j), a_.key.row_stride, keys, a_.features);
      value_panels_ = pack_rows_as_columns(packed_values_, value(j), a_.value.row_stride, keys, a_.value_features);
      for (int64_t r = 0; row == a_.queries && r < keys; ++r) {
        std::fill_n(d_.key.at(batch_, head_, j + r), a_.features, T(0));
        std::fill_n(d_.value.at(batch_, head_, j + r), a_.value_features, T(0));
      }
      for (int64_t i = row; i < a_.queries; i += kSide) {
        add({batch_, head_, i, std::min(kSide, a_.queries - i), j, keys}, i == row, j == first);
      }
    }
  }

 private:
  // The first query that sees key j or one behind it.
  int64_t first_query(int64_t j) const { return a_.causal ? std::clamp<int64_t>(j - a_.past, 0, a_.queries) : 0; }
  const T* key(int64_t j) const { return a_.key.at(batch_, head_, j); }
  const T* value(int64_t j) const { return a_.value.at(batch_, head_, j); }

  // Adds the gradients of one tile, or sets those of the keys or of the queries to them.
  void add(const AttentionTile& tile, bool sets_keys, bool sets_queries) {
    const GemmKernels<T>& gemm = kernels<T>().gemm;
    const int64_t i = tile.row, j = tile.column, visible = visible_keys(a_, i, j);
    const int64_t strip = visible < tile.columns ? kStrip : kSide;
    const T *query = a_.query.at(batch_, head_, i), *dy = dy_.at(batch_, head_, i);
    for (int64_t r = 0; r < tile.rows; r += strip) {
      const int64_t rows = std::min(strip, tile.rows - r), seen = seen_keys(tile, visible, r + rows - 1);
      gemm.block(scores_ + r * kTileStride, kTileStride, query + r * a_.query.row_stride, a_.query.row_stride, false,
                 key_panels_, {}, rows, seen, a_.features);
      gemm.block(dscores_ + r * kTileStride, kTileStride, dy + r * dy_.row_stride, dy_.row_stride, false, value_panels_,
                 {}, rows, seen, a_.value_features);
    }
    const T *weights = scores_, *dscores = dscores_;
    T* dweights = dscores_;
    if (a_.dropout > 0) {
      tile_dropout(spare_, dscores_, kTileStride, a_, tile);
      dscores = dweights = spare_;
    }
    const int64_t at = (batch_ * a_.heads + head_) * a_.queries + i;
    kernels<T>().attention.softmax_backward(scores_, dweights, kTileStride, lse_ + at, delta_ + at,
                                            tile_scores(a_, tile, bias_, kTileStride), static_cast<T>(a_.scale),
                                            tile.rows, tile.columns);
    if (a_.dropout > 0) {
      tile_dropout(dscores_, scores_, kTileStride, a_, tile);
      weights = dscores_;
    }
    GemmEpilogue<T> on_keys, on_queries;
    on_keys.accumulate = !sets_keys;
    on_queries.accumulate = !sets_queries;
    for (int64_t c = 0; c < tile.columns; c += strip) {  // dvalue += weights^T dy, dkey += dscores^T query
      const int64_t columns = std::min(strip, tile.columns - c);
      const int64_t r = visible < tile.columns ? std::clamp<int64_t>(c - visible + 1, 0, tile.rows) : 0;
      const int64_t at_rc = r * kTileStride + c, rows = tile.rows - r;
      gemm.block(d_.value.at(batch_, head_, j + c), d_.value.row_stride, weights + at_rc, kTileStride, true,
                 {dy + r * dy_.row_stride, dy_.row_stride, gemm.nr}, on_keys, columns, a_.value_features, rows);
      gemm.block(d_.key.at(batch_, head_, j + c), d_.key.row_stride, dscores + at_rc, kTileStride, true,
                 {query + r * a_.query.row_stride, a_.query.row_stride, gemm.nr}, on_keys, columns, a_.features, rows);
    }
    for (int64_t r = 0; r < tile.rows; r += strip) {  // dquery += dscores key
      const int64_t rows = std::min(strip, tile.rows - r), seen = seen_keys(tile, visible, r + rows - 1);
      gemm.block(d_.query.at(batch_, head_, i + r), d_.query.row_stride, dscores + r * kTileStride, kTileStride, false,
                 {key(j), a_.key.row_stride, gemm.nr}, on_queries, rows, a_.features, seen);
    }
  }

  static int64_t seen_keys(const AttentionTile& tile, int64_t visible, int64_t row) {
    return visible >= tile.columns ? tile.columns : std::clamp<int64_t>(visible + row, 0, tile.columns);
  }

  const Gradients<T>& d_;
  const Heads<const T> dy_;
  const T *lse_, *delta_;
  const AttentionArguments<T>& a_;
  const int64_t batch_, head_;
  T *packed_keys_, *packed_values_, *scores_, *dscores_, *spare_, *bias_;
  GemmPanels<T> key_panels_{}, value_panels_{};
};

}  // namespace

template <class T>
void attention_backward(Heads<T> dquery, Heads<T> dkey, Heads<T> dvalue, Heads<const T> dy, Heads<const T> y,
                        const T* lse, const AttentionArguments<T>& a) {
  const int64_t heads = a.batch * a.heads, rows = heads * a.queries;
  // Of heads without elements there can be more than can be counted through.
  if (heads == 0 || (rows * a.features == 0 && heads * a.keys * (a.features + a.value_features) == 0)) return;
  // delta = sum of dy y = sum of weights dweights, the share of each score in the sum of its softmax.
  const arena::Buffer<T> delta(rows);
  run_attention_tasks(a, heads, [&](int64_t head) {
    const int64_t n = head / a.heads, h = head % a.heads;
    kernels<T>().attention.row_dots(delta.get() + head * a.queries, dy.at(n, h, 0), dy.row_stride, y.at(n, h, 0),
                                    y.row_stride, a.queries, a.value_features);
  });
  // Few heads are cut into parts of their keys: each but the first has a gradient of the queries to itself, added at
  // the end in this order.
  const int64_t blocks = ceil_div(a.keys, kSide);
  const int64_t parts = std::max<int64_t>(1, std::min(blocks, ceil_div(kFewestTasks, heads)));
  const arena::Buffer<T> partial((parts - 1) * rows * a.features);
  const auto partial_query = [&](int64_t part) {
    return Heads<T>{partial.get() + (part - 1) * rows * a.features, a.heads * a.queries * a.features,
                    a.queries * a.features, a.features};
  };
  run_attention_tasks(a, heads * parts, [&](int64_t task) {
    const int64_t head = task / parts, part = task % parts;
    const Gradients<T> d{part == 0 ? dquery : partial_query(part), dkey, dvalue};
    Part<T>(d, dy, lse, delta.get(), a, head / a.heads, head % a.heads)
        .run(blocks * part / parts * kSide, std::min(a.keys, blocks * (part + 1) / parts * kSide));
  });
  for (int64_t part = 1; part < parts; ++part) {
    const Heads<T> more = partial_query(part);
    parallel_ranges(rows, ceil_div(16384, a.features + 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t head = row / a.queries, n = head / a.heads, h = head % a.heads, i = row % a.queries;
        kernels<T>().layout.accumulate(dquery.at(n, h, i), more.at(n, h, i), a.features);
      }
    });
  }
}

#define PYNN_INSTANTIATE(T)                                                                                \
  template void attention_backward(Heads<T>, Heads<T>, Heads<T>, Heads<const T>, Heads<const T>, const T*, \
                                   const AttentionArguments<T>&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
