#include "ops/loss.h"

#include <algorithm>
#include <numeric>

#include "ops/ceil_div.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kChunk = 8192;  // elements, so that a second thread pays

// As many whole rows as make a chunk; the shape alone decides.
int64_t rows_of_chunk(int64_t cols) { return std::max<int64_t>(1, kChunk / std::max<int64_t>(1, cols)); }

// Calls fn(first element, rows) for parts of x [rows, cols].
template <class Function>
void for_rows(int64_t rows, int64_t cols, const Function& fn) {
  if (cols == 0) return;  // of nothing there can be more rows than can be counted through
  parallel_ranges(rows, rows_of_chunk(cols), [&](int64_t begin, int64_t end) { fn(begin * cols, end - begin); });
}

// The sum of chunk(begin, end) over 0..size-1, in chunks of `grain`, added in their order.
template <class Chunk>
double sum_chunks(int64_t size, int64_t grain, const Chunk& chunk) {
  const int64_t chunks = ceil_div(size, grain);
  double* partial = arena::scratch<double>(arena::Slot::partial, std::max<int64_t>(1, chunks));
  parallel_for(chunks, [&](int64_t c) { partial[c] = chunk(c * grain, std::min(size, (c + 1) * grain)); });
  double sum = 0;
  for (int64_t c = 0; c < chunks; ++c) sum += partial[c];
  return sum;
}

// What becomes of the sum of the losses, of which the mean counts `counted`; without reduction they are there already.
template <class T>
void store_reduced(T* loss, double sum, double counted, Reduction reduction) {
  if (reduction != Reduction::none) *loss = static_cast<T>(reduction == Reduction::mean ? sum / counted : sum);
}

// apply(loss, dx, x, target, scale, n) is a kernel
template <class T, class Apply>
void reduce_loss(T* loss, T* dx, const T* x, const T* target, Reduction reduction, int64_t n, const Apply& apply) {
  const bool each = reduction == Reduction::none;
  const double counted = static_cast<double>(n);
  const T scale = static_cast<T>(reduction == Reduction::mean ? 1 / counted : 1.0);
  const double sum = sum_chunks(n, kChunk, [&](int64_t begin, int64_t end) {
    return apply(each ? loss + begin : nullptr, dx != nullptr ? dx + begin : nullptr, x + begin, target + begin, scale,
                 end - begin);
  });
  store_reduced(loss, sum, counted, reduction);
}

// What the mean divides by.
template <class T>
double weight_of_rows(const int64_t* target, const T* weight, int64_t ignore_index, int64_t rows) {
  if (weight == nullptr) return static_cast<double>(rows - std::count(target, target + rows, ignore_index));
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += target[i] != ignore_index ? static_cast<double>(weight[target[i]]) : 0;
  return sum;
}

}  // namespace

template <class T>
void softmax(T* y, const T* x, int64_t rows, int64_t cols) {
  for_rows(rows, cols, [&](int64_t at, int64_t n) { kernels<T>().loss.softmax(y + at, x + at, n, cols); });
}

template <class T>
void softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols) {
  for_rows(rows, cols,
           [&](int64_t at, int64_t n) { kernels<T>().loss.softmax_backward(dx + at, dy + at, y + at, n, cols); });
}

template <class T>
void log_softmax(T* y, const T* x, int64_t rows, int64_t cols) {
  for_rows(rows, cols, [&](int64_t at, int64_t n) { kernels<T>().loss.log_softmax(y + at, x + at, n, cols); });
}

template <class T>
void log_softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols) {
  for_rows(rows, cols,
           [&](int64_t at, int64_t n) { kernels<T>().loss.log_softmax_backward(dx + at, dy + at, y + at, n, cols); });
}

