#include "ops/reduction.h"

#include <limits>

#include "harness.h"
#include "reference/reduction.h"

using namespace pynn;
using namespace pynn::test;

namespace {

struct Size {
  int64_t outer, n, inner;
};

// Rows and columns around the lane counts, beyond one chunk, and beyond one block of columns.
std::vector<Size> sizes() {
  std::vector<Size> all = {{3, 4096, 1}, {3, 4097, 1}, {1, 70001, 1}, {5000, 3, 1},   {2, 256, 5},  {2, 257, 5},
                           {1, 3000, 7}, {3, 2, 2048}, {3, 2, 2049},  {1, 300, 2100}, {400, 5, 33}, {1, 1, 1}};
  for (const int64_t n : kSizes) {
    all.push_back({3, n, 1});
    all.push_back({2, 5, n});
  }
  return all;
}

// The axes outer, n, inner, of which the middle one is reduced.
struct MiddleAxes {
  int64_t shape[3];
  bool reduced[3] = {false, true, false};
  explicit MiddleAxes(Size s) : shape{s.outer, s.n, s.inner} {}
  ops::Axes get() const { return {shape, reduced, 3, shape[1], shape[0] * shape[2]}; }
};

}  // namespace

TEST_CASE_TEMPLATE("sum, mean and var equal the naive ones", T, float, double) {
  for (const Size s : sizes()) {
    const MiddleAxes axes(s);
    const int64_t kept = s.outer * s.inner;
    const Guarded<T> x = random_array<T>(s.outer * s.n * s.inner, -1, 1);
    Guarded<T> y(kept);
    Guarded<double> want(kept);
    const auto n = static_cast<double>(s.n);
    reference::reduce(want.data(), 0, x.data(), s.outer, s.n, s.inner, reference::sum_step);
    ops::sum(y.data(), x.data(), axes.get());
    check_close(y, want, rounding<T>(n), "sum");
    for (int64_t i = 0; i < kept; ++i) want[i] /= n;
    ops::mean(y.data(), x.data(), axes.get());
    check_close(y, want, rounding<T>(n, 1 / n), "mean");
    for (const int64_t correction : {0, 1}) {
      if (s.n == correction) continue;
      reference::var(want.data(), x.data(), correction, s.outer, s.n, s.inner);
      ops::var(y.data(), x.data(), correction, axes.get());
      check_close(y, want, rounding<T>(2 * n, 1 / (n - static_cast<double>(correction))), "var");
    }
  }
}

TEST_CASE_TEMPLATE("max, min and argmax equal the naive ones, with NaN and ties", T, float, double) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const Size s : sizes()) {
    const MiddleAxes axes(s);
    const int64_t kept = s.outer * s.inner;
    Guarded<T> x = random_array<T>(s.outer * s.n * s.inner, -20, 20);
    for (int64_t i = 0; i < x.size(); ++i) x[i] = std::round(x[i]);
    for (const bool with_nan : {false, true}) {
      if (with_nan) {
        for (int i = 0; i < 3; ++i) x[static_cast<int64_t>(generator()() % static_cast<uint64_t>(x.size()))] = T(NAN);
      }
      Guarded<T> y(kept);
      Guarded<double> want(kept);
      Guarded<int64_t> index(kept), want_index(kept);
      reference::reduce(want.data(), -kInfinity, x.data(), s.outer, s.n, s.inner, reference::max_step);
      ops::max(y.data(), x.data(), axes.get());
      check_close(y, want, 0, "max");
      reference::reduce(want.data(), kInfinity, x.data(), s.outer, s.n, s.inner, reference::min_step);
      ops::min(y.data(), x.data(), axes.get());
      check_close(y, want, 0, "min");
      reference::argmax(want_index.data(), x.data(), s.outer, s.n, s.inner);
      ops::argmax(index.data(), x.data(), {s.outer, s.n, s.inner});
      check_close(index, want_index, 0, "argmax");
    }
  }
}

