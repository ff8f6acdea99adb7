#include <limits>

#include "harness.h"
#include "reference/elementwise.h"

using namespace pynn;
using namespace pynn::test;

namespace {

// Values at which comparisons, exponents and signs go wrong, repeated to n.
template <class T>
Guarded<T> special_array(int64_t n) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> special = {0.0,    -0.0, infinity, -infinity, NAN,    1e-40,
                                       -1e-40, 1.0,  -1.0,     88.8,      -103.5, 2.0};
  Guarded<T> x(n);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(special[static_cast<size_t>(i) % special.size()]);
  return x;
}

template <class T, class Reference>
void check_unary(const char* name, typename ElementwiseKernels<T>::Unary kernel, double low, double high,
                 const Reference& reference, bool special = true) {
  for (const int64_t n : kSizes) {
    for (const bool extreme : {false, true}) {
      if (extreme && !special) continue;
      const Guarded<T> x = extreme ? special_array<T>(n) : random_array<T>(n, low, high);
      Guarded<T> y(n), in_place = x;
      Guarded<double> want(n);
      double largest = 1;
      for (int64_t i = 0; i < n; ++i) {
        want[i] = static_cast<double>(static_cast<T>(reference(static_cast<double>(x[i]))));
        if (std::isfinite(want[i])) largest = std::max(largest, std::abs(want[i]));
      }
      kernel(y.data(), x.data(), n);
      check_close(y, want, rounding<T>(2, largest), name);
      kernel(in_place.data(), in_place.data(), n);
      check_close(in_place, y, 0, std::string(name) + " in place");
    }
  }
}

