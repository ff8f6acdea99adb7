#include <thread>

#include "harness.h"
#include "ops/conv.h"
#include "ops/conv_pool.h"
#include "ops/pool.h"
#include "reference/conv.h"
#include "reference/elementwise.h"
#include "runtime/arena.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

ops::ConvAxis axis(int64_t size, int64_t kernel, int64_t stride = 1, int64_t before = 0, int64_t after = 0,
                   int64_t dilation = 1) {
  const int64_t room = size + before + after - dilation * (kernel - 1) - 1;
  return {size, kernel, room < 0 ? 0 : room / stride + 1, stride, before, dilation};
}

std::vector<ops::ConvShape> shapes() {
  std::vector<ops::ConvShape> all;
  // Every block of output channels and every filling of the last vector.
  for (int64_t outputs = 1; outputs <= 17; ++outputs) all.push_back({2, 2, outputs, 1, axis(5, 2), axis(9, 3)});
  for (const int64_t width : kSizes) all.push_back({1, 2, 5, 1, axis(4, 3, 1, 1, 1), axis(width, 3, 1, 1, 1)});
  for (const int64_t width : kSizes) all.push_back({1, 2, 5, 1, axis(5, 3, 2, 1, 1), axis(width + 3, 5, 2, 2, 1)});
  // Two vectors of output channels, and short rows, an even and an odd number of them.
  for (const int64_t size : {8, 13, 14}) {
    all.push_back({2, 2, 29, 1, axis(size, 5, 2, 2, 2), axis(size, 5, 2, 2, 2)});
    all.push_back({2, 29, 2, 1, axis(size - 1, 3, 2, 1, 1), axis(size, 3, 2, 1, 1)});
  }
  for (int64_t taps = 1; taps <= 13; ++taps) all.push_back({3, 1, 3, 1, axis(6, 1), axis(17, taps)});
  // LeNet, strides, paddings of each side, dilations, groups; taps that no output or input reaches.
  all.push_back({3, 1, 6, 1, axis(28, 5, 1, 2, 2), axis(28, 5, 1, 2, 2)});
  all.push_back({9, 6, 16, 1, axis(14, 5), axis(14, 5)});
  all.push_back({2, 3, 4, 1, axis(9, 3, 2, 1, 1), axis(8, 3, 2, 1, 1)});
  all.push_back({2, 3, 4, 1, axis(9, 3, 2, 0, 1), axis(10, 2, 3, 2, 0)});
  all.push_back({2, 3, 4, 1, axis(11, 1, 2), axis(12, 1, 3)});
  all.push_back({2, 2, 3, 1, axis(10, 3, 1, 2, 0, 3), axis(11, 2, 1, 0, 3, 4)});
  all.push_back({2, 2, 3, 1, axis(13, 3, 2, 1, 4, 3), axis(11, 4, 3, 5, 0, 2)});
  all.push_back({2, 2, 3, 1, axis(3, 2, 7, 5, 5), axis(4, 1, 9, 3, 6)});
  all.push_back({2, 2, 3, 1, axis(2, 3, 1, 6, 7), axis(3, 5, 1, 9, 2)});
  all.push_back({2, 6, 8, 2, axis(6, 3, 1, 1, 1), axis(7, 3, 2, 1, 1)});
  all.push_back({2, 5, 5, 5, axis(8, 3, 1, 1, 1), axis(20, 3, 1, 1, 1)});
  all.push_back({2, 3, 9, 3, axis(8, 3, 2, 1, 0), axis(8, 3, 2, 1, 0)});
  all.push_back({2, 3, 4, 1, axis(1, 1), axis(1, 1)});
  all.push_back({2, 3, 4, 1, axis(5, 5), axis(5, 5)});
  // Bands of rows, shares of the output channels, chunks of images.
  all.push_back({1, 3, 8, 1, axis(70, 3, 1, 1, 1), axis(60, 3, 1, 1, 1)});
  all.push_back({1, 40, 3, 1, axis(64, 3, 1, 1, 1), axis(70, 3, 1, 1, 1)});
  all.push_back({1, 64, 40, 1, axis(4, 3), axis(5, 3)});
  all.push_back({40, 3, 5, 1, axis(9, 3, 1, 1, 1), axis(9, 3, 1, 1, 1)});
  // Padding alone.
  all.push_back({2, 2, 3, 1, axis(4, 3, 2, 2, 2), axis(0, 3, 2, 2, 2)});
  all.push_back({2, 2, 3, 1, axis(0, 3, 2, 2, 2), axis(4, 3, 2, 2, 2)});
  // Nothing to do.
  all.push_back({0, 3, 4, 1, axis(5, 3), axis(5, 3)});
  all.push_back({2, 0, 4, 1, axis(5, 3), axis(5, 3)});
  all.push_back({2, 3, 0, 1, axis(5, 3), axis(5, 3)});
  return all;
}

