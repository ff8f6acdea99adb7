// How far the vectorised functions of simd/math.h are from the true values, in units in the last place.
#include <cmath>

#include "harness.h"

using namespace pynn;
using namespace pynn::test;

namespace {

constexpr int64_t kBatch = 4096;

// The distance of `want` to its neighbour among the floats, denormals included.
double ulp(double want) {
  int exponent;
  std::frexp(want, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

// The largest error over every 509th float, of both signs and all exponents, in units of the result or of the argument;
// infinities and NaN must be met exactly.
enum class Unit { result, argument };
template <class Kernel, class Reference>
double largest_error(const Kernel& kernel, const Reference& reference, Unit unit = Unit::result) {
  constexpr uint64_t kStep = 509, kFloats = uint64_t(1) << 32;
  Guarded<float> x(kBatch), y(kBatch);
  double largest = 0;
  for (uint64_t first = 0; first < kFloats; first += kStep * kBatch) {
    for (int64_t i = 0; i < kBatch; ++i) {
      const auto bits = static_cast<uint32_t>((first + kStep * static_cast<uint64_t>(i)) % kFloats);
      std::memcpy(&x[i], &bits, sizeof bits);
    }
    kernel(y.data(), x.data(), kBatch);
    for (int64_t i = 0; i < kBatch; ++i) {
      const double want = reference(static_cast<double>(x[i]));
      const auto rounded = static_cast<float>(want);
      const double size = unit == Unit::result ? want : static_cast<double>(x[i]);
      double error = std::abs(static_cast<double>(y[i]) - want) / ulp(size);
      if (!std::isfinite(rounded)) error = y[i] == rounded || (std::isnan(y[i]) && std::isnan(rounded)) ? 0 : INFINITY;
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

}  // namespace

TEST_CASE("exp, log, tanh and sigmoid are as accurate as simd/math.h says") {
  const ElementwiseKernels<float>& kernel = kernels<float>().elementwise;
  CHECK(largest_error(kernel.exp, [](double x) { return std::exp(x); }) <= 1.0);
  CHECK(largest_error(kernel.log, [](double x) { return std::log(x); }) <= 0.9);
  CHECK(largest_error(kernel.tanh, [](double x) { return std::tanh(x); }) <= 1.4);
  CHECK(largest_error(kernel.sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }) <= 2.4);
}

TEST_CASE("the tanh of gates is as accurate as simd/math.h says") {
  std::vector<float> z(4 * kBatch), gates(4 * kBatch), c_prev(kBatch), c(kBatch), h(kBatch);
  const auto cell_gate = [&](float* y, const float* x, int64_t n) {
    REQUIRE(n == kBatch);
    std::copy(x, x + n, z.begin() + 2 * n);
    kernels<float>().recurrent.lstm(h.data(), c.data(), gates.data(), z.data(), c_prev.data(), {n, 4 * n, 1, n});
    std::copy(gates.begin() + 2 * n, gates.begin() + 3 * n, y);
  };
  CHECK(largest_error(cell_gate, [](double x) { return std::tanh(x); }) <= 2.5);
}

TEST_CASE("softplus, and log1p in it, are accurate to two units in the last place") {
  const auto kernel = [](float* y, const float* x, int64_t n) {
    kernels<float>().elementwise.softplus(y, x, 1.0f, 1e30f, n);
  };
  const auto softplus = [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); };
  CHECK(largest_error(kernel, [&](double x) { return std::isnan(x) ? x : softplus(x); }) <= 2.0);
}

TEST_CASE("gelu and its approximation by tanh are accurate to the units of x that kernels/elementwise.cpp says") {
  const ElementwiseKernels<float>& kernel = kernels<float>().elementwise;
  const auto gelu = [](double x) {
    return std::isinf(x) ? (x > 0 ? x : NAN) : 0.5 * x * std::erfc(-x * std::sqrt(0.5));
  };
  CHECK(largest_error(kernel.gelu, gelu, Unit::argument) <= 4);
  const auto gelu_tanh = [](double x) {
    return std::isinf(x) ? (x > 0 ? x : NAN)
                         : x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  };
  CHECK(largest_error(kernel.gelu_tanh, gelu_tanh, Unit::argument) <= 1.9);
}
