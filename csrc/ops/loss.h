// Softmax over rows, and losses with their gradients, split over the threads.
#pragma once

#include <cstdint>

namespace pynn::ops {

// x, y, dy, dx [rows, cols]; y of the backward is the output
template <class T>
void softmax(T* y, const T* x, int64_t rows, int64_t cols);
template <class T>
void softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols);
template <class T>
void log_softmax(T* y, const T* x, int64_t rows, int64_t cols);
template <class T>
void log_softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols);

enum class Reduction { none, mean, sum };

// logits [rows, cols], target [rows] in 0..cols-1 or ignore_index; loss [1], or [rows] for Reduction::none;
// dlogits [rows, cols] may be null. A row that is not ignored counts as much as weight[its target], weight [cols], or 1
// if weight is null; the mean divides by the sum of these, and is NaN if there are none.
template <class T>
void cross_entropy(T* loss, T* dlogits, const T* logits, const int64_t* target, const T* weight, int64_t ignore_index,
                   double label_smoothing, Reduction reduction, int64_t rows, int64_t cols);

// The same for log_probs [rows, cols] in place of logits.
template <class T>
void nll_loss(T* loss, T* dlog_probs, const T* log_probs, const int64_t* target, const T* weight, int64_t ignore_index,
              Reduction reduction, int64_t rows, int64_t cols);

enum class ElementwiseLoss { mse, bce_with_logits, hinge, l1, kl_div, kl_div_log_target };

// x, target [n]; loss [1], or [n] for Reduction::none; dx [n] may be null
template <class T>
void elementwise_loss(ElementwiseLoss kind, T* loss, T* dx, const T* x, const T* target, Reduction reduction,
                      int64_t n);

template <class T>
void smooth_l1_loss(T* loss, T* dx, const T* x, const T* target, double beta, Reduction reduction, int64_t n);

}  // namespace pynn::ops
