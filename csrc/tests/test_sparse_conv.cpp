#include <algorithm>

#include "harness.h"
#include "ops/conv_pool.h"
#include "ops/sparse_conv.h"
#include "reference/conv.h"
#include "runtime/counters.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

ops::ConvAxis axis(int64_t size, int64_t kernel, int64_t before = 0, int64_t after = 0) {
  return {size, kernel, size + before + after - kernel + 1, 1, before, 1};
}

std::vector<ops::ConvShape> shapes() {
  std::vector<ops::ConvShape> all;
  // Rows of taps of every number of vectors and half of one, kernels of every height.
  for (const int64_t channels : {1, 2, 3, 5, 8, 11, 16, 24, 31, 33}) {
    all.push_back({2, channels, 5, 1, axis(7, 3, 1, 1), axis(8, 3, 1, 1)});
  }
  for (int64_t kernel = 1; kernel <= 12; ++kernel) {
    all.push_back({2, 2, 3, 1, axis(13, kernel), axis(12, kernel, 2, 2)});
    all.push_back({2, 1, 3, 1, axis(13, kernel, 1, 1), axis(14, 3)});
  }
  // A pixel of the patch in whole vectors.
  for (const int64_t channels : {16, 32, 48}) {
    for (const int64_t kernel : {3, 5, 7}) {
      all.push_back({2, channels, 20, 1, axis(9, kernel, 2, 2), axis(10, kernel, 2, 2)});
    }
    all.push_back({1, channels, 3, 1, axis(9, 8), axis(9, 3)});
  }
  // Numbers of windows and outputs around those of lanes; odd sizes, paddings of each side and beyond the kernel.
  for (const int64_t width : kSizes) {
    if (width > 1) all.push_back({1, 3, 4, 1, axis(5, 2), axis(width + 1, 2)});
  }
  for (const int64_t outputs : {1, 7, 15, 16, 17, 33, 64, 65, 130}) {
    all.push_back({2, 4, outputs, 1, axis(6, 3), axis(7, 3)});
    all.push_back({2, 16, outputs, 1, axis(6, 3), axis(7, 3)});
  }
  all.push_back({2, 3, 4, 1, axis(7, 3, 0, 2), axis(9, 3, 2, 0)});
  for (const int64_t channels : {3, 17}) {  // whole rows of the image, but not all of them
    all.push_back({2, channels, 4, 1, axis(8, 3, 1, 0), axis(8, 3)});
  }
  all.push_back({2, 3, 4, 1, axis(3, 2, 4, 5), axis(2, 2, 5, 3)});
  all.push_back({2, 3, 4, 1, axis(1, 1, 2, 0), axis(1, 1, 0, 2)});
  // Strips of an image, several images at once, chunks of images.
  all.push_back({2, 32, 5, 1, axis(26, 3), axis(26, 3)});
  all.push_back({1, 3, 3, 1, axis(80, 3, 1, 1), axis(70, 3, 1, 1)});
  all.push_back({37, 1, 3, 1, axis(8, 5, 2, 2), axis(8, 5, 2, 2)});
  all.push_back({19, 6, 16, 1, axis(14, 5), axis(14, 5)});
  return all;
}

std::string name(const ops::ConvShape& s) {
  const auto text = [](const ops::ConvAxis& a) { return std::to_string(a.size) + "/" + std::to_string(a.kernel); };
  return std::to_string(s.images) + " images, " + std::to_string(s.channels) + " to " + std::to_string(s.outputs) +
         " channels, rows " + text(s.rows) + ", columns " + text(s.columns);
}

// A gradient of windows, and of all outputs of the convolution; `live`: the share of windows that are.
template <class T>
struct Example {
  ops::ConvShape shape;
  Guarded<T> x, weight, dy, y;
  Guarded<uint8_t> indices;
  Guarded<double> dense, dx, dweight, dbias;  // what is expected

