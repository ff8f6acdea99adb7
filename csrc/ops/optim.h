// Optimiser steps and reductions over lists of arrays, one call for all of them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ops/linear_update.h"

namespace pynn::ops {

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, first;  // first: the momentum buffers hold nothing yet
};

struct AdamOptions {
  int64_t step;  // counted from 1
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;  // AdamW
};

struct RmspropOptions {
  double lr, alpha, eps, weight_decay, momentum;
};

struct AdagradOptions {
  int64_t step;  // counted from 1
  double lr, lr_decay, eps, weight_decay;
};

struct AdadeltaOptions {
  double lr, rho, eps, weight_decay;
};

// The arrays of a list and how many elements each has.
template <class T>
struct ArrayList {
  std::vector<T*> data;
  std::vector<int64_t> sizes;
};

// Gradients: arrays, some of which may be null, and for those what makes them, by position.
template <class T>
struct Gradients {
  ArrayList<T> arrays;
  std::vector<std::pair<size_t, LinearGradient<T>>> linear = {};
};

// The lists have equal lengths and sizes; momentum_buffers is empty without momentum.
template <class T>
void sgd(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& momentum_buffers,
         const SgdOptions& options);
template <class T>
void adam(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& exp_avgs,
          const ArrayList<T>& exp_avg_sqs, const AdamOptions& options);

// grad_avgs is empty unless centred, momentum_buffers without momentum.
template <class T>
void rmsprop(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& square_avgs,
             const ArrayList<T>& grad_avgs, const ArrayList<T>& momentum_buffers, const RmspropOptions& options);
template <class T>
void adagrad(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& sums,
             const AdagradOptions& options);
template <class T>
void adadelta(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& square_avgs,
              const ArrayList<T>& acc_deltas, const AdadeltaOptions& options);

template <class T>
double l2_norm(const ArrayList<T>& arrays);
template <class T>
void scale(const ArrayList<T>& arrays, double factor);
template <class T>
bool all_finite(const ArrayList<T>& arrays);

}  // namespace pynn::ops
