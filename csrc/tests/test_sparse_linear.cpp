#include <algorithm>
#include <cstring>
#include <limits>

#include "harness.h"
#include "ops/gemm.h"
#include "ops/gemm_product.h"
#include "ops/sparse_linear.h"
#include "reference/gemm.h"
#include "runtime/arena.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

struct Size {
  int64_t rows, in, out;
};

// More than one panel of outputs, parts of a vector, of a group of rows, and of a block of the depth; more rows than
// outputs, which threads then share, and fewer.
const std::vector<Size> kLayers = {{16, 784, 100}, {21, 130, 128}, {200, 785, 50},
                                   {33, 200, 301}, {130, 67, 97},  {310, 70, 301}};
const Size kDeepLayer = {1500, 70, 700};  // more than one pass over the rows, and more than one group of panels
const std::vector<ops::Activation> kActivations = {ops::Activation::none, ops::Activation::relu,
                                                   ops::Activation::leaky_relu, ops::Activation::sigmoid,
                                                   ops::Activation::tanh};
const std::vector<int> kThreads = {1, 2, 3};

// An array of which one element in `every` is not 0, and whole columns are.
template <class T>
Guarded<T> mostly_zeros(int64_t rows, int64_t cols, uint64_t every) {
  Guarded<T> x = random_array<T>(rows * cols);
  for (int64_t i = 0; i < x.size(); ++i) {
    if (generator()() % every != 0 || i % cols % 7 == 3) x[i] = T(0);
  }
  return x;
}

template <class T>
void check_same(const Guarded<T>& got, const Guarded<T>& want, const std::string& what) {
  for (int64_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(T)) == 0 || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    FAIL_CHECK(what << ": element " << i << " is " << got[i] << " in place of " << want[i] << " ("
                    << std::string(isa_name(active_isa())) << ", seed " << seed() << ")");
    return;
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a layer whose input is mostly zeros has the bits of dense blocks, on any threads", T, float,
                   double) {
  const VectorBlocks blocks;
  // Of a weight stored [in, out] gemm multiplies blocks, in the order that the sparse ones keep.
  for (const Size s : kLayers) {
    const Guarded<T> x = mostly_zeros<T>(s.rows, s.in, 5), weight = random_array<T>(s.out * s.in),
                     bias = random_array<T>(s.out), columns = transposed(weight, s.out, s.in);
    for (const auto activation : {ops::Activation::none, ops::Activation::relu, ops::Activation::tanh}) {
      for (const T* b : {bias.data(), static_cast<const T*>(nullptr)}) {
        Guarded<T> want(s.rows * s.out);
        ops::gemm<T>({want.data(), s.out, x.data(), s.in, false, columns.data(), s.out, false, s.rows, s.out, s.in, b,
                      activation});
        for (const int threads : kThreads) {
          const Threads scope(threads);
          Guarded<T> y(s.rows * s.out);
          ops::sparse_linear(y.data(), x.data(), weight.data(), b, activation, s.rows, s.in, s.out);
          check_same(y, want, "sparse_linear");
        }
      }
    }
    Guarded<T> y(s.rows * s.out);
    Guarded<double> naive(s.rows * s.out);
    ops::sparse_linear(y.data(), x.data(), weight.data(), bias.data(), ops::Activation::none, s.rows, s.in, s.out);
    reference::gemm(naive.data(), x.data(), false, weight.data(), true, bias.data(), s.rows, s.out, s.in);
    check_close(y, naive, rounding<T>(double(s.in) + 1), "sparse_linear beside the naive product");
  }
}