int64_t x_size(const ops::ConvShape& s) { return s.images * s.channels * s.rows.size * s.columns.size; }
int64_t y_size(const ops::ConvShape& s) { return s.images * s.outputs * s.rows.out * s.columns.out; }
int64_t weight_size(const ops::ConvShape& s) {
  return s.outputs * (s.channels / s.groups) * s.rows.kernel * s.columns.kernel;
}

std::string name(const ops::ConvShape& s) {
  const auto text = [](const ops::ConvAxis& a) {
    return std::to_string(a.size) + "/" + std::to_string(a.kernel) + " stride " + std::to_string(a.stride) +
           " dilation " + std::to_string(a.dilation);
  };
  return std::to_string(s.images) + " images, " + std::to_string(s.channels) + " to " + std::to_string(s.outputs) +
         " channels, rows " + text(s.rows) + ", columns " + text(s.columns);
}

template <class T>
struct Gradients {
  Guarded<T> dx, dweight, dbias;
  explicit Gradients(const ops::ConvShape& s) : dx(x_size(s), T(7)), dweight(weight_size(s), T(7)), dbias(s.outputs) {}
};

}  // namespace

TEST_CASE_TEMPLATE("conv2d and its backward equal the naive ones", T, float, double) {
  for (const ops::ConvShape& s : shapes()) {
    const double taps = double(s.channels / s.groups * s.rows.kernel * s.columns.kernel);
    const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
    const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(y_size(s));
    for (const T* b : {bias.data(), static_cast<const T*>(nullptr)}) {
      Guarded<T> y(y_size(s), T(7));
      Guarded<double> want_y(y_size(s));
      ops::conv2d(y.data(), x.data(), weight.data(), b, false, s);
      reference::conv2d(want_y.data(), x.data(), weight.data(), b, s);
      check_close(y, want_y, rounding<T>(taps + 1), "conv2d of " + name(s));
    }
    const T* const none = nullptr;
    Gradients<T> got(s);
    Gradients<double> want(s);
    for (Guarded<double>* zeros : {&want.dx, &want.dweight, &want.dbias}) {
      for (int64_t i = 0; i < zeros->size(); ++i) (*zeros)[i] = 0;
    }
    ops::conv2d_backward(got.dx.data(), got.dweight.data(), got.dbias.data(), dy.data(), none, x.data(), weight.data(),
                         false, s);
    reference::conv2d_backward(want.dx.data(), want.dweight.data(), want.dbias.data(), dy.data(), x.data(),
                               weight.data(), s);
    const double pixels = double(s.images * s.rows.out * s.columns.out);
    check_close(got.dx, want.dx, rounding<T>(taps * double(s.outputs)), "dx of " + name(s));
    check_close(got.dweight, want.dweight, rounding<T>(pixels), "dweight of " + name(s));
    check_close(got.dbias, want.dbias, rounding<T>(pixels), "dbias of " + name(s));
  }
}

TEST_CASE_TEMPLATE("convolutions read nothing behind their input", T, float, double) {
  for (const ops::ConvShape& s :
       {ops::ConvShape{3, 1, 1, 1, axis(1, 1), axis(1, 1)}, ops::ConvShape{5, 1, 1, 1, axis(2, 1), axis(2, 1)},
        ops::ConvShape{4, 1, 2, 1, axis(3, 2), axis(3, 2)}, ops::ConvShape{4, 3, 3, 3, axis(1, 1), axis(3, 1)},
        ops::ConvShape{3, 1, 1, 1, axis(2, 1), axis(2, 1)}, ops::ConvShape{2, 1, 6, 1, axis(6, 5), axis(6, 5)},
        ops::ConvShape{4, 1, 2, 1, axis(5, 2), axis(5, 2)}, ops::ConvShape{3, 2, 3, 1, axis(16, 3), axis(33, 2)}}) {
    const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
    const BeforeNoAccess<T> placed(x);
    const T* const no_bias = nullptr;
    Guarded<T> y(y_size(s)), want(y_size(s));
    ops::conv2d(y.data(), placed.data(), weight.data(), no_bias, false, s);
    ops::conv2d(want.data(), x.data(), weight.data(), no_bias, false, s);
    check_close(y, want, 0, "conv2d of " + name(s));
    if (s.rows.out < 2 || s.columns.out < 2) continue;
    const int64_t pooled = s.images * s.outputs * (s.rows.out / 2) * (s.columns.out / 2);
    Guarded<T> maxima(pooled), want_maxima(pooled);
    Guarded<uint8_t> indices(pooled), want_indices(pooled);
    ops::conv2d_max_pool2d(maxima.data(), indices.data(), placed.data(), weight.data(), no_bias, true, s);
    ops::conv2d_max_pool2d(want_maxima.data(), want_indices.data(), x.data(), weight.data(), no_bias, true, s);
    check_close(maxima, want_maxima, 0, "conv2d_max_pool2d of " + name(s));
  }
}

