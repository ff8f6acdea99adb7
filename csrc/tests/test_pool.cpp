#include <limits>

#include "harness.h"
#include "ops/pool.h"
#include "reference/pool.h"

using namespace pynn;
using namespace pynn::test;

namespace {

PoolAxis axis(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  int64_t out = room / stride + 1;
  if (ceil_mode && room % stride != 0 && out * stride < size + padding) ++out;
  return {size, out, kernel, stride, padding, dilation};
}

struct Case {
  PoolShape shape;
  int64_t planes;
  int64_t in() const { return planes * shape.rows.size * shape.columns.size; }
  int64_t out() const { return planes * shape.rows.out * shape.columns.out; }
};

// Dilation is for max_pool2d alone.
std::vector<Case> cases(int64_t dilation) {
  std::vector<Case> all;
  for (const bool ceil_mode : {false, true}) {
    for (const int64_t width : {2, 3, 5, 8, 14, 15, 28, 31, 33, 64, 67}) {
      all.push_back({{axis(7, 2, 2, 0, 1, ceil_mode), axis(width, 2, 2, 0, 1, ceil_mode)}, 3});
    }
    for (const int64_t width : {5, 16, 17, 33, 70}) {
      for (const int64_t stride : {1, 2, 3, 4, 5}) {
        all.push_back({{axis(8, 3, stride, 1, 1, ceil_mode), axis(width, 3, stride, 1, 1, ceil_mode)}, 2});
        all.push_back(
            {{axis(11, 4, 1, 2, dilation, ceil_mode), axis(width + 4, 5, stride, 2, dilation, ceil_mode)}, 2});
      }
    }
    all.push_back({{axis(9, 3, 2, 1, dilation, ceil_mode), axis(12, 2, 3, 1, dilation, ceil_mode)}, 2});
    all.push_back({{axis(6, 2, 5, 1, dilation, ceil_mode), axis(5, 3, 1, 0, dilation, ceil_mode)}, 3});
    all.push_back({{axis(20, 17, 3, 8, 1, ceil_mode), axis(19, 16, 2, 5, 1, ceil_mode)}, 2});
  }
  all.push_back({{axis(40, 2, 2, 0, 1, false), axis(40, 2, 2, 0, 1, false)}, 70});  // more than one thread's share
  all.push_back({{axis(40, 3, 2, 1, dilation, false), axis(40, 3, 2, 1, dilation, false)}, 70});
  return all;
}

template <class T, class Index>
void check_max_pool(const Case& c) {
  Guarded<T> x = random_array<T>(c.in()), y(c.out()), want_y(c.out()), dx(c.in(), T(7));
  for (int64_t i = 0; i < c.in(); ++i) x[i] = std::round(x[i] * 4);  // ties
  for (int64_t i = 0; i < c.in(); i += 13) x[i] = std::numeric_limits<T>::quiet_NaN();
  for (int64_t i = 1; i < c.in(); i += 5) x[i] = -std::numeric_limits<T>::infinity();
  const Guarded<T> dy = random_array<T>(c.out());
  Guarded<Index> indices(c.out()), want_indices(c.out());
  Guarded<double> want_dx(c.in());
  ops::max_pool2d(y.data(), indices.data(), x.data(), c.shape, c.planes);
  reference::max_pool2d(want_y.data(), want_indices.data(), x.data(), c.shape, c.planes);
  check_close(y, want_y, 0, "max_pool2d");
  check_close(indices, want_indices, 0, "max_pool2d indices");
  CHECK(ops::max_pool2d_backward(dx.data(), dy.data(), indices.data(), c.shape, c.planes));
  reference::max_pool2d_backward(want_dx.data(), dy.data(), indices.data(), c.shape, c.planes);
  check_close(dx, want_dx, rounding<T>(9), "max_pool2d dx");
}

}  // namespace

TEST_CASE_TEMPLATE("max_pool2d and its backward equal the naive ones, ties, NaN and infinities too", T, float, double) {
  for (const int64_t dilation : {1, 2}) {
    for (const Case& c : cases(dilation)) {
      if (c.shape.rows.kernel * c.shape.columns.kernel <= 256) {
        check_max_pool<T, uint8_t>(c);
      } else {
        check_max_pool<T, int32_t>(c);
      }
    }
  }
}

TEST_CASE("max_pool2d gives -inf and index 0 where a window sees padding alone") {
  const Case c{{axis(2, 2, 1, 3, 6, false), axis(2, 1, 1, 0, 1, false)}, 1};
  REQUIRE(c.shape.rows.out == 2);
  check_max_pool<float, uint8_t>(c);
}

TEST_CASE_TEMPLATE("max_pool2d_backward refuses an index outside the window", T, float, double) {
  for (const int64_t stride : {1, 2}) {
    const Case c{{axis(6, 2, stride, 0, 1, false), axis(6, 2, stride, 0, 1, false)}, 2};
    const Guarded<T> dy = random_array<T>(c.out());
    Guarded<T> dx(c.in());
    Guarded<uint8_t> indices(c.out(), 3);
    CHECK(ops::max_pool2d_backward(dx.data(), dy.data(), indices.data(), c.shape, c.planes));
    indices[c.out() - 1] = 4;
    CHECK_FALSE(ops::max_pool2d_backward(dx.data(), dy.data(), indices.data(), c.shape, c.planes));
  }
  const Case c{{axis(17, 17, 1, 0, 1, false), axis(17, 17, 1, 0, 1, false)}, 1};
  const Guarded<T> dy = random_array<T>(c.out());
  Guarded<T> dx(c.in());
  for (const int32_t index : {-1, 289}) {
    const Guarded<int32_t> indices(c.out(), index);
    CHECK_FALSE(ops::max_pool2d_backward(dx.data(), dy.data(), indices.data(), c.shape, c.planes));
  }
}

TEST_CASE_TEMPLATE("avg_pool2d and its backward equal the naive ones", T, float, double) {
  for (const bool count_include_pad : {true, false}) {
    for (const Case& c : cases(1)) {
      const double taps = double(c.shape.rows.kernel * c.shape.columns.kernel);
      const Guarded<T> x = random_array<T>(c.in()), dy = random_array<T>(c.out());
      Guarded<T> y(c.out()), dx(c.in(), T(7));
      Guarded<double> want_y(c.out()), want_dx(c.in());
      ops::avg_pool2d(y.data(), x.data(), c.shape, count_include_pad, c.planes);
      reference::avg_pool2d(want_y.data(), x.data(), c.shape, count_include_pad, c.planes);
      check_close(y, want_y, rounding<T>(taps), "avg_pool2d");
      ops::avg_pool2d_backward(dx.data(), dy.data(), c.shape, count_include_pad, c.planes);
      reference::avg_pool2d_backward(want_dx.data(), dy.data(), c.shape, count_include_pad, c.planes);
      check_close(dx, want_dx, rounding<T>(taps), "avg_pool2d dx");
    }
  }
}