TEST_CASE_TEMPLATE("so have the gradients of its weight", T, float, double) {
  const VectorBlocks blocks;
  std::vector<Size> layers = kLayers;
  layers.push_back(kDeepLayer);
  for (const Size s : layers) {
    const Guarded<T> x = mostly_zeros<T>(s.rows, s.in, 5), y = random_array<T>(s.rows * s.out),
                     dy = random_array<T>(s.rows * s.out);
    for (const auto activation : {ops::Activation::none, ops::Activation::relu}) {
      Guarded<T> dz = dy, want(s.out * s.in);
      for (int64_t i = 0; i < dz.size(); ++i) dz[i] = activation == ops::Activation::relu && y[i] <= 0 ? T(0) : dy[i];
      Guarded<T> want_dbias(s.out);
      ops::linear_dweight(want.data(), want_dbias.data(), dz.data(), s.out, x.data(), s.rows, s.in, s.out, false);
      Guarded<double> naive_dx(s.rows * s.in), naive(s.out * s.in), naive_dbias(s.out);
      reference::linear_backward(naive_dx.data(), naive.data(), naive_dbias.data(), dz.data(), x.data(),
                                 Guarded<T>(s.out * s.in).data(), s.rows, s.in, s.out);
      for (const int threads : kThreads) {
        const Threads scope(threads);
        Guarded<T> dweight(s.out * s.in), dbias(s.out);
        ops::sparse_dweight(dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), activation, s.rows, s.in,
                            s.out);
        check_same(dweight, want, "sparse_dweight");
        check_same(dbias, want_dbias, "dbias");
        check_close(dbias, naive_dbias, rounding<T>(double(s.rows)), "dbias");
        Guarded<T> again(s.out * s.in);
        ops::sparse_dweight(again.data(), static_cast<T*>(nullptr), dy.data(), y.data(), x.data(), activation, s.rows,
                            s.in, s.out);
        check_same(again, want, "sparse_dweight without dbias");
      }
      check_close(want, naive, rounding<T>(double(s.rows)), "the dense gradient beside the naive one");
    }
  }
}

TEST_CASE("NaN and infinity in a weight or gradient meet the zeros, and those of the input are no zeros") {
  const VectorBlocks blocks;
  const int64_t in = 150, out = 70;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Threads scope(2);
  for (const auto& [rows, value] : std::vector<std::pair<int64_t, float>>{
           {20, nan}, {20, infinity}, {20, -infinity}, {90, nan}, {90, infinity}, {90, -infinity}}) {
    Guarded<float> x = mostly_zeros<float>(rows, in, 5), weight = random_array<float>(out * in), y(rows * out);
    Guarded<float> dy = random_array<float>(rows * out), dweight(out * in), want(rows * out), want_dweight(out * in);
    Guarded<float> bias = random_array<float>(out), dbias(out), want_dbias(out), dz(rows * out);
    const auto compare = [&, rows = rows] {
      const Guarded<float> columns = transposed(weight, out, in);
      for (const auto activation : kActivations) {
        for (const bool biased : {true, false}) {
          const float* start = biased ? bias.data() : nullptr;
          ops::gemm<float>(
              {want.data(), out, x.data(), in, false, columns.data(), out, false, rows, out, in, start, activation});
          ops::sparse_linear<float>(y.data(), x.data(), weight.data(), start, activation, rows, in, out);
          check_same(y, want, "sparse_linear");
        }
        ops::activation_backward(activation, dz.data(), dy.data(), y.data(), rows * out);
        if (activation == ops::Activation::none) dz = dy;
        ops::linear_dweight(want_dweight.data(), want_dbias.data(), dz.data(), out, x.data(), rows, in, out, false);
        ops::sparse_dweight(dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), activation, rows, in, out);
        check_same(dweight, want_dweight, "sparse_dweight");
        check_same(dbias, want_dbias, "dbias");
      }
    };
    bias[3] = value;
    compare();
    bias[3] = -0.0f;
    weight[69 * in + 149] = value;  // the last column of outputs alone
    dy[19 * out + 69] = value;
    x[19 * in + 3] = 0;
    compare();
    ops::sparse_linear<float>(y.data(), x.data(), weight.data(), nullptr, ops::Activation::none, rows, in, out);
    ops::sparse_dweight<float>(dweight.data(), nullptr, dy.data(), y.data(), x.data(), ops::Activation::none, rows, in,
                               out);
    CHECK(std::isnan(dweight[69 * in + 3]));  // 0 times the value
    CHECK_FALSE(std::isfinite(y[69]));
    weight[69 * in + 149] = dy[19 * out + 69] = 1;
    x[5 * in + 10] = value;
    compare();
    ops::sparse_linear<float>(y.data(), x.data(), weight.data(), nullptr, ops::Activation::none, rows, in, out);
    CHECK_FALSE(std::isfinite(y[5 * out]));
  }
}