TEST_CASE_TEMPLATE("conv2d of images without columns reads nothing in front of them", T, float, double) {
  const ops::ConvShape s{1, 1, 1, 1, axis(4, 3, 2, 2, 2), axis(0, 3, 2, 2, 2)};
  Guarded<T> in_front(8, T(9)), weight(weight_size(s), T(1)), y(y_size(s), T(7));
  ops::conv2d(y.data(), in_front.data() + 8, weight.data(), static_cast<const T*>(nullptr), false, s);
  for (int64_t i = 0; i < y.size(); ++i) CHECK(y[i] == T(0));
}

TEST_CASE_TEMPLATE("conv2d_backward computes any one of its gradients alone", T, float, double) {
  const ops::ConvShape s{3, 4, 6, 2, axis(7, 3, 2, 1, 1), axis(9, 3, 1, 1, 1)};
  const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
  const Guarded<T> dy = random_array<T>(y_size(s));
  T* const none = nullptr;
  Gradients<T> all(s), alone(s);
  ops::conv2d_backward(all.dx.data(), all.dweight.data(), all.dbias.data(), dy.data(), none, x.data(), weight.data(),
                       false, s);
  ops::conv2d_backward<T>(alone.dx.data(), none, none, dy.data(), none, nullptr, weight.data(), false, s);
  ops::conv2d_backward<T>(none, alone.dweight.data(), none, dy.data(), none, x.data(), nullptr, false, s);
  ops::conv2d_backward<T>(none, none, alone.dbias.data(), dy.data(), none, nullptr, nullptr, false, s);
  check_close(alone.dx, all.dx, 0, "dx alone");
  check_close(alone.dweight, all.dweight, 0, "dweight alone");
  check_close(alone.dbias, all.dbias, 0, "dbias alone");
}

TEST_CASE_TEMPLATE("conv2d gives the same bits for any number of threads", T, float, double) {
  const int threads = num_threads();
  for (const ops::ConvShape& s : {ops::ConvShape{37, 5, 9, 1, axis(12, 3, 1, 1, 1), axis(13, 3, 1, 1, 1)},
                                  ops::ConvShape{1, 12, 20, 1, axis(40, 3, 2, 1, 1), axis(37, 3, 1, 1, 1)},
                                  ops::ConvShape{2, 24, 24, 24, axis(30, 3, 1, 1, 1), axis(30, 3, 1, 1, 1)}}) {
    const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
    const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(y_size(s));
    Guarded<T> first_y(y_size(s));
    Gradients<T> first(s);
    for (const int n : {1, 2, 5}) {
      set_num_threads(n);
      Guarded<T> y(y_size(s));
      Gradients<T> got(s);
      ops::conv2d(y.data(), x.data(), weight.data(), bias.data(), false, s);
      ops::conv2d_backward(got.dx.data(), got.dweight.data(), got.dbias.data(), dy.data(), y.data(), x.data(),
                           weight.data(), false, s);
      if (n > 1) {
        check_close(y, first_y, 0, "y of " + name(s));
        check_close(got.dx, first.dx, 0, "dx of " + name(s));
        check_close(got.dweight, first.dweight, 0, "dweight of " + name(s));
        check_close(got.dbias, first.dbias, 0, "dbias of " + name(s));
      } else {
        std::memcpy(first_y.data(), y.data(), static_cast<size_t>(y.size()) * sizeof(T));
        std::memcpy(first.dx.data(), got.dx.data(), static_cast<size_t>(got.dx.size()) * sizeof(T));
        std::memcpy(first.dweight.data(), got.dweight.data(), static_cast<size_t>(got.dweight.size()) * sizeof(T));
        std::memcpy(first.dbias.data(), got.dbias.data(), static_cast<size_t>(got.dbias.size()) * sizeof(T));
      }
    }
  }
  set_num_threads(threads);
}

// In a thread of its own, whose scratch is new.
TEST_CASE_TEMPLATE("dilation does not multiply what a pooled convolution takes", T, float, double) {
  const int before = num_threads();
  set_num_threads(1);
  const ops::ConvShape s{1, 1, 192, 1, axis(40, 3), axis(400, 3, 1, 100, 100, 100)};
  const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
  const int64_t pooled = s.outputs * (s.rows.out / 2) * (s.columns.out / 2);
  Guarded<T> y(pooled);
  Guarded<uint8_t> indices(pooled);
  std::thread([&] {
    const int64_t in_use = arena::stats().bytes_in_use;
    ops::conv2d_max_pool2d(y.data(), indices.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), true, s);
    CHECK(arena::stats().bytes_in_use - in_use < 32 * x.size() * static_cast<int64_t>(sizeof(T)));
  }).join();
  set_num_threads(before);
}

