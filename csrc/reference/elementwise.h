// The naive twins of the elementwise kernels, for one element, in double.
#pragma once

#include <cmath>

namespace pynn::reference {

inline double relu(double x) { return std::isnan(x) ? x : std::fmax(x, 0.0); }
inline double relu_backward(double dy, double y) { return y <= 0 ? 0 : dy; }

inline double leaky_relu(double x, double slope) { return x > 0 ? x : x * slope; }
inline double leaky_relu_backward(double dy, double x, double slope) { return x > 0 ? dy : dy * slope; }

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double sigmoid_backward(double dy, double y) { return dy * y * (1 - y); }

inline double tanh(double x) { return std::tanh(x); }
inline double tanh_backward(double dy, double y) { return dy * (1 - y * y); }

inline double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
inline double gelu_backward(double dy, double x) {
  const double density = std::exp(-0.5 * x * x) / std::sqrt(8 * std::atan(1.0));
  return dy * (0.5 * std::erfc(-x / std::sqrt(2.0)) + x * density);
}

inline double gelu_tanh_argument(double x) { return std::sqrt(0.5 / std::atan(1.0)) * (x + 0.044715 * x * x * x); }
inline double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(gelu_tanh_argument(x))); }
inline double gelu_tanh_backward(double dy, double x) {
  const double u = gelu_tanh_argument(x), sech = 1 / std::cosh(u);
  const double slope = std::sqrt(0.5 / std::atan(1.0)) * (1 + 3 * 0.044715 * x * x);
  return dy * (0.5 * (1 + std::tanh(u)) + 0.5 * x * sech * sech * slope);
}

inline double silu(double x) { return x * sigmoid(x); }
inline double silu_backward(double dy, double x) { return dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x)); }

inline double elu(double x, double alpha) { return x > 0 ? x : alpha * std::expm1(x); }
inline double elu_backward(double dy, double x, double alpha) { return x > 0 ? dy : dy * alpha * std::exp(x); }

inline double softplus(double x, double beta, double threshold) {
  return beta * x > threshold ? x : (std::fmax(beta * x, 0.0) + std::log1p(std::exp(-std::abs(beta * x)))) / beta;
}
inline double softplus_backward(double dy, double x, double beta, double threshold) {
  return beta * x > threshold ? dy : dy * sigmoid(beta * x);
}

inline double sqrt_backward(double dy, double y) { return dy / (2 * y); }
inline double abs_backward(double dy, double x) { return x > 0 ? dy : x < 0 ? -dy : dy * x; }

inline double clip(double x, double low, double high) { return std::isnan(x) ? x : std::fmin(std::fmax(x, low), high); }
inline double clip_backward(double dy, double x, double low, double high) { return low <= x && x <= high ? dy : 0; }

inline double maximum(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b); }
inline double minimum(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b); }

// The shares of dy that a and b get.
struct Pair {
  double a, b;
};
inline Pair maximum_backward(double dy, double a, double b) {
  return a > b ? Pair{dy, 0} : a == b ? Pair{dy / 2, dy / 2} : Pair{0, dy};
}
inline Pair minimum_backward(double dy, double a, double b) {
  return a < b ? Pair{dy, 0} : a == b ? Pair{dy / 2, dy / 2} : Pair{0, dy};
}
inline Pair pow_backward(double dy, double a, double b) {
  return {b == 0 ? 0 : dy * b * std::pow(a, b - 1), a == 0 && b >= 0 ? 0 : dy * std::pow(a, b) * std::log(a)};
}

}  // namespace pynn::reference