TEST_CASE_TEMPLATE("zeros keep their signs", T, float, double) {
  const VectorBlocks blocks;
  const int64_t rows = 160, in = 200, out = 150;
  Guarded<T> x = mostly_zeros<T>(rows, in, 5), weight = random_array<T>(out * in), bias(out, T(-0.0));
  for (int64_t j = 0; j < in; ++j) {
    weight[7 * in + j] = -std::abs(weight[7 * in + j]);  // all terms of a row of zeros are -0.0
    x[3 * in + j] = x[39 * in + j] = T(0);
    x[11 * in + j] = j % 3 == 0 ? std::numeric_limits<T>::denorm_min() : T(0);  // the terms vanish beside others
    weight[8 * in + j] = T(-0.25);
  }
  bias[8] = T(0);
  const Guarded<T> columns = transposed(weight, out, in);
  for (const auto activation : kActivations) {
    Guarded<T> want(rows * out);
    ops::gemm<T>(
        {want.data(), out, x.data(), in, false, columns.data(), out, false, rows, out, in, bias.data(), activation});
    for (const int threads : kThreads) {
      const Threads scope(threads);
      Guarded<T> y(rows * out);
      ops::sparse_linear(y.data(), x.data(), weight.data(), bias.data(), activation, rows, in, out);
      check_same(y, want, "sparse_linear");
    }
    if (activation == ops::Activation::none) {
      CHECK(std::signbit(want[3 * out + 7]));
      CHECK_FALSE(std::signbit(want[3 * out]));
    }
  }
  // Sums of gradients that vanish
  Guarded<T> dy(rows * out, -std::numeric_limits<T>::denorm_min()), dweight(out * in), want(out * in);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = std::abs(x[i]) / 4;
  ops::gemm<T>({want.data(), in, dy.data(), out, true, x.data(), in, false, out, in, rows});
  ops::sparse_dweight(dweight.data(), static_cast<T*>(nullptr), dy.data(), dy.data(), x.data(), ops::Activation::none,
                      rows, in, out);
  check_same(dweight, want, "sparse_dweight");
}

TEST_CASE_TEMPLATE("groups of rows without zeros have the same bits", T, float, double) {
  const VectorBlocks blocks;
  const int64_t rows = 185, in = 300, out = 137;
  Guarded<T> x = mostly_zeros<T>(rows, in, 5), weight = random_array<T>(out * in), dy = random_array<T>(rows * out);
  for (int64_t i = 0; i < x.size(); ++i) {
    if (i / in % 10 > 0) x[i] = i % in > 20 ? T(i % 7 + 1) : T(0);  // few of which are looked at
  }
  const Guarded<T> columns = transposed(weight, out, in);
  Guarded<T> want(rows * out), want_dweight(out * in), y(rows * out), dweight(out * in);
  ops::gemm<T>({want.data(), out, x.data(), in, false, columns.data(), out, false, rows, out, in, nullptr,
                ops::Activation::relu});
  ops::sparse_linear<T>(y.data(), x.data(), weight.data(), nullptr, ops::Activation::relu, rows, in, out);
  check_same(y, want, "sparse_linear");
  ops::gemm<T>({want_dweight.data(), in, dy.data(), out, true, x.data(), in, false, out, in, rows});
  ops::sparse_dweight<T>(dweight.data(), nullptr, dy.data(), y.data(), x.data(), ops::Activation::none, rows, in, out);
  check_same(dweight, want_dweight, "sparse_dweight");
}

TEST_CASE_TEMPLATE("the bits of a row do not depend on the zeros of other rows", T, float, double) {
  const VectorBlocks blocks;
  for (const Size s : {Size{33, 4096, 130}, {200, 2100, 50}, {130, 784, 50}, {64, 300, 140}, {40, 70, 300}}) {
    Guarded<T> x = mostly_zeros<T>(s.rows, s.in, 5), weight = random_array<T>(s.out * s.in), y(s.rows * s.out);
    Guarded<T> dense = x, want(s.rows * s.out), last(s.out), want_last(s.out);
    REQUIRE(ops::zeros_pay(x.data(), s.rows, s.in, s.out));
    for (int64_t i = 0; i < (s.rows - 1) * s.in; ++i) dense[i] = T(1);
    ops::linear<T>(y.data(), x.data(), weight.data(), nullptr, ops::Activation::none, s.rows, s.in, s.out);
    ops::linear<T>(want.data(), dense.data(), weight.data(), nullptr, ops::Activation::none, s.rows, s.in, s.out);
    for (int64_t j = 0; j < s.out; ++j) {
      last[j] = y[(s.rows - 1) * s.out + j];
      want_last[j] = want[(s.rows - 1) * s.out + j];
    }
    check_same(last, want_last, "linear");
  }
}