template <class T, class Reference>
void check_backward(const char* name, typename ElementwiseKernels<T>::UnaryBackward kernel, double low, double high,
                    const Reference& reference, double terms = 2) {
  for (const int64_t n : kSizes) {
    const Guarded<T> dy = random_array<T>(n), kept = random_array<T>(n, low, high);
    Guarded<T> dx(n);
    Guarded<double> want(n);
    double largest = 1;
    for (int64_t i = 0; i < n; ++i) {
      want[i] = reference(static_cast<double>(dy[i]), static_cast<double>(kept[i]));
      largest = std::max(largest, std::abs(want[i]));
    }
    kernel(dx.data(), dy.data(), kept.data(), n);
    check_close(dx, want, rounding<T>(terms, largest), name);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("elementwise kernels equal their naive twins", T, float, double) {
  const ElementwiseKernels<T>& kernel = kernels<T>().elementwise;
  check_unary<T>("neg", kernel.neg, -3, 3, [](double x) { return -x; });
  check_unary<T>("relu", kernel.relu, -3, 3, reference::relu);
  check_unary<T>("sigmoid", kernel.sigmoid, -20, 20, reference::sigmoid);
  check_unary<T>("tanh", kernel.tanh, -10, 10, reference::tanh);
  check_unary<T>("gelu", kernel.gelu, -6, 6, reference::gelu);
  check_unary<T>("gelu_tanh", kernel.gelu_tanh, -6, 6, reference::gelu_tanh);
  check_unary<T>("silu", kernel.silu, -20, 20, reference::silu);
  check_unary<T>("exp", kernel.exp, -5, 5, [](double x) { return std::exp(x); }, false);
  check_unary<T>("log", kernel.log, 1e-3, 1e3, [](double x) { return std::log(x); });
  check_unary<T>("sqrt", kernel.sqrt, 0, 9, [](double x) { return std::sqrt(x); });
  check_unary<T>("abs", kernel.abs, -3, 3, [](double x) { return std::abs(x); });
}

TEST_CASE_TEMPLATE("gradients of elementwise kernels equal their naive twins", T, float, double) {
  const ElementwiseKernels<T>& kernel = kernels<T>().elementwise;
  check_backward<T>("relu_backward", kernel.relu_backward, -1, 1, reference::relu_backward);
  check_backward<T>("sigmoid_backward", kernel.sigmoid_backward, 0, 1, reference::sigmoid_backward);
  check_backward<T>("tanh_backward", kernel.tanh_backward, -1, 1, reference::tanh_backward);
  check_backward<T>("gelu_backward", kernel.gelu_backward, -6, 6, reference::gelu_backward);
  check_backward<T>("gelu_tanh_backward", kernel.gelu_tanh_backward, -6, 6, reference::gelu_tanh_backward);
  check_backward<T>("silu_backward", kernel.silu_backward, -20, 20, reference::silu_backward);
  check_backward<T>("sqrt_backward", kernel.sqrt_backward, 0.1, 3, reference::sqrt_backward);
  check_backward<T>("abs_backward", kernel.abs_backward, -3, 3, reference::abs_backward);
}

TEST_CASE_TEMPLATE("the gradients of gelu stay finite far out", T, float, double) {
  const ElementwiseKernels<T>& kernel = kernels<T>().elementwise;
  const T infinity = std::numeric_limits<T>::infinity(), x[4] = {infinity, T(1e30), T(-1e30), -infinity};
  const T dy[4] = {1, 1, 1, 1};
  T dx[4];
  for (const auto backward : {kernel.gelu_backward, kernel.gelu_tanh_backward}) {
    backward(dx, dy, x, 4);
    for (int i = 0; i < 4; ++i) CHECK(dx[i] == (i < 2 ? T(1) : T(0)));
  }
}

TEST_CASE_TEMPLATE("leaky_relu and clip equal their naive twins", T, float, double) {
  const ElementwiseKernels<T>& kernel = kernels<T>().elementwise;
  for (const int64_t n : kSizes) {
    for (const Guarded<T>& x : {random_array<T>(n, -3, 3), special_array<T>(n)}) {
      const Guarded<T> dy = random_array<T>(n);
      Guarded<T> leaky(n), dleaky(n), clipped(n), dclipped(n);
      Guarded<double> want_leaky(n), want_dleaky(n), want_clipped(n), want_dclipped(n);
      for (int64_t i = 0; i < n; ++i) {
        const auto v = static_cast<double>(x[i]), d = static_cast<double>(dy[i]);
        want_leaky[i] = reference::leaky_relu(v, 0.25);
        want_dleaky[i] = reference::leaky_relu_backward(d, v, 0.25);
        want_clipped[i] = reference::clip(v, -0.5, 1);
        want_dclipped[i] = reference::clip_backward(d, v, -0.5, 1);
      }
      kernel.leaky_relu(leaky.data(), x.data(), T(0.25), n);
      kernel.leaky_relu_backward(dleaky.data(), dy.data(), x.data(), T(0.25), n);
      kernel.clip(clipped.data(), x.data(), T(-0.5), T(1), n);
      kernel.clip_backward(dclipped.data(), dy.data(), x.data(), T(-0.5), T(1), n);
      check_close(leaky, want_leaky, std::numeric_limits<T>::min(), "leaky_relu");  // exact, but for denormals
      check_close(dleaky, want_dleaky, 0, "leaky_relu_backward");
      check_close(clipped, want_clipped, 0, "clip");
      check_close(dclipped, want_dclipped, 0, "clip_backward");
    }
  }
}

TEST_CASE_TEMPLATE("elu and softplus equal their naive twins", T, float, double) {
  const ElementwiseKernels<T>& kernel = kernels<T>().elementwise;
  for (const int64_t n : kSizes) {
    Guarded<T> wide = random_array<T>(n, -30, 30), small = random_array<T>(n, -1e-3, 1e-3);
    for (const Guarded<T>& x : {wide, small, special_array<T>(n)}) {
      const Guarded<T> dy = random_array<T>(n);
      Guarded<T> elu(n), delu(n), softplus(n), dsoftplus(n);
      for (int64_t i = 0; i < n; ++i) elu[i] = x[i];  // in place
      kernel.elu(elu.data(), elu.data(), T(0.75), n);
      kernel.elu_backward(delu.data(), dy.data(), x.data(), T(0.75), n);
      kernel.softplus(softplus.data(), x.data(), T(2), T(20), n);
      kernel.softplus_backward(dsoftplus.data(), dy.data(), x.data(), T(2), T(20), n);
      for (int64_t i = 0; i < n; ++i) {
        const auto v = static_cast<double>(x[i]), d = static_cast<double>(dy[i]);
        const auto check = [&](T got, double want, double terms, const char* name) {
          // Relative: near 0 elu must keep the digits of x. Below the normal numbers a result may be 0.
          const double tolerance = rounding<T>(terms, std::abs(want)) + std::numeric_limits<T>::min();
          check_close(Guarded<T>(1, got), Guarded<double>(1, want), tolerance, name);
        };
        check(elu[i], reference::elu(v, 0.75), 2, "elu");
        check(delu[i], reference::elu_backward(d, v, 0.75), 1, "elu_backward");
        check(softplus[i], reference::softplus(v, 2, 20), 2, "softplus");
        check(dsoftplus[i], reference::softplus_backward(d, v, 2, 20), 2, "softplus_backward");
      }
    }
  }
}
