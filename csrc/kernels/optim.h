// Optimiser steps over n contiguous elements, in place. The formulas are those of PyTorch's documentation.
#pragma once

#include <cstdint>

namespace pynn {

// g += weight_decay p; b = first ? g : momentum b + undamped g; p -= lr (nesterov ? g + momentum b : b)
template <class T>
struct SgdStep {
  T lr, momentum, undamped, weight_decay;  // undamped = 1 - dampening
  bool nesterov, first;
};

// p *= keep; g += weight_decay p; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
// p -= step_size m / (sqrt(v) root_scale + eps), with the bias corrections in step_size and root_scale
template <class T>
struct AdamStep {
  T keep, weight_decay, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_scale, eps;
};

template <class T>
struct OptimKernels {
  void (*sgd)(T* param, T* momentum_buffer, const T* grad, SgdStep<T> step, int64_t n);  // buffer null: no momentum
  void (*adam)(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, AdamStep<T> step, int64_t n);
  double (*sum_squares)(const T* x, double scale, int64_t n);  // of scale x, in double
  void (*scale)(T* x, T factor, int64_t n);
  bool (*all_finite)(const T* x, int64_t n);
};

}  // namespace pynn
