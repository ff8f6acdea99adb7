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

// g += weight_decay p; v = alpha v + (1 - alpha) g^2; d = sqrt(v) + eps, or centred by the mean of the gradients:
// m = alpha m + (1 - alpha) g, d = sqrt(v - m^2) + eps; p -= lr g / d, or b = momentum b + g / d, p -= lr b
template <class T>
struct RmspropStep {
  T lr, alpha, one_minus_alpha, eps, weight_decay, momentum;
};

// g += weight_decay p; s += g^2; p -= rate g / (sqrt(s) + eps)
template <class T>
struct AdagradStep {
  T rate, eps, weight_decay;
};

// g += weight_decay p; v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u = rho u + (1 - rho) d^2;
// p -= lr d
template <class T>
struct AdadeltaStep {
  T lr, rho, one_minus_rho, eps, weight_decay;
};

template <class T>
struct OptimKernels {
  void (*sgd)(T* param, T* momentum_buffer, const T* grad, SgdStep<T> step, int64_t n);  // buffer null: no momentum
  void (*adam)(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, AdamStep<T> step, int64_t n);
  // grad_avg null: not centred; momentum_buffer null: no momentum
  void (*rmsprop)(T* param, T* square_avg, T* grad_avg, T* momentum_buffer, const T* grad, RmspropStep<T> step,
                  int64_t n);
  void (*adagrad)(T* param, T* sum, const T* grad, AdagradStep<T> step, int64_t n);
  void (*adadelta)(T* param, T* square_avg, T* acc_delta, const T* grad, AdadeltaStep<T> step, int64_t n);
  double (*sum_squares)(const T* x, double scale, int64_t n);  // of scale x, in double
  void (*scale)(T* x, T factor, int64_t n);
  bool (*all_finite)(const T* x, int64_t n);
};

}  // namespace pynn
