#include "harness.h"
#include "ops/conv.h"
#include "ops/conv_pool.h"
#include "ops/conv_winograd.h"
#include "ops/pool.h"
#include "reference/conv.h"
#include "reference/winograd.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

ops::ConvAxis axis(int64_t size, int64_t before = 0, int64_t after = 0) {
  return {size, 3, size + before + after - 2, 1, before, 1};
}

// Rows and columns of tiles around the lanes of every set, odd sizes, paddings of each side, numbers of channels and
// outputs around those of the products' blocks, groups, tasks of parts of an image and of several images.
std::vector<ops::ConvShape> shapes() {
  std::vector<ops::ConvShape> all;
  for (const int64_t width : {3, 4, 5, 7, 9, 10, 11, 17, 18, 19, 33, 34, 35, 36, 67}) {
    all.push_back({2, 2, 3, 1, axis(6), axis(width)});
    all.push_back({2, 2, 3, 1, axis(5, 1, 1), axis(width, 1, 1)});
  }
  for (const int64_t outputs : {1, 7, 8, 13, 15, 16, 17, 31, 33}) {
    all.push_back({1, 4, outputs, 1, axis(7, 1, 0), axis(8, 0, 1)});
    all.push_back({1, outputs, 4, 1, axis(7, 0, 2), axis(8, 2, 0)});
  }
  all.push_back({2, 6, 9, 3, axis(6, 1, 1), axis(7, 1, 1)});
  all.push_back({3, 2, 3, 1, axis(1, 1, 1), axis(1, 1, 1)});
  all.push_back({2, 2, 3, 1, axis(3, 4, 5), axis(2, 5, 3)});
  all.push_back({37, 3, 5, 1, axis(9, 1, 1), axis(9, 1, 1)});
  all.push_back({2, 40, 33, 1, axis(30, 1, 1), axis(26)});
  return all;
}

// Shapes for which the operations choose it, in both directions. Those of one image and group are cut by outputs.
std::vector<ops::ConvShape> chosen_shapes() {
  return {{3, 32, 64, 1, axis(26), axis(26)},
          {1, 32, 64, 1, axis(26), axis(26)},
          {1, 64, 83, 1, axis(27), axis(26, 1, 1)},
          {1, 96, 128, 1, axis(14, 1, 1), axis(30, 1, 1)},
          {2, 48, 32, 1, axis(15, 1, 1), axis(36, 1, 1)},
          {1, 64, 64, 2, axis(33, 1, 1), axis(27, 1, 1)},
          {9, 64, 65, 1, axis(13, 1, 1), axis(13, 1, 1)}};
}

int64_t x_size(const ops::ConvShape& s) { return s.images * s.channels * s.rows.size * s.columns.size; }
int64_t y_size(const ops::ConvShape& s) { return s.images * s.outputs * s.rows.out * s.columns.out; }
int64_t weight_size(const ops::ConvShape& s) { return s.outputs * (s.channels / s.groups) * 9; }

std::string name(const ops::ConvShape& s) {
  return std::to_string(s.images) + " images, " + std::to_string(s.channels) + " to " + std::to_string(s.outputs) +
         " channels, " + std::to_string(s.rows.size) + " x " + std::to_string(s.columns.size) + " with padding " +
         std::to_string(s.rows.padding) + " to " + std::to_string(s.rows.out) + " x " + std::to_string(s.columns.out);
}

// Of a tile's sums over channels, of magnitude 1: an output adds nine of them, each of up to four pixels by a filter
// of up to 9 / 4, and each of the three transforms rounds up to four additions.
template <class T>
double winograd_rounding(int64_t channels) {
  return rounding<T>(double(channels + 12), 9);
}

template <class T>
void check_conv(const ops::ConvShape& s) {
  const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
  const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(y_size(s));
  const ops::AxisPlan rows = ops::forward_plan(s.rows), columns = ops::forward_plan(s.columns);
  const ops::AxisPlan rows_back = ops::backward_plan(s.rows), columns_back = ops::backward_plan(s.columns);
  Guarded<T> y(y_size(s), T(7)), dx(x_size(s), T(7));
  Guarded<double> want_y(y.size()), want_dx(dx.size()), dweight(weight.size()), dbias(s.outputs);
  const T* const none = nullptr;
  ops::correlate_winograd<T>({y.data(), nullptr, bias.data()}, x.data(), none, weight.data(),
                             ops::forward_job(rows, columns, s));
  reference::conv2d(want_y.data(), x.data(), weight.data(), bias.data(), s);
  check_close(y, want_y, winograd_rounding<T>(s.channels / s.groups), "y of " + name(s));
  ops::correlate_winograd<T>({dx.data()}, dy.data(), none, weight.data(),
                             ops::backward_job(rows_back, columns_back, s));
  reference::conv2d_backward(want_dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(), weight.data(), s);
  check_close(dx, want_dx, winograd_rounding<T>(s.outputs / s.groups), "dx of " + name(s));
}

}  // namespace

