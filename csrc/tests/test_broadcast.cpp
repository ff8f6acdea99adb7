#include <cmath>

#include "harness.h"
#include "ops/broadcast.h"
#include "reference/elementwise.h"

using namespace pynn;
using namespace pynn::test;

namespace {

using Shape = std::vector<int64_t>;

int64_t size_of(const Shape& shape) {
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  return size;
}

// The element of an operand that element i of the output sees, found the slow way.
int64_t source(int64_t i, const Shape& shape, const Shape& operand) {
  int64_t index = 0, stride = 1;
  for (size_t a = 1; a <= shape.size(); ++a) {
    const int64_t at = i % shape[shape.size() - a];
    i /= shape[shape.size() - a];
    if (a > operand.size()) continue;
    const int64_t n = operand[operand.size() - a];
    if (n != 1) index += at * stride;
    stride *= n;
  }
  return index;
}

struct Case {
  Shape shape, a, b;
};

// All the ways to be repeated: not at all, along rows, columns, both, in the middle; short and long rows; sizes that go
// to several threads by rows, by columns, and tiled.
const std::vector<Case> kCases = {{{}, {}, {}},
                                  {{1}, {1}, {}},
                                  {{17}, {17}, {17}},
                                  {{33}, {33}, {1}},
                                  {{33}, {}, {33}},
                                  {{5, 7}, {5, 1}, {1, 7}},
                                  {{5, 7}, {1, 7}, {5, 1}},
                                  {{6, 1, 9}, {6, 1, 9}, {9}},
                                  {{700, 3}, {700, 3}, {3}},
                                  {{700, 3}, {3}, {700, 3}},
                                  {{20000, 3}, {20000, 3}, {3}},
                                  {{4, 6, 25}, {4, 6, 25}, {6, 1}},
                                  {{3, 2, 4, 5}, {3, 1, 4, 1}, {2, 1, 5}},
                                  {{2, 40000}, {2, 40000}, {40000}},
                                  {{2, 40000}, {2, 1}, {2, 40000}},
                                  {{300, 130}, {300, 130}, {300, 1}},
                                  {{300, 130}, {300, 130}, {300, 130}},
                                  {{0, 4}, {0, 4}, {4}}};

ops::Broadcast<2> pair(const Case& c) {
  const auto ndim = [](const Shape& s) { return static_cast<int>(s.size()); };
  return {c.shape.data(), ndim(c.shape), {c.a.data(), c.b.data()}, {ndim(c.a), ndim(c.b)}};
}

// Halves of small integers: ties and zeros occur, and every operation but pow and division is exact.
template <class T>
Guarded<T> halves(int64_t n, double low = -4, double high = 4) {
  Guarded<T> x = random_array<T>(n, low, high);
  for (int64_t i = 0; i < n; ++i) x[i] = std::round(x[i] * 2) / 2;
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("binary kernels broadcast as NumPy does", T, float, double) {
  const BroadcastKernels<T>& kernel = kernels<T>().broadcast;
  struct Operation {
    const char* name;
    typename BroadcastKernels<T>::Binary kernel;
    double (*reference)(double, double);
  };
  const std::vector<Operation> operations = {{"add", kernel.add, [](double a, double b) { return a + b; }},
                                             {"sub", kernel.sub, [](double a, double b) { return a - b; }},
                                             {"mul", kernel.mul, [](double a, double b) { return a * b; }},
                                             {"div", kernel.div, [](double a, double b) { return a / b; }},
                                             {"maximum", kernel.maximum, reference::maximum},
                                             {"minimum", kernel.minimum, reference::minimum},
                                             {"equal", kernel.equal, [](double a, double b) {
                                                return a == b || (std::isnan(a) && std::isnan(b)) ? 1.0 : 0.0;
                                              }}};
  for (const Case& c : kCases) {
    const int64_t n = size_of(c.shape);
    Guarded<T> a = halves<T>(size_of(c.a)), b = halves<T>(size_of(c.b));
    if (a.size() > 2) a[a.size() / 2] = static_cast<T>(NAN);
    if (b.size() > 2) b[b.size() - 1] = static_cast<T>(NAN);
    for (const Operation& op : operations) {
      Guarded<T> y(n), want(n);
      for (int64_t i = 0; i < n; ++i) {
        want[i] = static_cast<T>(op.reference(static_cast<double>(a[source(i, c.shape, c.a)]),
                                              static_cast<double>(b[source(i, c.shape, c.b)])));
      }
      ops::binary(op.kernel, y.data(), a.data(), b.data(), pair(c));
      check_close(y, want, 0, op.name);
    }
  }
}

TEST_CASE_TEMPLATE("gradients of maximum, minimum and pow equal their naive twins", T, float, double) {
  const BroadcastKernels<T>& kernel = kernels<T>().broadcast;
  for (const Case& c : kCases) {
    const int64_t n = size_of(c.shape);
    const Guarded<T> a = halves<T>(size_of(c.a), 0, 4), b = halves<T>(size_of(c.b), -2, 4), dy = random_array<T>(n);
    Guarded<T> y(n), da(n), db(n);
    ops::pow(y.data(), a.data(), b.data(), b.size(), pair(c));
    const auto check = [&](const char* name, const auto& reference, double terms) {
      for (int64_t i = 0; i < n; ++i) {
        const reference::Pair want =
            reference(static_cast<double>(dy[i]), static_cast<double>(a[source(i, c.shape, c.a)]),
                      static_cast<double>(b[source(i, c.shape, c.b)]));
        const auto close = [&](double got, double expected) {
          const double tolerance = rounding<T>(terms, std::abs(expected));
          return got == expected || (std::isnan(got) && std::isnan(expected)) || std::abs(got - expected) <= tolerance;
        };
        const bool good = close(static_cast<double>(da[i]), want.a) && close(static_cast<double>(db[i]), want.b);
        if (!good) {
          CHECK_MESSAGE(good, name << " of " << dy[i] << ", " << a[source(i, c.shape, c.a)] << ", "
                                   << b[source(i, c.shape, c.b)] << ": " << da[i] << " and " << db[i] << ", expected "
                                   << want.a << " and " << want.b << " (seed " << seed() << ")");
          return;
        }
      }
    };
    ops::binary_backward(kernel.maximum_backward, da.data(), db.data(), dy.data(), a.data(), b.data(), pair(c));
    check("maximum_backward", reference::maximum_backward, 0);
    ops::binary_backward(kernel.minimum_backward, da.data(), db.data(), dy.data(), a.data(), b.data(), pair(c));
    check("minimum_backward", reference::minimum_backward, 0);
    ops::pow_backward(da.data(), db.data(), dy.data(), a.data(), b.data(), y.data(), pair(c));
    check("pow_backward", reference::pow_backward, 2);
  }
}

TEST_CASE_TEMPLATE("pow equals the naive one, exponents without a pow included", T, float, double) {
  for (const double exponent : {2.0, 3.0, 1.0, 0.5, -1.0, 0.0, 1.7, -2.0}) {
    for (const int64_t n : {1, 33, 40001}) {
      const Guarded<T> a = random_array<T>(n, 0.1, 3);
      const auto b = static_cast<T>(exponent);
      Guarded<T> y(n);
      Guarded<double> want(n);
      for (int64_t i = 0; i < n; ++i) want[i] = std::pow(static_cast<double>(a[i]), static_cast<double>(b));
      const Shape shape = {n};
      ops::pow(y.data(), a.data(), &b, 1, {shape.data(), 1, {shape.data(), nullptr}, {1, 0}});
      check_close(y, want, rounding<T>(1, 100), "pow");
    }
  }
}

TEST_CASE_TEMPLATE("pow has one answer for zeros, infinities and NaN, however many exponents there are", T, float,
                   double) {
  constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const T bases[] = {T(0), T(-0.0), inf, -inf, nan, T(1), T(-1), T(2), T(-2)};
  constexpr int64_t kBases = 9, n = 40;  // whole vectors and a tail
  const Shape shape = {n};
  for (const T exponent : {T(0), T(-0.0), T(1), T(-1), T(2), T(-2), T(3), T(0.5), T(-0.5), T(1.5), inf, -inf, nan}) {
    Guarded<T> a(n), y(n);
    const Guarded<T> b(n, exponent);
    for (int64_t i = 0; i < n; ++i) a[i] = bases[i % kBases];
    const auto check = [&] {
      for (int64_t i = 0; i < n; ++i) {
        const T want = std::pow(a[i], exponent);
        const bool good =
            std::isnan(want) ? std::isnan(y[i]) : y[i] == want && std::signbit(y[i]) == std::signbit(want);
        CHECK_MESSAGE(good, a[i] << " to the power of " << exponent << " is " << y[i] << ", expected " << want);
      }
    };
    ops::pow(y.data(), a.data(), b.data(), n, {shape.data(), 1, {shape.data(), shape.data()}, {1, 1}});
    check();
    ops::pow(y.data(), a.data(), &exponent, 1, {shape.data(), 1, {shape.data(), nullptr}, {1, 0}});
    check();
  }
}

TEST_CASE_TEMPLATE("where, its gradient and broadcast_to equal naive loops", T, float, double) {
  for (const Case& c : kCases) {
    const int64_t n = size_of(c.shape), ndim = static_cast<int64_t>(c.shape.size());
    const auto axes = [](const Shape& s) { return static_cast<int>(s.size()); };
    for (const Shape& condition_shape : {c.shape, c.a, c.b, Shape{}}) {
      Guarded<bool> condition(size_of(condition_shape));
      for (int64_t i = 0; i < condition.size(); ++i) condition[i] = generator()() % 2 == 0;
      const Guarded<T> a = random_array<T>(size_of(c.a)), b = random_array<T>(size_of(c.b)), dy = random_array<T>(n);
      Guarded<T> y(n), want(n), da(n), want_da(n), db(n), want_db(n), wide(n), want_wide(n);
      for (int64_t i = 0; i < n; ++i) {
        const bool which = condition[source(i, c.shape, condition_shape)];
        want_wide[i] = a[source(i, c.shape, c.a)];
        want[i] = which ? want_wide[i] : b[source(i, c.shape, c.b)];
        (which ? want_da : want_db)[i] = dy[i];
      }
      ops::where(y.data(), condition.data(), a.data(), b.data(),
                 {c.shape.data(),
                  static_cast<int>(ndim),
                  {condition_shape.data(), c.a.data(), c.b.data()},
                  {axes(condition_shape), axes(c.a), axes(c.b)}});
      check_close(y, want, 0, "where");
      ops::where_backward(da.data(), db.data(), dy.data(), condition.data(),
                          {c.shape.data(), static_cast<int>(ndim), {condition_shape.data()}, {axes(condition_shape)}});
      check_close(da, want_da, 0, "where_backward da");
      check_close(db, want_db, 0, "where_backward db");
      ops::broadcast_to(wide.data(), a.data(), {c.shape.data(), static_cast<int>(ndim), {c.a.data()}, {axes(c.a)}});
      check_close(wide, want_wide, 0, "broadcast_to");
    }
  }
}