TEST_CASE("layers are computed that way if most of a large input is 0") {
  const int64_t rows = 64, in = 400, out = 128;
  CHECK(ops::zeros_pay(mostly_zeros<float>(rows, in, 5).data(), rows, in, out));
  CHECK_FALSE(ops::zeros_pay(mostly_zeros<float>(rows, in, 2).data(), rows, in, out));
  CHECK_FALSE(ops::zeros_pay(random_array<float>(rows * in).data(), rows, in, out));
  const Guarded<float> zeros(rows * in);
  CHECK(ops::zeros_pay(zeros.data(), rows, in, out));
  CHECK(ops::zeros_pay(zeros.data(), 32, in, out));
  CHECK_FALSE(ops::zeros_pay(zeros.data(), 8, in, out));
  CHECK_FALSE(ops::zeros_pay(zeros.data(), rows, in, 10));
  CHECK_FALSE(ops::zeros_pay(zeros.data(), rows, 20, out));
}

TEST_CASE("the zeros of an input are left out of its weight's gradient unless that has as many") {
  const int64_t rows = 64, in = 400, out = 128;
  const Guarded<float> zeros(rows * in), dy = random_array<float>(rows * out);
  const auto pays = [&](int64_t batch, int64_t outputs, int64_t apart) {  // every so many of the outputs are above 0
    Guarded<float> y(rows * out);
    for (int64_t i = 0; i < y.size(); i += apart) y[i] = 1;
    return ops::dweight_zeros_pay(zeros.data(), ops::Activation::relu, dy.data(), y.data(), batch, in, outputs);
  };
  CHECK(pays(rows, out, 1));
  CHECK(pays(rows, out, 2));
  CHECK_FALSE(pays(rows, out, 4));
  CHECK_FALSE(pays(32, out, 1));
  CHECK_FALSE(pays(rows, 15, 1));
}

TEST_CASE_TEMPLATE("linear and its backward are the naive ones where the input is mostly zeros", T, float, double) {
  const int64_t rows = 130, in = 300, out = 100;
  const Guarded<T> x = mostly_zeros<T>(rows, in, 6), weight = random_array<T>(out * in), bias = random_array<T>(out),
                   dy = random_array<T>(rows * out);
  REQUIRE(ops::dweight_zeros_pay<T>(x.data(), ops::Activation::none, dy.data(), nullptr, rows, in, out));
  Guarded<T> y(rows * out), dz(rows * out);
  Guarded<double> want_y(rows * out), want_dx(rows * in), want_dweight(out * in), want_dbias(out);
  ops::linear(y.data(), x.data(), weight.data(), bias.data(), ops::Activation::relu, rows, in, out);
  reference::gemm(want_y.data(), x.data(), false, weight.data(), true, bias.data(), rows, out, in);
  for (int64_t i = 0; i < y.size(); ++i) {
    want_y[i] = std::max(want_y[i], 0.0);
    dz[i] = y[i] > 0 ? dy[i] : T(0);
  }
  check_close(y, want_y, rounding<T>(double(in) + 1), "linear");
  reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), x.data(), weight.data(),
                             rows, in, out);
  for (int needed = 1; needed < 8; ++needed) {
    Guarded<T> dx(rows * in), dweight(out * in), dbias(out);
    ops::linear_backward(needed & 1 ? dx.data() : nullptr, needed & 2 ? dweight.data() : nullptr,
                         needed & 4 ? dbias.data() : nullptr, dy.data(), y.data(), x.data(), weight.data(),
                         ops::Activation::relu, rows, in, out);
    if (needed & 1) check_close(dx, want_dx, rounding<T>(double(out)), "dx");
    if (needed & 2) check_close(dweight, want_dweight, rounding<T>(double(rows)), "dweight");
    if (needed & 4) check_close(dbias, want_dbias, rounding<T>(double(rows)), "dbias");
  }
}