  Example(const ops::ConvShape& s, double live)
      : shape(s),
        x(random_array<T>(s.images * s.channels * s.rows.size * s.columns.size)),
        weight(random_array<T>(s.outputs * s.channels * s.rows.kernel * s.columns.kernel)),
        dy(random_array<T>(s.images * s.outputs * (s.rows.out / 2) * (s.columns.out / 2))),
        y(random_array<T>(dy.size(), live - 1, live)),
        indices(dy.size()),
        dense(s.images * s.outputs * s.rows.out * s.columns.out),
        dx(x.size()),
        dweight(weight.size()),
        dbias(s.outputs) {
    const int64_t rows = s.rows.out / 2, columns = s.columns.out / 2;
    for (int64_t i = 0; i < dy.size(); ++i) {
      indices[i] = static_cast<uint8_t>(generator()() % 4);
      if (generator()() % 8 == 0) dy[i] = T(0);
      if (generator()() % 8 == 0) y[i] = T(0);
      const int64_t row = 2 * (i / columns % rows) + indices[i] / 2, column = 2 * (i % columns) + indices[i] % 2;
      const double d = y[i] > T(0) ? static_cast<double>(dy[i]) : 0.0;
      dense[(i / columns / rows * s.rows.out + row) * s.columns.out + column] = d;
    }
    const Guarded<double> exact_x = exact(x), exact_weight = exact(weight);
    reference::conv2d_backward(dx.data(), dweight.data(), dbias.data(), dense.data(), exact_x.data(),
                               exact_weight.data(), s);
  }

  static Guarded<double> exact(const Guarded<T>& a) {
    Guarded<double> b(a.size());
    std::copy(a.data(), a.data() + a.size(), b.data());
    return b;
  }
  PooledGradient<T> gradient() const { return {dy.data(), y.data(), indices.data()}; }
};

}  // namespace

TEST_CASE_TEMPLATE("the sparse gradients of a convolution equal the naive ones", T, float, double) {
  for (const ops::ConvShape& s : shapes()) {
    for (const double live : {0.02, 0.7, 1.0}) {
      const Example<T> e(s, live);
      Guarded<T> dx(e.dx.size(), T(7)), dweight(e.dweight.size(), T(7)), dbias(e.dbias.size(), T(7));
      ops::sparse_conv2d_backward_weight(dweight.data(), dbias.data(), e.gradient(), e.x.data(), s);
      ops::sparse_conv2d_backward_data(dx.data(), e.gradient(), e.weight.data(), s);
      const double windows = double(e.dy.size()) / double(s.outputs);
      check_close(dweight, e.dweight, rounding<T>(windows), "dweight of " + name(s));
      check_close(dbias, e.dbias, rounding<T>(windows), "dbias of " + name(s));
      check_close(dx, e.dx, rounding<T>(double(s.outputs * s.rows.kernel * s.columns.kernel)), "dx of " + name(s));
      Guarded<T> alone(e.dbias.size(), T(7));
      ops::sparse_conv2d_backward_weight<T>(nullptr, alone.data(), e.gradient(), nullptr, s);
      check_close(alone, dbias, 0, "dbias alone of " + name(s));
    }
  }
}

TEST_CASE_TEMPLATE("the sparse gradients of a convolution have the same bits for any number of threads", T, float,
                   double) {
  const int threads = num_threads();
  for (const ops::ConvShape& s : {ops::ConvShape{37, 5, 9, 1, axis(12, 3, 1, 1), axis(13, 3, 1, 1)},
                                  ops::ConvShape{5, 16, 20, 1, axis(20, 3), axis(19, 3)}}) {
    const Example<T> e(s, 0.7);
    Guarded<T> first_dx(e.dx.size()), first_dweight(e.dweight.size()), first_dbias(e.dbias.size());
    for (const int n : {1, 2, 3}) {
      set_num_threads(n);
      Guarded<T> dx(e.dx.size()), dweight(e.dweight.size()), dbias(e.dbias.size());
      ops::sparse_conv2d_backward_weight(dweight.data(), dbias.data(), e.gradient(), e.x.data(), s);
      ops::sparse_conv2d_backward_data(dx.data(), e.gradient(), e.weight.data(), s);
      if (n == 1) {
        std::copy(dx.data(), dx.data() + dx.size(), first_dx.data());
        std::copy(dweight.data(), dweight.data() + dweight.size(), first_dweight.data());
        std::copy(dbias.data(), dbias.data() + dbias.size(), first_dbias.data());
      }
      check_close(dx, first_dx, 0, "dx of " + name(s));
      check_close(dweight, first_dweight, 0, "dweight of " + name(s));
      check_close(dbias, first_dbias, 0, "dbias of " + name(s));
    }
  }
  set_num_threads(threads);
}

