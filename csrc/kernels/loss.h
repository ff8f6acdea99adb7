// Softmax over rows, and losses with their gradients. A null pointer asks for no such output.
#pragma once

#include <cstdint>

namespace pynn {

// The target distribution of a row is `confidence` on its label plus `uniform` on every class, each times the weight of
// the class, which add up to weight_sum (null: 1 for every class); gradients are multiplied by `scale`. Rows whose
// target is `ignore_index` give zeros.
template <class T>
struct CrossEntropyTerms {
  T confidence, uniform, scale;
  const T* weight;
  T weight_sum;
  int64_t ignore_index;
};

template <class T>
struct LossKernels {
  // x, y, dy, dx [rows, cols]; y of the backward is the output
  void (*softmax)(T* y, const T* x, int64_t rows, int64_t cols);
  void (*softmax_backward)(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols);
  void (*log_softmax)(T* y, const T* x, int64_t rows, int64_t cols);
  void (*log_softmax_backward)(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols);

  // loss [rows], dlogits [rows, cols]; returns the sum of the losses
  double (*cross_entropy)(T* loss, T* dlogits, const T* logits, const int64_t* target, CrossEntropyTerms<T> terms,
                          int64_t rows, int64_t cols);

  // loss [n], dx [n] multiplied by scale; returns the sum of the losses
  double (*mse)(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n);
  double (*bce_with_logits)(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n);
  double (*hinge)(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n);
  double (*l1)(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n);
  double (*kl_div)(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n);
  double (*kl_div_log_target)(T* loss, T* dx, const T* x, const T* log_target, T scale, int64_t n);
  double (*smooth_l1)(T* loss, T* dx, const T* x, const T* target, T beta, T scale, int64_t n);
};

}  // namespace pynn
