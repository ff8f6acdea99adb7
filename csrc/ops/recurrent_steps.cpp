#include "ops/recurrent_steps.h"

#include "ops/layout.h"
#include "ops/work.h"

namespace pynn::ops {
namespace {

constexpr int64_t kMeetingWork = int64_t(1) << 18;  // multiply-adds of one step that are worth to meet after it

constexpr int64_t kLeastRows = 3;     // fewer take as long
constexpr int64_t kMostRows = 64;     // what a task keeps in cache
constexpr int64_t kUnpackedRows = 6;  // of all steps, below which packing takes longer than it saves
constexpr int64_t kPageFloats = 1024;
constexpr int64_t kCachedBytes = int64_t(768) << 10;
constexpr int64_t kChunkRows = 512;       // of dz, whose sums the gradients of the weights are made of at a time;
constexpr int64_t kTileChunkRows = 1024;  // in tiles, which take no longer where they do not stay in cache
constexpr int64_t kStepRows = 16;         // with which the product of x by steps is as quick as that of all steps
constexpr int64_t kTileRows = 32;         // of a step, from which tiles are quicker than vectors on two threads,
constexpr int64_t kTileHidden = 64;       // hidden units,
constexpr int64_t kTileWork = int64_t(1) << 21;        // and multiply-adds of a step with weight_hh
constexpr int64_t kTileSteps = 8;                      // that are worth to split the weights for
constexpr int64_t kTilePartsBytes = int64_t(3) << 19;  // of the parts of a weight that stay in the L2 cache

// Whether weight_ih stays in the L2 cache beside weight_hh. By the shape alone: products of few columns may add in
// another order. Without hidden units no step has work to do, and so none would make dx.
template <class T>
bool input_stays_cached(int64_t gates, RecurrentSizes s) {
  const int64_t bytes = gates * s.hidden * (s.hidden + s.input) * int64_t(sizeof(T));
  return s.hidden > 0 && s.batch >= kStepRows && s.input % kPageFloats != 0 && bytes <= kCachedBytes;
}

}  // namespace

template <class T>
RecurrentCut recurrent_cut(RecurrentSizes s, int64_t gates) {
  const int64_t weights = gates * s.hidden * s.hidden, step_work = std::max(s.batch, kLeastRows) * weights;
  const int64_t threads = threads_for(static_cast<double>(s.steps) * static_cast<double>(step_work));
  const bool large = weights * int64_t(sizeof(T)) > kCachedBytes;
  if (threads > 1 && step_work >= threads * kMeetingWork && (large || s.batch < threads * kLeastRows)) {
    return {1, std::min(threads, ceil_div(s.hidden, kernels<T>().gemm.nr))};
  }
  const int64_t parts = ceil_div(s.batch, threads * kMostRows) * threads;
  return {std::max<int64_t>(1, std::min(parts, s.batch / kLeastRows)), 1};
}

template <class T>
bool recurrent_in_tiles(RecurrentSizes s, int64_t gates) {
  return kernels<T>().split_gemm.block != nullptr && s.batch >= kTileRows && s.steps >= kTileSteps &&
         s.hidden >= kTileHidden && gates * s.hidden * s.hidden >= ceil_div(kTileWork, s.batch) &&
         gates * parts_size(s.hidden, s.hidden) * int64_t(sizeof(uint16_t)) <= kTilePartsBytes;
}

template <class T>
RecurrentWeights<T>::RecurrentWeights(const T* weight, int64_t gates, int64_t depth, RecurrentSizes s, int64_t joint)
    : weight_(weight),
      gates_(gates),
      hidden_(s.hidden),
      depth_(depth),
      joint_(joint),
      columns_(joint > 0 ? depth : s.hidden),
      in_tiles_(recurrent_in_tiles<T>(s, gates)),
      packs_(!in_tiles_ && (s.steps * s.batch >= kUnpackedRows || (joint > 0 && depth % kPageFloats == 0))),
      packed_(packs_ ? blocks() * unit() * gates * (joint > 0 ? hidden_ : depth) : 0),
      parts_(in_tiles_ ? parts_offset(blocks(), 0) : 0) {
  if (!packs_ && !in_tiles_) return;
  parallel_for_if(gates * hidden_ * depth >= kSerialWork, blocks(),
                  [&](int64_t block) { in_tiles_ ? split(block) : pack(block); });
}

template <class T>
void RecurrentWeights<T>::pack(int64_t block) const {
  const int64_t j = block * unit(), n = std::min(unit(), columns_ - j);
  if (joint_ > 0) {
    const int64_t outputs = gates_ * hidden_;
    kernel_.pack_panel(packed_.get() + j * outputs, weight_ + j, depth_, false, outputs, n);
    return;
  }
  for (int64_t gate = 0; gate < gates_; ++gate) {
    T* to = packed_.get() + (block * gates_ + gate) * unit() * depth_;
    kernel_.pack_panel(to, weight_ + (gate * hidden_ + j) * depth_, depth_, true, depth_, n);
  }
}
template <class T>
int64_t RecurrentWeights<T>::parts_offset(int64_t block, int64_t gate) const {
  if (joint_ == 0) return (block * gates_ + gate) * parts_size(kSplitBlock, depth_);
  const int64_t joint = parts_size(kSplitBlock, joint_ * hidden_);
  return block * (joint + parts_size(kSplitBlock, (gates_ - joint_) * hidden_)) + (gate > 0 ? joint : 0);
}

template <class T>
void RecurrentWeights<T>::split(int64_t block) const {
  const int64_t j = block * unit(), n = std::min(unit(), columns_ - j), step = joint_ > 0 ? joint_ : 1;
  for (int64_t gate = 0; gate < gates_; gate += step) {
    uint16_t* to = parts_.get() + parts_offset(block, gate);
    const T* from = weight_ + gate * hidden_ * depth_;
    if (joint_ > 0) {
      kernels<T>().split_gemm.split_b(to, from + j, depth_, true, n, std::min(step, gates_ - gate) * hidden_);
    } else {
      kernels<T>().split_gemm.split_b(to, from + j * depth_, depth_, false, n, depth_);
    }
  }
}

template <class T>
RecurrentRows<T> RecurrentWeights<T>::rows(const T* data, int64_t ld, int64_t rows, int64_t k, arena::Slot slot) const {
  if (in_tiles_) {
    uint16_t* parts = arena::scratch<uint16_t>(slot, parts_size(rows, k));
    kernels<T>().split_gemm.split_a(parts, data, ld, false, rows, k);
    return {data, ld, false, parts};
  }
  if (ld % kPageFloats != 0 || !packs_ || rows == 1) return {data, ld, false, nullptr};
  T* packed = arena::scratch<T>(slot, rows * k);
  kernel_.pack_rows(packed, data, ld, rows, k);
  return {packed, rows, true, nullptr};
}

template <class T>
template <class Vectors>
void RecurrentWeights<T>::multiply_tiles(T* c, int64_t ldc, const uint16_t* a, const uint16_t* b,
                                         const GemmEpilogue<T>& epilogue, int64_t rows, int64_t n, int64_t k,
                                         const Vectors& vectors) const {
  for (int64_t i = 0; i < rows; i += kSplitBlock) {
    const uint32_t left = kernels<T>().split_gemm.block(c + i * ldc, ldc, a + parts_size(i, k), b, epilogue,
                                                        std::min(kSplitBlock, rows - i), n, k);
    for_each_run(left, [&](int64_t first, int64_t count) { vectors(i + first, count); });
  }
}

template <class T>
void RecurrentWeights<T>::forward(T* c, int64_t ldc, RecurrentRows<T> h, int64_t gate, int64_t block, const T* bias,
                                  bool accumulate, int64_t rows) const {
  const int64_t j = block * unit(), n = std::min(unit(), hidden_ - j);
  const T* weight = weight_ + (gate * hidden_ + j) * depth_;
  GemmEpilogue<T> epilogue;
  epilogue.bias = bias;
  epilogue.accumulate = accumulate;
  const auto dot = [&](int64_t first, int64_t count) {
    kernel_.dot(c + first * ldc, ldc, h.data + first * h.stride, h.stride, weight, depth_, epilogue, count, n, depth_);
  };
  if (in_tiles_) {
    multiply_tiles(c, ldc, h.parts, parts_.get() + parts_offset(block, gate), epilogue, rows, n, depth_, dot);
  } else if (packs_) {
    const T* panel = packed_.get() + (block * gates_ + gate) * unit() * depth_;
    kernel_.block(c, ldc, h.data, h.stride, h.transposed, {panel, unit(), 0}, epilogue, rows, n, depth_);
  } else {
    dot(0, rows);
  }
}

template <class T>
void RecurrentWeights<T>::backward(T* c, int64_t ldc, RecurrentRows<T> dz, int64_t gate, int64_t gates, int64_t block,
                                   bool accumulate, int64_t rows) const {
  const int64_t j = block * unit(), n = std::min(unit(), columns_ - j), first_k = gate * hidden_, k = gates * hidden_;
  GemmEpilogue<T> epilogue;
  epilogue.accumulate = accumulate;
  GemmPanels<T> panel{weight_ + first_k * depth_ + j, depth_, 0};
  if (packs_) panel = {packed_.get() + (block * gates_ * hidden_ + first_k) * unit(), unit(), 0};
  const auto vectors = [&](int64_t first, int64_t count) {
    kernel_.block(c + first * ldc, ldc, dz.data + first * (dz.transposed ? 1 : dz.stride), dz.stride, dz.transposed,
                  panel, epilogue, count, n, k);
  };
  if (in_tiles_) {
    multiply_tiles(c, ldc, dz.parts, parts_.get() + parts_offset(block, gate), epilogue, rows, n, k, vectors);
  } else {
    vectors(0, rows);
  }
}

template <class T>
RecurrentSums<T>::RecurrentSums(T* all, const RecurrentInputs<T>& in, int64_t gates, int64_t shared, RecurrentSizes s)
    : all_(all),
      in_(in),
      gates_(gates),
      sizes_(s),
      by_steps_(in.indices != nullptr || input_stays_cached<T>(gates, s)),
      ld_(by_steps_ ? recurrent_ldz<T>(gates * s.hidden) : gates * s.hidden),
      bias_(in.bias_ih != nullptr ? gates * s.hidden : 0),
      table_(in.indices != nullptr ? s.input * gates * s.hidden : 0) {
  const int64_t outputs = gates * s.hidden, rows = s.steps * s.batch;
  const T* bias = in.bias_ih != nullptr ? bias_.get() : nullptr;
  for (int64_t j = 0; bias != nullptr && j < outputs; ++j) {
    bias_.get()[j] = in.bias_ih[j] + (j < shared ? in.bias_hh[j] : T(0));
  }
  if (in.indices != nullptr) {
    // Every product is a column of weight_ih: look them up as rows of its transpose, to which the bias is added once.
    strided_copy(table_.get(), in.weight_ih, {{s.input, outputs, 1}, {outputs, 1, s.input}});
    for (int64_t i = 0; bias != nullptr && i < s.input; ++i) {
      kernels<T>().layout.accumulate(table_.get() + i * outputs, bias, outputs);
    }
  } else if (by_steps_) {
    weights_.emplace(in.weight_ih, gates, s.input, s, 0);
  } else {
    linear<T>(all, in.x, in.weight_ih, bias, Activation::none, rows, s.input, outputs);
  }
}

template <class T>
T* RecurrentSums<T>::at(int64_t now, RecurrentRange rows, RecurrentRange units) const {
  const int64_t first = now * sizes_.batch + rows.begin, outputs = gates_ * sizes_.hidden;
  if (!by_steps_) return all_ + first * outputs;
  T* z = arena::scratch<T>(arena::Slot::tile, rows.size() * ld_);
  if (in_.indices == nullptr) return z;
  const auto bytes = static_cast<size_t>(units.size()) * sizeof(T);
  for (int64_t r = 0; r < rows.size(); ++r) {
    const T* sums = table_.get() + in_.indices[first + r] * outputs;
    for (int64_t j = units.begin; j < outputs; j += sizes_.hidden) std::memcpy(z + r * ld_ + j, sums + j, bytes);
  }
  return z;
}

template <class T>
RecurrentRows<T> RecurrentSums<T>::input(int64_t now, RecurrentRange rows) const {
  if (!weights_) return {};
  const T* x = in_.x + (now * sizes_.batch + rows.begin) * sizes_.input;
  return weights_->rows(x, sizes_.input, rows.size(), sizes_.input, arena::Slot::split_b);
}

template <class T>
void RecurrentSums<T>::add_input(T* z, RecurrentRows<T> x, int64_t gate, int64_t block, int64_t rows) const {
  if (!weights_) return;
  const int64_t j = gate * sizes_.hidden + block * weights_->unit();
  weights_->forward(z + j, ld_, x, gate, block, in_.bias_ih != nullptr ? bias_.get() + j : nullptr, false, rows);
}

// Chunks are of nearly equal length.
template <class T>
RecurrentDz<T>::RecurrentDz(int64_t outputs, RecurrentSizes s, bool in_tiles)
    : sizes_(s),
      ld_(recurrent_ldz<T>(outputs)),
      chunks_(s.batch == 0 || outputs == 0
                  ? 1
                  : std::max<int64_t>(1, ceil_div(s.steps, ceil_div(in_tiles ? kTileChunkRows : kChunkRows, s.batch)))),
      length_(ceil_div(s.steps, chunks_)),
      buffer_(std::min<int64_t>(chunks_, 2) * length_ * s.batch * ld_) {}

template <class T>
T* RecurrentDz<T>::at(int64_t back, int64_t row) const {
  const int64_t i = back / length_;
  const int64_t now = recurrent_time(sizes_.steps - 1 - back, sizes_).now - first_of(chunk_of(i));
  return buffer(i) + (now * sizes_.batch + row) * ld_;
}

// The same products whether steps or chunks make them: the cut depends on the number of threads, the sums do not.
template <class T>
RecurrentDx<T>::RecurrentDx(T* dx, const RecurrentInputs<T>& in, int64_t gates, RecurrentSizes s, RecurrentCut cut)
    : dx_(dx),
      in_(in),
      gates_(gates),
      sizes_(s),
      by_steps_(dx != nullptr && cut.unit_parts == 1 && input_stays_cached<T>(gates, s)) {
  if (dx != nullptr && input_stays_cached<T>(gates, s)) {
    weights_.emplace(in.weight_ih, gates, s.input, s, gates);
  }
}

template <class T>
RecurrentRows<T> RecurrentDx<T>::rows(const T* dz, int64_t ldz, int64_t rows) const {
  if (!weights_) return {};
  return weights_->rows(dz, ldz, rows, gates_ * sizes_.hidden, arena::Slot::split_a);
}

template <class T>
void RecurrentDx<T>::multiply(RecurrentRows<T> dz, int64_t first, int64_t rows) const {
  for (int64_t block = 0; block < weights_->blocks(); ++block) {
    T* to = dx_ + first * sizes_.input + block * weights_->unit();
    weights_->backward(to, sizes_.input, dz, 0, gates_, block, false, rows);
  }
}

template <class T>
void RecurrentDx<T>::step(RecurrentRows<T> dz, int64_t now, RecurrentRange of) const {
  if (by_steps_) multiply(dz, now * sizes_.batch + of.begin, of.size());
}

template <class T>
void RecurrentDx<T>::finish(const RecurrentChunk<T>& chunk) const {
  if (dx_ == nullptr || by_steps_) return;
  const int64_t input = sizes_.input, outputs = gates_ * sizes_.hidden;
  const int64_t first = chunk.first * sizes_.batch, rows = chunk.steps * sizes_.batch;
  if (!weights_) {
    gemm<T>(
        {dx_ + first * input, input, chunk.dz, chunk.ldz, false, in_.weight_ih, input, false, rows, input, outputs});
    return;
  }
  parallel_ranges(rows, rows * input * outputs < kSerialWork ? rows : kStepRows, [&](int64_t begin, int64_t end) {
    const TileRegisters registers(weights_->in_tiles(), end - begin);
    multiply(this->rows(chunk.dz + begin * chunk.ldz, chunk.ldz, end - begin), first + begin, end - begin);
  });
}

#define PYNN_INSTANTIATE(T)                                        \
  template class RecurrentWeights<T>;                              \
  template class RecurrentSums<T>;                                 \
  template class RecurrentDz<T>;                                   \
  template class RecurrentDx<T>;                                   \
  template RecurrentCut recurrent_cut<T>(RecurrentSizes, int64_t); \
  template bool recurrent_in_tiles<T>(RecurrentSizes, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
