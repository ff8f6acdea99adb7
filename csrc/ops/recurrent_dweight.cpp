#include "ops/recurrent_dweight.h"

#include "ops/layout.h"
#include "ops/work.h"

namespace pynn::ops {
namespace {

constexpr int64_t kMostTileInput = 512;  // features, whose parts stay in the L2 cache beside the sums
constexpr int64_t kMostTileRows = 1280;  // of a chunk that are multiplied at a time
constexpr int64_t kGroupColumns = 64;    // of dz that are split at a time

}  // namespace

template <class T>
RecurrentDweights<T>::RecurrentDweights(const RecurrentGradients<T>& out, const RecurrentInputs<T>& in, const T* y,
                                        int64_t gates, int64_t own, RecurrentSizes s)
    : out_(out),
      in_(in),
      y_(y),
      gates_(gates),
      own_(own),
      sizes_(s),
      hh_in_tiles_(out.dweight_hh != nullptr && recurrent_in_tiles<T>(s, gates)),
      ih_in_tiles_(hh_in_tiles_ && out.dweight_ih != nullptr && in.indices == nullptr && s.input <= kMostTileInput),
      table_(in.indices != nullptr && out.dweight_ih != nullptr ? s.input * gates * s.hidden : 0),
      second_ih_(ih_in_tiles_ ? gates * s.hidden * s.input : 0),
      second_hh_(hh_in_tiles_ ? gates * s.hidden * s.hidden : 0),
      second_db_(ih_in_tiles_ ? gates * s.hidden : 0) {
  if (in.indices != nullptr && out.dweight_ih != nullptr) fill(table_.get(), T(0), s.input * gates * s.hidden);
}

template <class T>
void RecurrentDweights<T>::add(const RecurrentChunk<T>& chunk) const {
  if (!ih_in_tiles_) add_ih(chunk);
  if (hh_in_tiles_) {
    add_in_tiles(chunk);
  } else if (out_.dweight_hh != nullptr) {
    add_hh(chunk, 0, gates_ - own_, 0);
    if (own_ > 0) add_hh(chunk, gates_ - own_, own_, gates_ * sizes_.hidden);
  }
}

template <class T>
void RecurrentDweights<T>::add_ih(const RecurrentChunk<T>& chunk) const {
  const int64_t first = chunk.first * sizes_.batch, rows = chunk.steps * sizes_.batch;
  const int64_t outputs = gates_ * sizes_.hidden;
  if (out_.dweight_ih == nullptr) {
    if (out_.dbias_ih != nullptr) linear_dbias(out_.dbias_ih, chunk.dz, chunk.ldz, rows, outputs, chunk.accumulate);
  } else if (in_.indices == nullptr) {
    linear_dweight(out_.dweight_ih, out_.dbias_ih, chunk.dz, chunk.ldz, in_.x + first * sizes_.input, rows,
                   sizes_.input, outputs, chunk.accumulate);
  } else {
    embedding_backward(table_.get(), chunk.dz, chunk.ldz, in_.indices + first, rows, outputs);
  }
}

// The products of these columns of dz, and the states before each step.
template <class T>
void RecurrentDweights<T>::add_hh(const RecurrentChunk<T>& chunk, int64_t gate, int64_t gates, int64_t column) const {
  const int64_t hidden = sizes_.hidden, state = sizes_.batch * hidden, step = sizes_.batch * chunk.ldz;
  const int64_t end = chunk.first + chunk.steps;
  // The first step taken, whose state before is not in y, is the first or the last of the last chunk.
  const bool whole = sizes_.reverse ? end < sizes_.steps : chunk.first > 0;
  const int64_t pairs = whole ? chunk.steps : std::max<int64_t>(0, chunk.steps - 1);
  const T* dz = chunk.dz + column;
  const T* later = whole || sizes_.reverse ? dz : dz + step;
  const T* before = sizes_.reverse ? y_ + (chunk.first + 1) * state : y_ + (whole ? chunk.first - 1 : 0) * state;
  GemmArguments<T> g{out_.dweight_hh + gate * hidden * hidden,
                     hidden,
                     later,
                     chunk.ldz,
                     true,
                     before,
                     hidden,
                     false,
                     gates * hidden,
                     hidden,
                     pairs * sizes_.batch};
  g.accumulate = chunk.accumulate;
  gemm<T>(g);
  if (in_.h0 == nullptr || whole || chunk.steps == 0) return;
  g.a = sizes_.reverse ? dz + (chunk.steps - 1) * step : dz;
  g.b = in_.h0;
  g.k = sizes_.batch;
  g.accumulate = true;
  gemm<T>(g);
}

// Each half of the rows has sums of its own, so that two threads split neither dz nor the right operands twice; what is
// split of dz is multiplied with both of them.
template <class T>
void RecurrentDweights<T>::add_in_tiles(const RecurrentChunk<T>& chunk) const {
  const int64_t rows = chunk.steps * sizes_.batch, parts = std::max(1, num_threads() / 2);
  for (int64_t first = 0; first < rows; first += kMostTileRows) {
    const int64_t size = std::min(kMostTileRows, rows - first);
    const int64_t middle = std::min(size, round_up(ceil_div(size, 2), kSplitDepth));
    parallel_for(2 * parts, [&](int64_t task) {
      const int64_t half = task / parts;
      const Rows of_half = half == 0 ? Rows{first, middle} : Rows{first + middle, size - middle};
      add_half(chunk, half, of_half, chunk.accumulate || first > 0, task % parts, parts);
    });
  }
}

template <class T>
void RecurrentDweights<T>::add_half(const RecurrentChunk<T>& chunk, int64_t half, Rows rows, bool accumulate,
                                    int64_t part, int64_t parts) const {
  const SplitGemmKernels<T>& split = kernels<T>().split_gemm;
  const int64_t input = ih_in_tiles_ ? sizes_.input : 0, hidden = sizes_.hidden, k = rows.size;
  const int64_t joint = (gates_ - own_) * hidden, outputs = gates_ * hidden, parts_of_x = parts_size(input, k);
  uint16_t* const right_parts = arena::scratch<uint16_t>(arena::Slot::split_b, parts_of_x + parts_size(hidden, k));
  uint16_t* const left_parts = arena::scratch<uint16_t>(arena::Slot::split_a, parts_size(kGroupColumns, k));
  const T* x = input > 0 ? in_.x + (chunk.first * sizes_.batch + rows.first) * input : nullptr;
  const Right rights[2] = {
      {x, input, half == 0 ? out_.dweight_ih : second_ih_.get(), right_parts},
      {states_before(chunk, rows), hidden, half == 0 ? out_.dweight_hh : second_hh_.get(), right_parts + parts_of_x}};
  for (const Right& right : rights) {
    split.split_b(right.parts, right.data, right.columns, true, right.columns, k);
  }
  const Segment segments[] = {
      {0, joint, {0, 0}}, {joint, own_ * hidden, {joint, -1}}, {outputs, own_ * hidden, {-1, joint}}};
  const TileRegisters registers(true, kSplitBlock);
  for (const Segment& segment : segments) {
    const int64_t groups = ceil_div(segment.columns, kGroupColumns);
    for (int64_t group = groups * part / parts; group < groups * (part + 1) / parts; ++group) {
      const int64_t from = group * kGroupColumns, m = std::min(kGroupColumns, segment.columns - from);
      const T* dz = chunk.dz + rows.first * chunk.ldz + segment.first + from;
      split.split_a(left_parts, dz, chunk.ldz, true, m, k);
      for (int of = 0; of < 2; ++of) {
        const Right& right = rights[of];
        if (segment.row[of] < 0) continue;
        for (int64_t i = 0; i < m; i += kSplitBlock) {
          T* c = right.dweight + (segment.row[of] + from + i) * right.columns;
          for (int64_t j = 0; j < right.columns; j += kSplitBlock) {
            add_block(right, c + j, dz + i, chunk.ldz, left_parts + parts_size(i, k), j, std::min(kSplitBlock, m - i),
                      k, accumulate);
          }
        }
      }
      if (!ih_in_tiles_ || out_.dbias_ih == nullptr || segment.row[0] < 0) continue;
      T* db = (half == 0 ? out_.dbias_ih : second_db_.get()) + segment.first + from;
      T* sums = accumulate ? arena::scratch<T>(arena::Slot::columns, m) : db;
      kernels<T>().gemm.column_sums(sums, dz, chunk.ldz, k, m);
      if (accumulate) kernels<T>().layout.accumulate(db, sums, m);
    }
  }
}

// c[m, columns from j] (+)= a^T * right, whose rows that are not finite are made of vectors.
template <class T>
void RecurrentDweights<T>::add_block(const Right& right, T* c, const T* a, int64_t lda, const uint16_t* a_parts,
                                     int64_t j, int64_t m, int64_t k, bool accumulate) const {
  const GemmKernels<T>& gemm = kernels<T>().gemm;
  const int64_t n = std::min(kSplitBlock, right.columns - j);
  GemmEpilogue<T> epilogue;
  epilogue.accumulate = accumulate;
  const uint32_t left =
      kernels<T>().split_gemm.block(c, right.columns, a_parts, right.parts + parts_size(j, k), epilogue, m, n, k);
  if (left == 0) return;
  T* panel = arena::scratch<T>(arena::Slot::pack_b, round_up(n, gemm.nr) * k);
  gemm.pack_panel(panel, right.data + j, right.columns, false, k, n);
  for_each_run(left, [&](int64_t first, int64_t count) {
    gemm.block(c + first * right.columns, right.columns, a + first, lda, true, {panel, gemm.nr, gemm.nr * k}, epilogue,
               count, n, k);
  });
}

// The states before the steps of these rows: where they lie in y, or copied together with those before all steps.
template <class T>
const T* RecurrentDweights<T>::states_before(const RecurrentChunk<T>& chunk, Rows rows) const {
  const int64_t hidden = sizes_.hidden, all = sizes_.steps * sizes_.batch;
  const int64_t first = chunk.first * sizes_.batch + rows.first + (sizes_.reverse ? sizes_.batch : -sizes_.batch);
  if (first >= 0 && first + rows.size <= all) return y_ + first * hidden;
  T* copy = arena::scratch<T>(arena::Slot::pack_a, rows.size * hidden);
  for (int64_t i = 0; i < rows.size; ++i) {
    const int64_t row = first + i;
    const bool in_y = row >= 0 && row < all;
    const int64_t of_h0 = row < 0 ? row + sizes_.batch : row - all;
    const T* from = in_y ? y_ + row * hidden : in_.h0 != nullptr ? in_.h0 + of_h0 * hidden : nullptr;
    copy_state(copy + i * hidden, from, hidden);
  }
  return copy;
}

template <class T>
void RecurrentDweights<T>::finish() const {
  const int64_t outputs = gates_ * sizes_.hidden;
  const auto add = [](T* to, const T* from, int64_t size) {
    parallel_ranges(size, kSerialWork, [&](int64_t begin, int64_t end) {
      kernels<T>().layout.accumulate(to + begin, from + begin, end - begin);
    });
  };
  if (hh_in_tiles_) add(out_.dweight_hh, second_hh_.get(), outputs * sizes_.hidden);
  if (ih_in_tiles_) add(out_.dweight_ih, second_ih_.get(), outputs * sizes_.input);
  if (ih_in_tiles_ && out_.dbias_ih != nullptr) add(out_.dbias_ih, second_db_.get(), outputs);
  if (in_.indices == nullptr || out_.dweight_ih == nullptr) return;
  strided_copy<T>(out_.dweight_ih, table_.get(), {{outputs, sizes_.input, 1}, {sizes_.input, 1, outputs}});
  // Every row of dz is part of one sum in the table.
  if (out_.dbias_ih != nullptr) linear_dbias(out_.dbias_ih, table_.get(), outputs, sizes_.input, outputs, false);
}

template class RecurrentDweights<float>;
template class RecurrentDweights<double>;

}  // namespace pynn::ops
