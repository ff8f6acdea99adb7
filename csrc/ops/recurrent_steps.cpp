#include "ops/recurrent_steps.h"

#include "ops/layout.h"

namespace pynn::ops {
namespace {

// Multiply-adds below which a second thread costs more than it gives, if it waits for work or has to be woken; and
// those of one step that are worth to meet after it.
constexpr int64_t kSerialWork = int64_t(1) << 17;
constexpr int64_t kWakingWork = int64_t(1) << 19;
constexpr int64_t kMeetingWork = int64_t(1) << 18;

constexpr int64_t kLeastRows = 3;     // fewer take as long
constexpr int64_t kMostRows = 64;     // what a task keeps in cache
constexpr int64_t kUnpackedRows = 6;  // of all steps, below which packing takes longer than it saves
constexpr int64_t kPageFloats = 1024;
constexpr int64_t kCachedBytes = int64_t(768) << 10;

}  // namespace

template <class T>
RecurrentCut recurrent_cut(RecurrentSizes s, int64_t gates) {
  const int64_t weights = gates * s.hidden * s.hidden, step_work = std::max(s.batch, kLeastRows) * weights;
  const int64_t work = s.steps * step_work;
  const int64_t threads = work < kSerialWork ? 1 : work < kWakingWork ? awake_threads() : num_threads();
  const bool large = weights * int64_t(sizeof(T)) > kCachedBytes;
  if (threads > 1 && step_work >= threads * kMeetingWork && (large || s.batch < threads * kLeastRows)) {
    return {1, std::min(threads, ceil_div(s.hidden, kernels<T>().gemm.nr))};
  }
  const int64_t parts = ceil_div(s.batch, threads * kMostRows) * threads;
  return {std::max<int64_t>(1, std::min(parts, s.batch / kLeastRows)), 1};
}

template <class T>
RecurrentWeights<T>::RecurrentWeights(const T* weight, int64_t gates, int64_t hidden, int64_t rows_of_all_steps,
                                      bool backward)
    : weight_(weight),
      gates_(gates),
      hidden_(hidden),
      packs_(rows_of_all_steps >= kUnpackedRows || (backward && hidden % kPageFloats == 0)),
      packed_(packs_ ? blocks() * unit() * gates * hidden : 0) {
  if (!packs_) return;
  const int64_t panel = unit() * hidden;
  const auto pack = [&](int64_t block) {
    T* to = packed_.get() + block * gates_ * panel;
    const int64_t j = block * unit(), n = std::min(unit(), hidden_ - j);
    if (backward) {
      kernel_.pack_panel(to, weight_ + j, hidden_, false, gates_ * hidden_, n);
    } else {
      for (int64_t gate = 0; gate < gates_; ++gate) {
        kernel_.pack_panel(to + gate * panel, weight_ + (gate * hidden_ + j) * hidden_, hidden_, true, hidden_, n);
      }
    }
  };
  if (gates * hidden * hidden < kSerialWork) {
    for (int64_t block = 0; block < blocks(); ++block) pack(block);
  } else {
    parallel_for(blocks(), pack);
  }
}

template <class T>
RecurrentRows<T> RecurrentWeights<T>::rows(const T* data, int64_t ld, int64_t rows, int64_t k) const {
  if (ld % kPageFloats != 0 || !packs_ || rows == 1) return {data, ld, false};
  T* packed = arena::scratch<T>(arena::Slot::pack_a, rows * k);
  kernel_.pack_rows(packed, data, ld, rows, k);
  return {packed, rows, true};
}

template <class T>
void RecurrentWeights<T>::forward(T* c, int64_t ldc, RecurrentRows<T> h, int64_t gate, int64_t block, const T* bias,
                                  bool accumulate, int64_t rows) const {
  const int64_t j = block * unit(), n = std::min(unit(), hidden_ - j);
  GemmEpilogue<T> epilogue;
  epilogue.bias = bias;
  epilogue.accumulate = accumulate;
  if (packs_) {
    const T* panel = packed_.get() + (block * gates_ + gate) * unit() * hidden_;
    kernel_.block(c, ldc, h.data, h.stride, h.transposed, {panel, unit(), 0}, epilogue, rows, n, hidden_);
  } else {
    kernel_.dot(c, ldc, h.data, h.stride, weight_ + (gate * hidden_ + j) * hidden_, hidden_, epilogue, rows, n,
                hidden_);
  }
}

template <class T>
void RecurrentWeights<T>::backward(T* c, int64_t ldc, RecurrentRows<T> dz, int64_t gate, int64_t gates, int64_t block,
                                   bool accumulate, int64_t rows) const {
  const int64_t j = block * unit(), n = std::min(unit(), hidden_ - j), first = gate * hidden_;
  GemmEpilogue<T> epilogue;
  epilogue.accumulate = accumulate;
  GemmPanels<T> panel{weight_ + first * hidden_ + j, hidden_, 0};
  if (packs_) panel = {packed_.get() + (block * gates_ * hidden_ + first) * unit(), unit(), 0};
  kernel_.block(c, ldc, dz.data, dz.stride, dz.transposed, panel, epilogue, rows, n, gates * hidden_);
}

template <class T>
void recurrent_input(T* sums, const RecurrentInputs<T>& in, int64_t outputs, int64_t shared, RecurrentSizes s) {
  const arena::Buffer<T> bias_buffer(in.bias_ih != nullptr ? outputs : 0);
  T* bias = in.bias_ih != nullptr ? bias_buffer.get() : nullptr;
  for (int64_t j = 0; bias != nullptr && j < outputs; ++j) {
    bias[j] = in.bias_ih[j] + (j < shared ? in.bias_hh[j] : T(0));
  }
  const int64_t rows = s.steps * s.batch;
  if (in.indices == nullptr) {
    linear<T>(sums, in.x, in.weight_ih, bias, Activation::none, rows, s.input, outputs);
    return;
  }
  // Every product is a column of weight_ih: look them up as rows of its transpose, to which the bias is added once.
  const arena::Buffer<T> table(s.input * outputs);
  strided_copy(table.get(), in.weight_ih, {{s.input, outputs, 1}, {outputs, 1, s.input}});
  for (int64_t i = 0; bias != nullptr && i < s.input; ++i) {
    kernels<T>().layout.accumulate(table.get() + i * outputs, bias, outputs);
  }
  take_rows(sums, table.get(), in.indices, rows, outputs * int64_t(sizeof(T)));
}

template <class T>
void recurrent_input_backward(const RecurrentGradients<T>& out, const T* dz, const RecurrentInputs<T>& in,
                              int64_t outputs, RecurrentSizes s) {
  const int64_t rows = s.steps * s.batch;
  if (in.indices == nullptr) {
    linear_backward<T>(out.dx, out.dweight_ih, out.dbias_ih, dz, nullptr, in.x, in.weight_ih, Activation::none, rows,
                       s.input, outputs);
    return;
  }
  if (out.dweight_ih != nullptr) {
    const arena::Buffer<T> table(s.input * outputs);
    embedding_backward(table.get(), dz, in.indices, rows, s.input, outputs);
    strided_copy<T>(out.dweight_ih, table.get(), {{outputs, s.input, 1}, {s.input, 1, outputs}});
  }
  linear_backward<T>(nullptr, nullptr, out.dbias_ih, dz, nullptr, nullptr, nullptr, Activation::none, rows, s.input,
                     outputs);
}

template <class T>
void recurrent_dweight_hh(T* dweight, const T* dz, int64_t ld, int64_t columns, const T* y, const T* h0,
                          RecurrentSizes s) {
  const int64_t state = s.batch * s.hidden, pairs = std::max<int64_t>(0, s.steps - 1) * s.batch;
  const T* later = s.reverse ? dz : dz + s.batch * ld;
  const T* before = s.reverse ? y + state : y;
  gemm<T>({dweight, s.hidden, later, ld, true, before, s.hidden, false, columns, s.hidden, pairs});
  if (h0 == nullptr || s.steps == 0) return;
  const T* first = s.reverse ? dz + pairs * ld : dz;
  gemm<T>({dweight, s.hidden, first, ld, true, h0, s.hidden, false, columns, s.hidden, s.batch, nullptr,
           Activation::none, true});
}

#define PYNN_INSTANTIATE(T)                                                                                          \
  template class RecurrentWeights<T>;                                                                                \
  template RecurrentCut recurrent_cut<T>(RecurrentSizes, int64_t);                                                   \
  template void recurrent_input(T*, const RecurrentInputs<T>&, int64_t, int64_t, RecurrentSizes);                    \
  template void recurrent_input_backward(const RecurrentGradients<T>&, const T*, const RecurrentInputs<T>&, int64_t, \
                                         RecurrentSizes);                                                            \
  template void recurrent_dweight_hh(T*, const T*, int64_t, int64_t, const T*, const T*, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
