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

}  // namespace pynn::reference