template <class T>
void cross_entropy(T* loss, T* dlogits, const T* logits, const int64_t* target, const T* weight, int64_t ignore_index,
                   double label_smoothing, Reduction reduction, int64_t rows, int64_t cols) {
  const double counted = weight_of_rows(target, weight, ignore_index, rows);
  double weight_sum = static_cast<double>(cols);
  if (weight != nullptr) weight_sum = std::accumulate(weight, weight + cols, 0.0);
  const bool mean = reduction == Reduction::mean, each = reduction == Reduction::none;
  const CrossEntropyTerms<T> terms{static_cast<T>(1 - label_smoothing),
                                   static_cast<T>(cols > 0 ? label_smoothing / static_cast<double>(cols) : 0),
                                   static_cast<T>(mean && counted != 0 ? 1 / counted : 1.0),
                                   weight,
                                   static_cast<T>(weight_sum),
                                   ignore_index};
  const double sum = sum_chunks(rows, rows_of_chunk(cols), [&](int64_t begin, int64_t end) {
    return kernels<T>().loss.cross_entropy(each ? loss + begin : nullptr,
                                           dlogits != nullptr ? dlogits + begin * cols : nullptr, logits + begin * cols,
                                           target + begin, terms, end - begin, cols);
  });
  store_reduced(loss, sum, counted, reduction);
}

template <class T>
void nll_loss(T* loss, T* dlog_probs, const T* log_probs, const int64_t* target, const T* weight, int64_t ignore_index,
              Reduction reduction, int64_t rows, int64_t cols) {
  const double counted = weight_of_rows(target, weight, ignore_index, rows);
  const bool mean = reduction == Reduction::mean, each = reduction == Reduction::none;
  const T slope = static_cast<T>(mean && counted != 0 ? -1 / counted : -1.0);
  const double sum = sum_chunks(rows, rows_of_chunk(cols), [&](int64_t begin, int64_t end) {
    double part = 0;
    if (dlog_probs != nullptr) std::fill(dlog_probs + begin * cols, dlog_probs + end * cols, T(0));
    for (int64_t i = begin; i < end; ++i) {
      const bool ignored = target[i] == ignore_index;
      const int64_t at = ignored ? 0 : i * cols + target[i];
      const T row_weight = weight != nullptr && !ignored ? weight[target[i]] : T(1);
      const T row_loss = ignored ? T(0) : -row_weight * log_probs[at];
      part += static_cast<double>(row_loss);
      if (each) loss[i] = row_loss;
      if (dlog_probs != nullptr && !ignored) dlog_probs[at] = slope * row_weight;
    }
    return part;
  });
  store_reduced(loss, sum, counted, reduction);
}

template <class T>
void elementwise_loss(ElementwiseLoss kind, T* loss, T* dx, const T* x, const T* target, Reduction reduction,
                      int64_t n) {
  const LossKernels<T>& kernel = kernels<T>().loss;
  const auto apply = kind == ElementwiseLoss::mse               ? kernel.mse
                     : kind == ElementwiseLoss::bce_with_logits ? kernel.bce_with_logits
                     : kind == ElementwiseLoss::hinge           ? kernel.hinge
                     : kind == ElementwiseLoss::l1              ? kernel.l1
                     : kind == ElementwiseLoss::kl_div          ? kernel.kl_div
                                                                : kernel.kl_div_log_target;
  reduce_loss(loss, dx, x, target, reduction, n, apply);
}

template <class T>
void smooth_l1_loss(T* loss, T* dx, const T* x, const T* target, double beta, Reduction reduction, int64_t n) {
  const auto apply = [beta](T* value, T* gradient, const T* v, const T* t, T scale, int64_t count) {
    return kernels<T>().loss.smooth_l1(value, gradient, v, t, static_cast<T>(beta), scale, count);
  };
  reduce_loss(loss, dx, x, target, reduction, n, apply);
}

#define PYNN_INSTANTIATE(T)                                                                                    \
  template void softmax(T*, const T*, int64_t, int64_t);                                                       \
  template void softmax_backward(T*, const T*, const T*, int64_t, int64_t);                                    \
  template void log_softmax(T*, const T*, int64_t, int64_t);                                                   \
  template void log_softmax_backward(T*, const T*, const T*, int64_t, int64_t);                                \
  template void cross_entropy(T*, T*, const T*, const int64_t*, const T*, int64_t, double, Reduction, int64_t, \
                              int64_t);                                                                        \
  template void nll_loss(T*, T*, const T*, const int64_t*, const T*, int64_t, Reduction, int64_t, int64_t);    \
  template void smooth_l1_loss(T*, T*, const T*, const T*, double, Reduction, int64_t);                        \
  template void elementwise_loss(ElementwiseLoss, T*, T*, const T*, const T*, Reduction, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
