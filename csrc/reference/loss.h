// The naive twins of softmax and the losses: the oracle of their tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace pynn::reference {

// y[rows, cols] = log(softmax(x)), in double
template <class T>
void log_softmax(double* y, const T* x, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i, x += cols, y += cols) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < cols; ++j) largest = std::max(largest, static_cast<double>(x[j]));
    for (int64_t j = 0; j < cols; ++j) sum += std::exp(static_cast<double>(x[j]) - largest);
    for (int64_t j = 0; j < cols; ++j) y[j] = static_cast<double>(x[j]) - largest - std::log(sum);
  }
}

// dx = dy - exp(y) sum(dy)
template <class T>
void log_softmax_backward(double* dx, const T* dy, const double* y, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i, dx += cols, dy += cols, y += cols) {
    double sum = 0;
    for (int64_t j = 0; j < cols; ++j) sum += static_cast<double>(dy[j]);
    for (int64_t j = 0; j < cols; ++j) dx[j] = static_cast<double>(dy[j]) - std::exp(y[j]) * sum;
  }
}

// dx = y (dy - sum(dy y)) with y = exp(log_y)
template <class T>
void softmax_backward(double* dx, const T* dy, const double* log_y, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i, dx += cols, dy += cols, log_y += cols) {
    double sum = 0;
    for (int64_t j = 0; j < cols; ++j) sum += static_cast<double>(dy[j]) * std::exp(log_y[j]);
    for (int64_t j = 0; j < cols; ++j) dx[j] = std::exp(log_y[j]) * (static_cast<double>(dy[j]) - sum);
  }
}

// loss[rows] and its gradient dlogits[rows, cols], not reduced
template <class T>
void cross_entropy(double* loss, double* dlogits, const T* logits, const int64_t* target, const T* weight,
                   int64_t ignore_index, double smoothing, int64_t rows, int64_t cols) {
  log_softmax(dlogits, logits, rows, cols);
  for (int64_t i = 0; i < rows; ++i, dlogits += cols) {
    const bool ignored = target[i] == ignore_index;
    const auto q = [&](int64_t j) {
      const double even = smoothing / static_cast<double>(cols) + (j == target[i] ? 1 - smoothing : 0);
      return even * (weight != nullptr ? static_cast<double>(weight[j]) : 1);
    };
    double total = 0;
    for (int64_t j = 0; j < cols; ++j) total += q(j);
    loss[i] = 0;
    for (int64_t j = 0; j < cols; ++j) {
      if (!ignored) loss[i] -= q(j) * dlogits[j];
      dlogits[j] = ignored ? 0 : total * std::exp(dlogits[j]) - q(j);
    }
  }
}

// One element of each elementwise loss, and its derivative by x.
inline void mse(double& loss, double& dx, double x, double target) {
  loss = (x - target) * (x - target);
  dx = 2 * (x - target);
}
inline void bce_with_logits(double& loss, double& dx, double x, double target) {
  loss = std::max(x, 0.0) - x * target + std::log1p(std::exp(-std::abs(x)));
  dx = 1 / (1 + std::exp(-x)) - target;
}
inline void hinge(double& loss, double& dx, double x, double target) {
  loss = std::max(1 - target * x, 0.0);
  dx = 1 - target * x <= 0 ? 0 : -target;
}

inline void kl_div(double& loss, double& dx, double x, double target) {
  loss = target == 0 ? 0 : target * (std::log(target) - x);
  dx = -target;
}
inline void kl_div_log_target(double& loss, double& dx, double x, double target) {
  loss = std::exp(target) * (target - x);
  dx = -std::exp(target);
}
inline void smooth_l1(double& loss, double& dx, double x, double target, double beta) {
  const double d = x - target;
  loss = std::abs(d) < beta ? d * d / (2 * beta) : std::abs(d) - beta / 2;
  dx = std::abs(d) < beta ? d / beta : (d > 0) - (d < 0);
}

}  // namespace pynn::reference