namespace {

// Layers behind a ReLU that are so large that their gradients' zeros are left out. Parts of vectors, of panels, and of
// blocks of the depth; fewer rows than a block is high; groups of rows for dx, and more rows than dweight has a pass
// for.
const std::vector<Size> kBehindRelu = {{128, 784, 128}, {33, 301, 130},  {300, 177, 67}, {16, 1000, 64},
                                       {70, 133, 601},  {300, 90, 1100}, {1100, 90, 64}};

// dz as linear_backward makes it.
template <class T>
Guarded<T> gradient_of(ops::Activation activation, const Guarded<T>& dy, const Guarded<T>& y) {
  Guarded<T> dz = dy;
  for (int64_t i = 0; i < dz.size() && activation == ops::Activation::relu; ++i) dz[i] = y[i] <= 0 ? T(0) : dy[i];
  return dz;
}

// linear_backward on 1 to 3 threads beside products by dense blocks, of an x whose rows begin with whole vectors, too.
template <class T>
void check_backward(const Size& s, ops::Activation activation, const Guarded<T>& dy, const Guarded<T>& y,
                    const Guarded<T>& x, const Guarded<T>& weight) {
  const Guarded<T> dz = gradient_of(activation, dy, y);
  Guarded<T> want_dx(s.rows * s.in), want_dweight(s.out * s.in), want_dbias(s.out);
  ops::gemm<T>({want_dx.data(), s.in, dz.data(), s.out, false, weight.data(), s.in, false, s.rows, s.in, s.out});
  ops::linear_dweight(want_dweight.data(), want_dbias.data(), dz.data(), s.out, x.data(), s.rows, s.in, s.out, false);
  const arena::Buffer<T> aligned(x.size());
  std::copy_n(x.data(), x.size(), aligned.get());
  for (const int threads : kThreads) {
    const Threads scope(threads);
    for (int needed = 1; needed < 16; ++needed) {
      if ((needed & 7) == 0) continue;
      Guarded<T> dx(s.rows * s.in), dweight(s.out * s.in), dbias(s.out);
      ops::linear_backward(needed & 1 ? dx.data() : nullptr, needed & 2 ? dweight.data() : nullptr,
                           needed & 4 ? dbias.data() : nullptr, dy.data(), y.data(),
                           needed & 8 ? aligned.get() : x.data(), weight.data(), activation, s.rows, s.in, s.out);
      if (needed & 1) check_same(dx, want_dx, "dx");
      if (needed & 2) check_same(dweight, want_dweight, "dweight");
      if ((needed & 6) == 6) check_same(dbias, want_dbias, "dbias");  // in the passes of dweight
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("gradients behind a ReLU have the bits of dense blocks, on any threads", T, float, double) {
  const VectorBlocks blocks;
  for (const Size s : kBehindRelu) {
    const Guarded<T> x = random_array<T>(s.rows * s.in), weight = random_array<T>(s.out * s.in),
                     y = random_array<T>(s.rows * s.out);
    for (const auto activation : {ops::Activation::relu, ops::Activation::none}) {
      Guarded<T> dy = random_array<T>(s.rows * s.out);
      if (activation == ops::Activation::none) dy = gradient_of(ops::Activation::relu, dy, y);
      REQUIRE(ops::gradient_zeros_pay(activation, dy.data(), y.data(), s.rows, s.in, s.out));
      check_backward(s, activation, dy, y, x, weight);
    }
  }
}

TEST_CASE_TEMPLATE("gradients behind a ReLU are the naive ones", T, float, double) {
  for (const Size s : kBehindRelu) {
    const Guarded<T> x = random_array<T>(s.rows * s.in), weight = random_array<T>(s.out * s.in),
                     dy = random_array<T>(s.rows * s.out), y = random_array<T>(s.rows * s.out),
                     dz = gradient_of(ops::Activation::relu, dy, y);
    Guarded<T> dx(s.rows * s.in), dweight(s.out * s.in), dbias(s.out);
    Guarded<double> want_dx(s.rows * s.in), want_dweight(s.out * s.in), want_dbias(s.out);
    ops::linear_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), weight.data(),
                         ops::Activation::relu, s.rows, s.in, s.out);
    reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), x.data(),
                               weight.data(), s.rows, s.in, s.out);
    check_close(dx, want_dx, rounding<T>(double(s.out)), "dx");
    check_close(dweight, want_dweight, rounding<T>(double(s.rows)), "dweight");
    check_close(dbias, want_dbias, rounding<T>(double(s.rows)), "dbias");
  }
}