TEST_CASE_TEMPLATE("reductions of nothing", T, float, double) {
  const MiddleAxes axes({2, 0, 3});
  Guarded<T> y(6, T(7));
  const Guarded<double> zero(6, 0), nan(6, NAN);
  ops::sum<T>(y.data(), nullptr, axes.get());
  check_close(y, zero, 0, "sum");
  ops::mean<T>(y.data(), nullptr, axes.get());
  check_close(y, nan, 0, "mean");
  ops::var<T>(y.data(), nullptr, 0, axes.get());
  check_close(y, nan, 0, "var");
}

TEST_CASE_TEMPLATE("axes apart from one another are reduced as one", T, float, double) {
  // [a, b, c, d] over a and c, the short and the long way round.
  for (const int64_t c : {2, 40}) {
    const int64_t a = 5, b = 7, d = 3, count = a * c, kept = b * d;
    const int64_t shape[4] = {a, b, c, d};
    const bool reduced[4] = {true, false, true, false};
    const ops::Axes axes{shape, reduced, 4, count, kept};
    const Guarded<T> x = random_array<T>(count * kept, 1, 3), dy = random_array<T>(kept);
    Guarded<T> rows(count * kept), y(kept), largest(kept), dx(count * kept);  // rows [b, d, a, c]
    Guarded<double> want(kept), means(kept), want_dx(count * kept);
    const auto offset = [&](int64_t row, int64_t term) {
      return ((term / c * b + row / d) * c + term % c) * d + row % d;
    };
    for (int64_t row = 0; row < kept; ++row) {
      for (int64_t term = 0; term < count; ++term) rows[row * count + term] = x[offset(row, term)];
    }
    const auto n = static_cast<double>(count);
    reference::reduce(want.data(), 0, rows.data(), kept, count, 1, reference::sum_step);
    ops::sum(y.data(), x.data(), axes);
    check_close(y, want, rounding<T>(n, 3), "sum");
    for (int64_t row = 0; row < kept; ++row) means[row] = want[row] / n;
    reference::var(want.data(), rows.data(), 1, kept, count, 1);
    ops::var(y.data(), x.data(), 1, axes);
    check_close(y, want, rounding<T>(2 * n, 4 / n), "var");
    reference::reduce(want.data(), -1e30, rows.data(), kept, count, 1, reference::max_step);
    ops::max(largest.data(), x.data(), axes);
    check_close(largest, want, 0, "max");

    ops::var_backward(dx.data(), dy.data(), x.data(), 1, axes);
    for (int64_t row = 0; row < kept; ++row) {
      for (int64_t term = 0; term < count; ++term) {
        const int64_t i = offset(row, term);
        want_dx[i] = static_cast<double>(dy[row]) * 2 * (static_cast<double>(x[i]) - means[row]) / (n - 1);
      }
    }
    check_close(dx, want_dx, rounding<T>(n, 6 / n), "var_backward");
  }
}

TEST_CASE_TEMPLATE("ties share the gradient of an extremum", T, float, double) {
  for (const Size s : sizes()) {
    const MiddleAxes axes(s);
    const int64_t kept = s.outer * s.inner;
    Guarded<T> x = random_array<T>(s.outer * s.n * s.inner, -2, 2);
    for (int64_t i = 0; i < x.size(); ++i) x[i] = std::round(x[i]);
    x[0] = T(NAN);
    const Guarded<T> dy = random_array<T>(kept);
    Guarded<T> y(kept), dx(x.size()), want(x.size());
    ops::max(y.data(), x.data(), axes.get());
    ops::extremum_backward(dx.data(), dy.data(), x.data(), y.data(), axes.get());
    for (int64_t i = 0; i < s.outer; ++i) {
      for (int64_t j = 0; j < s.inner; ++j) {
        const T best = y[i * s.inner + j];
        const auto chosen = [&](int64_t k) {
          const T value = x[(i * s.n + k) * s.inner + j];
          return value == best || (std::isnan(value) && std::isnan(best));
        };
        int64_t ties = 0;
        for (int64_t k = 0; k < s.n; ++k) ties += chosen(k);
        for (int64_t k = 0; k < s.n; ++k) {
          if (chosen(k)) want[(i * s.n + k) * s.inner + j] = dy[i * s.inner + j] / static_cast<T>(ties);
        }
      }
    }
    check_close(dx, want, 0, "extremum_backward");
  }
}