TEST_CASE("the backward of conv2d_max_pool2d takes the path that pays") {
  const auto paths = [](const ops::ConvShape& s) {
    const Example<float> e(s, 0.7);
    Guarded<float> dx(e.dx.size()), dweight(e.dweight.size()), dbias(e.dbias.size());
    reset_kernel_counts();
    REQUIRE(ops::conv2d_max_pool2d_backward(dx.data(), dweight.data(), dbias.data(), e.dy.data(), e.y.data(),
                                            e.indices.data(), e.x.data(), e.weight.data(), true, s));
    std::string taken;
    for (const auto& [path, count] : kernel_counts()) {
      const std::string prefix = "conv2d_max_pool2d_backward.";
      if (path.compare(0, prefix.size(), prefix) == 0) taken += path.substr(prefix.size()) + " ";
    }
    return taken;
  };
  CHECK(paths({2, 32, 64, 1, axis(26, 3), axis(26, 3)}) == "sparse_data sparse_weight ");
  CHECK(paths({2, 6, 16, 1, axis(14, 5), axis(14, 5)}) == "sparse_data sparse_weight ");
  CHECK(paths({2, 1, 6, 1, axis(28, 5, 2, 2), axis(28, 5, 2, 2)}) == "dense sparse_weight ");
  CHECK(paths({2, 2, 4, 2, axis(8, 3), axis(8, 3)}) == "dense ");
  CHECK(paths({2, 2, 4, 1, {9, 3, 4, 2, 0, 1}, axis(8, 3)}) == "dense ");
  CHECK(paths({2, 2, 4, 1, {9, 3, 5, 1, 0, 2}, axis(8, 3)}) == "dense ");
}

TEST_CASE_TEMPLATE("a NaN or infinite gradient behind a max-pool is not lost", T, float, double) {
  const ops::ConvShape s{1, 1, 1, 1, axis(3, 2), axis(3, 2)};
  const Guarded<T> x(9, T(1)), weight(4, T(1));
  for (const T value : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
    for (const T y : {T(1), std::numeric_limits<T>::quiet_NaN()}) {
      Guarded<T> dweight(4), dx(9);
      const uint8_t index = 3;
      const PooledGradient<T> gradient{&value, &y, &index};
      ops::sparse_conv2d_backward_weight<T>(dweight.data(), nullptr, gradient, x.data(), s);
      ops::sparse_conv2d_backward_data(dx.data(), gradient, weight.data(), s);
      for (int64_t i = 0; i < 4; ++i) CHECK(!std::isfinite(dweight[i]));
      for (const int64_t i : {4, 5, 7, 8}) CHECK(!std::isfinite(dx[i]));
    }
  }
}

TEST_CASE("an index outside of its window is refused, and written nowhere") {
  for (const int64_t stride : {1, 2}) {
    const ops::ConvShape s{1, 2, 3, 1, {9, 3, (9 - 3) / stride + 1, stride, 0, 1}, axis(9, 3)};
    Example<float> e(s, 0.7);
    Guarded<float> dx(e.dx.size()), dweight(e.dweight.size()), dbias(e.dbias.size());
    for (const uint8_t index : {4, 255}) {
      e.indices[e.indices.size() - 1] = index;
      CHECK(!ops::conv2d_max_pool2d_backward(dx.data(), dweight.data(), dbias.data(), e.dy.data(), e.y.data(),
                                             e.indices.data(), e.x.data(), e.weight.data(), true, s));
    }
  }
}