TEST_CASE_TEMPLATE("the transforms of Winograd equal the naive ones", T, float, double) {
  const WinogradKernels<T>& kernel = kernels<T>().winograd;
  const int64_t lanes = kernel.lanes, taps[9] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
  double want[16];
  for (const int64_t size : kSizes) {
    const int64_t step = 2 * size + 3;
    const Guarded<T> g = random_array<T>(2 * 9 * size);
    Guarded<T> u(16 * step);
    kernel.filters(u.data(), step, g.data(), taps, 2, size);
    for (int64_t at = 0; at < 2 * size; ++at) {
      reference::winograd_transform(want, reference::kFilterTransform, [&](int64_t i, int64_t j) {
        return static_cast<double>(g[(at / size * 9 + taps[3 * i + j]) * size + at % size]);
      });
      for (int64_t p = 0; p < 16; ++p) CHECK(std::abs(double(u[p * step + at]) - want[p]) <= rounding<T>(4));
    }

    const int64_t row = 2 * size + 2, in_step = 2 * size + lanes;
    const Guarded<T> x = random_array<T>(6 * row);
    const BeforeNoAccess<T> placed(x);
    Guarded<T> in(16 * in_step);
    kernel.input(in.data(), in_step, placed.data(), row, 2, size);
    for (int64_t tile = 0; tile < 2 * size; ++tile) {
      reference::winograd_transform(want, reference::kInputTransform, [&](int64_t i, int64_t j) {
        return static_cast<double>(x[(tile / size * 2 + i) * row + tile % size * 2 + j]);
      });
      for (int64_t p = 0; p < 16; ++p) CHECK(std::abs(double(in[p * in_step + tile]) - want[p]) <= rounding<T>(4));
    }

    const Guarded<T> sums = random_array<T>(16 * in_step);
    for (const int64_t odd : {0, 1}) {  // a last row and column less
      const int64_t height = 4 - odd, width = 2 * size - odd;
      Guarded<T> y(height * width);
      kernel.output(y.data(), {height, width, 0, 0, width, 1}, sums.data(), in_step, {nullptr, false, false, nullptr});
      for (int64_t at = 0; at < y.size(); ++at) {
        const int64_t r = at / width, c = at % width;
        reference::winograd_transform(want, reference::kOutputTransform, [&](int64_t i, int64_t j) {
          return static_cast<double>(sums[(4 * i + j) * in_step + r / 2 * size + c / 2]);
        });
        CHECK(std::abs(double(y[at]) - want[2 * (r % 2) + c % 2]) <= rounding<T>(9));
      }
    }
  }
}

TEST_CASE_TEMPLATE("convolution by Winograd equals the naive one, forward and backward", T, float, double) {
  for (const ops::ConvShape& s : shapes()) check_conv<T>(s);
}

TEST_CASE_TEMPLATE("conv2d and its gradient choose Winograd where it pays", T, float, double) {
  for (const ops::ConvShape& s : chosen_shapes()) {
    const ops::AxisPlan rows = ops::forward_plan(s.rows), columns = ops::forward_plan(s.columns);
    const ops::AxisPlan rows_back = ops::backward_plan(s.rows), columns_back = ops::backward_plan(s.columns);
    CHECK_MESSAGE(ops::winograd_pays<T>(ops::forward_job(rows, columns, s)), name(s));
    CHECK_MESSAGE(ops::winograd_pays<T>(ops::backward_job(rows_back, columns_back, s)), name(s));
    check_conv<T>(s);
  }
  const ops::ConvShape few{128, 1, 32, 1, axis(28), axis(28)};
  const ops::AxisPlan rows = ops::forward_plan(few.rows), columns = ops::forward_plan(few.columns);
  CHECK(!ops::winograd_pays<T>(ops::forward_job(rows, columns, few)));
}

TEST_CASE_TEMPLATE("Winograd with ReLU and pooling equals the chain, for any number of threads", T, float, double) {
  const int threads = num_threads();
  for (const ops::ConvShape& s : chosen_shapes()) {
    const PoolShape pool{{s.rows.out, s.rows.out / 2, 2, 2, 0, 1}, {s.columns.out, s.columns.out / 2, 2, 2, 0, 1}};
    const int64_t planes = s.images * s.outputs, pooled = planes * pool.rows.out * pool.columns.out;
    const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
    const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(y_size(s));
    const T* const none = nullptr;
    T* const nowhere = nullptr;
    set_num_threads(1);
    Guarded<T> want_y(y_size(s)), want_pooled(pooled), dz(y_size(s)), want_dx(x_size(s));
    Guarded<uint8_t> want_indices(pooled);
    ops::conv2d(want_y.data(), x.data(), weight.data(), bias.data(), false, s);
    for (int64_t i = 0; i < want_y.size(); ++i) {
      want_y[i] = std::max(want_y[i], T(0));
      dz[i] = want_y[i] > T(0) ? dy[i] : T(0);
    }
    ops::max_pool2d(want_pooled.data(), want_indices.data(), want_y.data(), pool, planes);
    ops::conv2d_backward(want_dx.data(), nowhere, nowhere, dz.data(), none, none, weight.data(), false, s);
    for (const int n : {1, 2, 5}) {
      set_num_threads(n);
      Guarded<T> y(y_size(s)), max(pooled), dx(x_size(s));
      Guarded<uint8_t> indices(pooled);
      ops::conv2d(y.data(), x.data(), weight.data(), bias.data(), true, s);
      ops::conv2d_max_pool2d(max.data(), indices.data(), x.data(), weight.data(), bias.data(), true, s);
      ops::conv2d_backward(dx.data(), nowhere, nowhere, dy.data(), y.data(), none, weight.data(), true, s);
      check_close(y, want_y, 0, "y of " + name(s));
      check_close(max, want_pooled, 0, "maxima of " + name(s));
      ops::conv2d_max_pool2d(max.data(), nullptr, x.data(), weight.data(), bias.data(), true, s);
      check_close(max, want_pooled, 0, "the maxima alone of " + name(s));
      check_close(dx, want_dx, 0, "dx of " + name(s));
      for (int64_t i = 0; i < pooled; ++i) REQUIRE(indices[i] == want_indices[i]);
    }
  }
  set_num_threads(threads);
}
