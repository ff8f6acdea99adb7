// The naive twins of the optimiser steps, one element at a time: the oracle of their tests.
#pragma once

#include <cmath>

#include "ops/optim.h"

namespace pynn::reference {

inline void sgd(double& param, double& buffer, double grad, const ops::SgdOptions& o) {
  double g = grad + o.weight_decay * param;
  if (o.momentum != 0) {
    buffer = o.first ? g : o.momentum * buffer + (1 - o.dampening) * g;
    g = o.nesterov ? g + o.momentum * buffer : buffer;
  }
  param -= o.lr * g;
}

inline void adam(double& param, double& exp_avg, double& exp_avg_sq, double grad, const ops::AdamOptions& o) {
  if (o.decoupled) {
    param -= o.lr * o.weight_decay * param;
  } else {
    grad += o.weight_decay * param;
  }
  exp_avg = o.beta1 * exp_avg + (1 - o.beta1) * grad;
  exp_avg_sq = o.beta2 * exp_avg_sq + (1 - o.beta2) * grad * grad;
  const double t = static_cast<double>(o.step);
  const double m = exp_avg / (1 - std::pow(o.beta1, t)), v = exp_avg_sq / (1 - std::pow(o.beta2, t));
  param -= o.lr * m / (std::sqrt(v) + o.eps);
}

inline void rmsprop(double& param, double& square_avg, double* grad_avg, double& buffer, double grad,
                    const ops::RmspropOptions& o) {
  grad += o.weight_decay * param;
  square_avg = o.alpha * square_avg + (1 - o.alpha) * grad * grad;
  double variance = square_avg;
  if (grad_avg != nullptr) {
    *grad_avg = o.alpha * *grad_avg + (1 - o.alpha) * grad;
    variance -= *grad_avg * *grad_avg;
  }
  const double g = grad / (std::sqrt(variance) + o.eps);
  if (o.momentum != 0) buffer = o.momentum * buffer + g;
  param -= o.lr * (o.momentum != 0 ? buffer : g);
}

inline void adagrad(double& param, double& sum, double grad, const ops::AdagradOptions& o) {
  grad += o.weight_decay * param;
  sum += grad * grad;
  param -= o.lr / (1 + static_cast<double>(o.step - 1) * o.lr_decay) * grad / (std::sqrt(sum) + o.eps);
}

inline void adadelta(double& param, double& square_avg, double& acc_delta, double grad, const ops::AdadeltaOptions& o) {
  grad += o.weight_decay * param;
  square_avg = o.rho * square_avg + (1 - o.rho) * grad * grad;
  const double delta = std::sqrt(acc_delta + o.eps) / std::sqrt(square_avg + o.eps) * grad;
  acc_delta = o.rho * acc_delta + (1 - o.rho) * delta * delta;
  param -= o.lr * delta;
}

}  // namespace pynn::reference
