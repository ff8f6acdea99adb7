// Activations and their gradients: in the L2 cache, and beyond it.
#include "ops/elementwise.h"

#include <cmath>

#include "bench/bench.h"
#include "runtime/dispatch.h"

namespace pynn::bench {
namespace {

using Kernels = ElementwiseKernels<float>;

struct Activation {
  const char* name;
  Kernels::Unary Kernels::* forward;
  double (*naive)(double x);
  Kernels::UnaryBackward Kernels::* backward;
  double (*derivative)(double x);
  bool backward_of_y;  // the gradient takes the output, not the input
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu(double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }
double normal_density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0)); }

const Activation kActivations[] = {
    {"relu", &Kernels::relu, [](double x) { return x > 0 ? x : 0; }, &Kernels::relu_backward,
     [](double x) { return x > 0 ? 1.0 : 0.0; }, true},
    {"sigmoid", &Kernels::sigmoid, sigmoid, &Kernels::sigmoid_backward,
     [](double x) { return sigmoid(x) * sigmoid(-x); }, true},
    {"tanh", &Kernels::tanh, [](double x) { return std::tanh(x); }, &Kernels::tanh_backward,
     [](double x) { return 1 - std::tanh(x) * std::tanh(x); }, true},
    {"gelu", &Kernels::gelu, gelu, &Kernels::gelu_backward,
     [](double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)) + x * normal_density(x); }, false},
    {"exp", &Kernels::exp, [](double x) { return std::exp(x); }, nullptr, nullptr, false},
};
constexpr int64_t kSizes[] = {int64_t(1) << 15, int64_t(1) << 18, int64_t(1) << 22};
constexpr double kRounding = 8;  // roundings of a function made of a polynomial and a few operations

Work make_forward(const Activation& f, int64_t size) {
  const Array<float> x = random_array(size, -4, 4), y(size);
  const auto run = [=, &f] {
    const Kernels::Unary kernel = kernels<float>().elementwise.*f.forward;
    ops::for_elements(size, [&](int64_t begin, int64_t end) { kernel(&y[begin], &x[begin], end - begin); });
  };
  const auto check = [=, &f] {
    for (int64_t i = 0; i < size; ++i) {
      const double want = f.naive(static_cast<double>(x[i]));
      expect_close(&y[i], &want, 1, kRounding, std::abs(want) + 1);
    }
  };
  return {run, check};
}

Work make_backward(const Activation& f, int64_t size) {
  const Array<float> x = random_array(size, -4, 4), dy = random_array(size), dx(size), saved(size);
  for (int64_t i = 0; i < size; ++i) {
    saved[i] = f.backward_of_y ? static_cast<float>(f.naive(static_cast<double>(x[i]))) : x[i];
  }
  const auto run = [=, &f] {
    const Kernels::UnaryBackward kernel = kernels<float>().elementwise.*f.backward;
    ops::for_elements(size,
                      [&](int64_t begin, int64_t end) { kernel(&dx[begin], &dy[begin], &saved[begin], end - begin); });
  };
  const auto check = [=, &f] {
    for (int64_t i = 0; i < size; ++i) {
      const double want = static_cast<double>(dy[i]) * f.derivative(static_cast<double>(x[i]));
      expect_close(&dx[i], &want, 1, kRounding);
    }
  };
  return {run, check};
}

}  // namespace

void add_elementwise_cases() {
  for (const Activation& f : kActivations) {
    for (const int64_t size : kSizes) {
      const std::string shape = "/" + std::to_string(size);
      add_case(f.name + shape, {0, 2 * 4 * size}, [&f, size] { return make_forward(f, size); });
      if (f.backward == nullptr) continue;
      add_case(f.name + ("_backward" + shape), {0, 3 * 4 * size}, [&f, size] { return make_backward(f, size); });
    }
  }
}

}  // namespace pynn::bench