TEST_CASE_TEMPLATE("NaN, infinity and signs of zeros meet the zeros of a gradient", T, float, double) {
  const VectorBlocks blocks;
  const T infinity = std::numeric_limits<T>::infinity();
  const std::vector<T> values = {std::numeric_limits<T>::quiet_NaN(), infinity, -infinity, T(-0.0),
                                 -std::numeric_limits<T>::denorm_min()};
  for (size_t test = 0; test < 2 * values.size(); ++test) {
    const T value = values[test / 2];
    const Size s = test % 2 == 0 ? Size{64, 300, 130} : Size{64, 336, 120};
    Guarded<T> y = random_array<T>(s.rows * s.out), x = random_array<T>(s.rows * s.in),
               weight = random_array<T>(s.out * s.in), dy = random_array<T>(s.rows * s.out);
    x[63 * s.in + 299] = weight[(s.out - 1) * s.in + 299] = value;
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
    const Guarded<T> some = y;
    for (int64_t j = 0; j < s.out; ++j) y[63 * s.out + j] = T(0);  // the value meets zeros only
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
    y = some;
    for (int64_t i = 0; i < s.rows; ++i) dy[i * s.out + 5] = dy[i * s.out + s.out - 1] = value;
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
    for (int64_t j = 0; j < s.out; ++j) dy[3 * s.out + j] = dy[63 * s.out + j] = value;
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
    // Sums that vanish: terms of 0.0 behind such of -0.0 count, and terms that the dense blocks make 0.0 as well.
    for (int64_t i = 0; i < x.size(); ++i) x[i] = std::abs(x[i]) / 4;
    for (int64_t i = 0; i < weight.size(); ++i) weight[i] = std::abs(weight[i]) / 4;
    for (int64_t i = 0; i < dy.size(); ++i) dy[i] = i % 3 == 0 ? value : T(-0.0);
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
  }
}

TEST_CASE_TEMPLATE("a sample of a gradient may promise zeros that others lack", T, float, double) {
  const VectorBlocks blocks;
  for (const Size s : {Size{160, 300, 130}, {160, 336, 120}}) {
    const Guarded<T> weight = random_array<T>(s.out * s.in), dy = random_array<T>(s.rows * s.out);
    Guarded<T> x = random_array<T>(s.rows * s.in), y = random_array<T>(s.rows * s.out);
    for (int64_t i = 0; i < y.size(); ++i) y[i] = i / s.out % 20 == 0 || i % s.out < 40 ? y[i] : T(1);
    REQUIRE(ops::gradient_zeros_pay(ops::Activation::relu, dy.data(), y.data(), s.rows, s.in, s.out));
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
    x[7 * s.in + 250] = std::numeric_limits<T>::infinity();  // meets zeros beside outputs that have none
    for (int64_t j = 0; j < 40; ++j) y[7 * s.out + j] = T(0);
    check_backward(s, ops::Activation::relu, dy, y, x, weight);
  }
}

TEST_CASE("gradients' zeros are left out behind a ReLU if a large layer has many") {
  const VectorBlocks blocks;
  const int64_t rows = 64, in = 400, out = 128;
  const Guarded<float> dy = random_array<float>(rows * out), y = random_array<float>(rows * out),
                       dz = gradient_of(ops::Activation::relu, dy, y), ones(rows * out, 1.0f);
  const auto pays = [&](ops::Activation activation, const Guarded<float>& gradient, const Guarded<float>& outputs,
                        int64_t batch, int64_t inputs) {
    return ops::gradient_zeros_pay(activation, gradient.data(), outputs.data(), batch, inputs, out);
  };
  CHECK(pays(ops::Activation::relu, dy, y, rows, in));
  CHECK(pays(ops::Activation::none, dz, y, rows, in));
  CHECK_FALSE(pays(ops::Activation::relu, dy, ones, rows, in));
  CHECK_FALSE(pays(ops::Activation::none, dy, y, rows, in));
  CHECK_FALSE(pays(ops::Activation::tanh, dz, y, rows, in));
  CHECK_FALSE(pays(ops::Activation::relu, dy, y, 8, in));
  CHECK_FALSE(pays(ops::Activation::relu, dy, y, rows, 20));
}