// The fused operations against the chain that they stand for, whose parts are tested above and in test_pool.cpp.
TEST_CASE_TEMPLATE("conv2d with relu equals conv2d, then relu", T, float, double) {
  for (const ops::ConvShape& s : shapes()) {
    const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
    const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(y_size(s));
    Guarded<T> y(y_size(s)), want_y(y_size(s)), dz(y_size(s));
    ops::conv2d(y.data(), x.data(), weight.data(), bias.data(), true, s);
    ops::conv2d(want_y.data(), x.data(), weight.data(), bias.data(), false, s);
    for (int64_t i = 0; i < y.size(); ++i) {
      want_y[i] = static_cast<T>(reference::relu(want_y[i]));
      dz[i] = static_cast<T>(reference::relu_backward(dy[i], want_y[i]));
    }
    check_close(y, want_y, 0, "conv2d with relu of " + name(s));
    Gradients<T> got(s), want(s);
    const T* const none = nullptr;
    ops::conv2d_backward(got.dx.data(), got.dweight.data(), got.dbias.data(), dy.data(), y.data(), x.data(),
                         weight.data(), true, s);
    ops::conv2d_backward(want.dx.data(), want.dweight.data(), want.dbias.data(), dz.data(), none, x.data(),
                         weight.data(), false, s);
    check_close(got.dx, want.dx, 0, "dx with relu of " + name(s));
    check_close(got.dweight, want.dweight, 0, "dweight with relu of " + name(s));
    check_close(got.dbias, want.dbias, 0, "dbias with relu of " + name(s));
  }
}

TEST_CASE_TEMPLATE("conv2d_max_pool2d equals conv2d, then max_pool2d", T, float, double) {
  for (const ops::ConvShape& s : shapes()) {
    if (s.rows.out < 2 || s.columns.out < 2) continue;
    const PoolShape pool{{s.rows.out, s.rows.out / 2, 2, 2, 0, 1}, {s.columns.out, s.columns.out / 2, 2, 2, 0, 1}};
    const int64_t planes = s.images * s.outputs, pooled = planes * pool.rows.out * pool.columns.out;
    const double taps = double(s.channels / s.groups * s.rows.kernel * s.columns.kernel);
    const double pixels = double(s.images * s.rows.out * s.columns.out);
    for (const bool relu : {false, true}) {
      const Guarded<T> x = random_array<T>(x_size(s)), weight = random_array<T>(weight_size(s));
      const Guarded<T> bias = random_array<T>(s.outputs), dy = random_array<T>(pooled);
      Guarded<T> y(pooled), want_y(pooled), convolved(y_size(s)), dconvolved(y_size(s));
      Guarded<uint8_t> indices(pooled), want_indices(pooled);
      ops::conv2d_max_pool2d(y.data(), indices.data(), x.data(), weight.data(), bias.data(), relu, s);
      ops::conv2d(convolved.data(), x.data(), weight.data(), bias.data(), relu, s);
      ops::max_pool2d(want_y.data(), want_indices.data(), convolved.data(), pool, planes);
      check_close(y, want_y, 0, "conv2d_max_pool2d of " + name(s));
      for (int64_t i = 0; i < pooled; ++i) REQUIRE(indices[i] == want_indices[i]);
      Guarded<T> alone(pooled);
      ops::conv2d_max_pool2d(alone.data(), nullptr, x.data(), weight.data(), bias.data(), relu, s);
      check_close(alone, want_y, 0, "the maxima alone of " + name(s));

      // From one set of winners, since rounding may decide between two that are nearly equal.
      Gradients<T> got(s), want(s);
      REQUIRE(ops::conv2d_max_pool2d_backward(got.dx.data(), got.dweight.data(), got.dbias.data(), dy.data(),
                                              want_y.data(), want_indices.data(), x.data(), weight.data(), relu, s));
      REQUIRE(ops::max_pool2d_backward(dconvolved.data(), dy.data(), want_indices.data(), pool, planes));
      ops::conv2d_backward(want.dx.data(), want.dweight.data(), want.dbias.data(), dconvolved.data(), convolved.data(),
                           x.data(), weight.data(), relu, s);
      check_close(got.dx, want.dx, rounding<T>(taps * double(s.outputs)), "dx with pool of " + name(s));
      check_close(got.dweight, want.dweight, rounding<T>(pixels), "dweight with pool of " + name(s));
      check_close(got.dbias, want.dbias, rounding<T>(pixels), "dbias with pool of " + name(s));
    }
  }
}
