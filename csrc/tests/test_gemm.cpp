#include "harness.h"
#include "ops/gemm.h"
#include "reference/gemm.h"
#include "runtime/dispatch.h"

using namespace pynn;
using namespace pynn::test;

TEST_CASE_TEMPLATE("gemm equals the naive product in all four transpositions", T, float, double) {
  const std::vector<int64_t> sizes = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64};
  for (const int64_t m : sizes) {
    for (const int64_t n : sizes) {
      const int64_t k = sizes[static_cast<size_t>(generator()() % sizes.size())];
      for (int transposed = 0; transposed < 4; ++transposed) {
        const bool ta = transposed & 1, tb = transposed & 2;
        const Guarded<T> a = random_array<T>(m * k), b = random_array<T>(k * n), bias = random_array<T>(n);
        Guarded<T> c(m * n);
        Guarded<double> want(m * n);
        ops::gemm<T>({c.data(), n, a.data(), ta ? m : k, ta, b.data(), tb ? k : n, tb, m, n, k, bias.data()});
        reference::gemm(want.data(), a.data(), ta, b.data(), tb, bias.data(), m, n, k);
        check_close(c, want, rounding<T>(double(k) + 1), "gemm");
      }
    }
  }
}

TEST_CASE_TEMPLATE("gemm splits deep, large and badly strided products correctly", T, float, double) {
  struct Size {
    int64_t m, n, k;
  };
  for (const Size s : {Size{70, 300, 1100}, Size{300, 70, 130}, Size{20, 1024, 40}, Size{270, 130, 1024},
                       Size{30, 1100, 1100}, Size{5, 9, 0}}) {
    for (int transposed = 0; transposed < 4; ++transposed) {
      const bool ta = transposed & 1, tb = transposed & 2;
      const Guarded<T> a = random_array<T>(s.m * s.k), b = random_array<T>(s.k * s.n);
      Guarded<T> c = random_array<T>(s.m * s.n);
      Guarded<double> want(s.m * s.n), before(s.m * s.n);
      for (int64_t i = 0; i < c.size(); ++i) before[i] = static_cast<double>(c[i]);
      ops::gemm<T>({c.data(), s.n, a.data(), ta ? s.m : s.k, ta, b.data(), tb ? s.k : s.n, tb, s.m, s.n, s.k, nullptr,
                    ops::Activation::none, true});
      reference::gemm(want.data(), a.data(), ta, b.data(), tb, static_cast<const T*>(nullptr), s.m, s.n, s.k);
      for (int64_t i = 0; i < c.size(); ++i) want[i] += before[i];
      check_close(c, want, rounding<T>(double(s.k) + 1), "accumulating gemm");
    }
  }
}

TEST_CASE("blocks whose rows are fetched ahead have the same bits, also where fewer steps than a line are left") {
  const GemmKernels<float>& kernel = kernels<float>().gemm;
  const int64_t n = 2 * kernel.nr + 3;
  for (const int64_t m : {1, 12, 25, 28, 67}) {
    for (const int64_t k : {5, 16, 47, 300}) {
      const Guarded<float> a = random_array<float>(m * k), b = random_array<float>(k * n);
      Guarded<float> near(m * n), far(m * n);
      GemmEpilogue<float> epilogue;
      kernel.block(near.data(), n, a.data(), k, false, {b.data(), n, kernel.nr}, epilogue, m, n, k);
      const int64_t half = m / 2;  // the others are behind the block
      epilogue.far_rows = m;
      kernel.block(far.data(), n, a.data(), k, false, {b.data(), n, kernel.nr}, epilogue, half, n, k);
      epilogue.far_rows = m - half;
      kernel.block(far.data() + half * n, n, a.data() + half * k, k, false, {b.data(), n, kernel.nr}, epilogue,
                   m - half, n, k);
      for (int64_t i = 0; i < far.size(); ++i) REQUIRE(far[i] == near[i]);
    }
  }
}

TEST_CASE_TEMPLATE("every form of a product is right for few rows, few columns and deep sums", T, float, double) {
  struct Size {
    int64_t m, n, k;
  };
  for (const Size s : {Size{1, 130, 300}, Size{2, 50, 784}, Size{3, 7, 1500}, Size{4, 33, 65}, Size{7, 100, 257},
                       Size{13, 40, 500}, Size{32, 128, 784}, Size{128, 10, 128}, Size{129, 11, 2100}, Size{300, 1, 90},
                       Size{1, 1, 1000}, Size{40, 3, 17}, Size{520, 90, 1030}, Size{32, 400, 64}, Size{16, 700, 60}}) {
    for (int transposed = 0; transposed < 4; ++transposed) {
      for (const ops::Activation activation : {ops::Activation::relu, ops::Activation::leaky_relu}) {
        const bool ta = transposed & 1, tb = transposed & 2;
        const Guarded<T> a = random_array<T>(s.m * s.k), b = random_array<T>(s.k * s.n), bias = random_array<T>(s.n);
        Guarded<T> c(s.m * s.n);
        Guarded<double> want(s.m * s.n);
        ops::gemm<T>({c.data(), s.n, a.data(), ta ? s.m : s.k, ta, b.data(), tb ? s.k : s.n, tb, s.m, s.n, s.k,
                      bias.data(), activation});
        reference::gemm(want.data(), a.data(), ta, b.data(), tb, bias.data(), s.m, s.n, s.k);
        const double slope = activation == ops::Activation::relu ? 0 : ops::kLeakySlope;
        for (int64_t i = 0; i < want.size(); ++i) want[i] = want[i] > 0 ? want[i] : slope * want[i];
        check_close(c, want, rounding<T>(double(s.k) + 1), "gemm with an activation");
      }
    }
  }
}

TEST_CASE_TEMPLATE("dot products with a large matrix have the same bits from either end of it", T, float, double) {
  const int64_t m = 1, n = 131, k = 9300;
  const Guarded<T> a = random_array<T>(m * k), b = random_array<T>(n * k), bias = random_array<T>(n);
  Guarded<double> want(m * n);
  reference::gemm(want.data(), a.data(), false, b.data(), true, bias.data(), m, n, k);
  Guarded<T> first(m * n);
  for (int call = 0; call < 4; ++call) {
    Guarded<T> c(m * n);
    ops::gemm<T>({c.data(), n, a.data(), k, false, b.data(), k, true, m, n, k, bias.data()});
    check_close(c, want, rounding<T>(double(k) + 1), "dot products");
    for (int64_t i = 0; i < m * n; ++i) {
      if (call == 0) first[i] = c[i];
      CHECK(c[i] == first[i]);
    }
  }
}

TEST_CASE("gemm keeps NaN and infinity, whatever the form") {
  for (const int64_t m : {1, 5, 40}) {
    for (const int64_t n : {1, 10, 70}) {
      const int64_t k = 200;
      Guarded<float> a = random_array<float>(m * k), b = random_array<float>(n * k), c(m * n);
      a[k - 1] = std::numeric_limits<float>::quiet_NaN();
      b[(n - 1) * k] = std::numeric_limits<float>::infinity();
      ops::gemm<float>({c.data(), n, a.data(), k, false, b.data(), k, true, m, n, k, nullptr, ops::Activation::relu});
      for (int64_t j = 0; j < n; ++j) CHECK(std::isnan(c[j]));
      for (int64_t i = 1; i < m; ++i) CHECK_FALSE(std::isfinite(c[i * n + n - 1]) == (a[i * k] > 0));
    }
  }
}

TEST_CASE_TEMPLATE("linear_backward makes dz and sums it for every activation and any set of outputs", T, float,
                   double) {
  const int64_t rows = 1100, in = 35, out = 21;  // more rows than one pass over k takes
  const Guarded<T> x = random_array<T>(rows * in), weight = random_array<T>(out * in), dy = random_array<T>(rows * out);
  for (const ops::Activation activation :
       {ops::Activation::none, ops::Activation::relu, ops::Activation::leaky_relu, ops::Activation::sigmoid}) {
    Guarded<T> y(rows * out), dz(rows * out);
    ops::linear(y.data(), x.data(), weight.data(), static_cast<const T*>(nullptr), activation, rows, in, out);
    for (int64_t i = 0; i < y.size(); ++i) {
      const T slope = activation == ops::Activation::none      ? T(1)
                      : activation == ops::Activation::sigmoid ? y[i] * (1 - y[i])
                      : y[i] > 0                               ? T(1)
                      : activation == ops::Activation::relu    ? T(0)
                                                               : T(ops::kLeakySlope);
      dz[i] = dy[i] * slope;
    }
    Guarded<double> want_dx(rows * in), want_dweight(out * in), want_dbias(out);
    reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), x.data(),
                               weight.data(), rows, in, out);
    for (int needed = 0; needed < 8; ++needed) {
      Guarded<T> dx(rows * in), dweight(out * in), dbias(out);
      ops::linear_backward(needed & 1 ? dx.data() : nullptr, needed & 2 ? dweight.data() : nullptr,
                           needed & 4 ? dbias.data() : nullptr, dy.data(), y.data(), x.data(), weight.data(),
                           activation, rows, in, out);
      if (needed & 1) check_close(dx, want_dx, rounding<T>(double(out) + 3), "dx");
      if (needed & 2) check_close(dweight, want_dweight, rounding<T>(double(rows) + 3), "dweight");
      if (needed & 4) check_close(dbias, want_dbias, rounding<T>(double(rows) + 3), "dbias");
    }
  }
}

TEST_CASE_TEMPLATE("linear_backward makes dz once for operands that are packed in several parts", T, float, double) {
  struct Size {
    int64_t rows, in, out;
  };
  for (const Size s : {Size{20, 1024, 1200}, Size{600, 2048, 20}}) {
    const Guarded<T> x = random_array<T>(s.rows * s.in), weight = random_array<T>(s.out * s.in),
                     y = random_array<T>(s.rows * s.out), dy = random_array<T>(s.rows * s.out);
    Guarded<T> dx(s.rows * s.in), dweight(s.out * s.in), dbias(s.out), dz(s.rows * s.out);
    for (int64_t i = 0; i < y.size(); ++i) dz[i] = dy[i] * (y[i] * (1 - y[i]));
    ops::linear_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), weight.data(),
                         ops::Activation::sigmoid, s.rows, s.in, s.out);
    Guarded<double> want_dx(s.rows * s.in), want_dweight(s.out * s.in), want_dbias(s.out);
    reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), x.data(),
                               weight.data(), s.rows, s.in, s.out);
    check_close(dx, want_dx, rounding<T>(double(s.out) + 3), "dx");
    check_close(dweight, want_dweight, rounding<T>(double(s.rows) + 3), "dweight");
    check_close(dbias, want_dbias, rounding<T>(double(s.rows) + 3), "dbias");
  }
}

TEST_CASE_TEMPLATE("linear_backward is right for a weight that the threads do not share", T, float, double) {
  const int64_t in = 403, out = 290;
  const Guarded<T> weight = random_array<T>(out * in);
  for (const int64_t rows : {3, 70}) {
    const Guarded<T> x = random_array<T>(rows * in), dy = random_array<T>(rows * out);
    Guarded<T> dx(rows * in), dweight(out * in), dbias(out);
    ops::linear_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), static_cast<const T*>(nullptr), x.data(),
                         weight.data(), ops::Activation::none, rows, in, out);
    Guarded<double> want_dx(rows * in), want_dweight(out * in), want_dbias(out);
    reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dy.data(), x.data(),
                               weight.data(), rows, in, out);
    check_close(dx, want_dx, rounding<T>(double(out)), "dx");
    check_close(dweight, want_dweight, rounding<T>(double(rows)), "dweight");
    check_close(dbias, want_dbias, rounding<T>(double(rows)), "dbias");
  }
}

TEST_CASE_TEMPLATE("linear and its backward equal the naive ones", T, float, double) {
  for (const int64_t rows : {1, 2, 5, 33}) {
    for (const int64_t in : {1, 9, 50}) {
      for (const int64_t out : {1, 10, 37}) {
        const Guarded<T> x = random_array<T>(rows * in), weight = random_array<T>(out * in),
                         bias = random_array<T>(out);
        const Guarded<T> dy = random_array<T>(rows * out);
        Guarded<T> y(rows * out), dx(rows * in), dweight(out * in), dbias(out), dz(rows * out);
        Guarded<double> want_y(rows * out), want_dx(rows * in), want_dweight(out * in), want_dbias(out);
        ops::linear(y.data(), x.data(), weight.data(), bias.data(), ops::Activation::relu, rows, in, out);
        reference::gemm(want_y.data(), x.data(), false, weight.data(), true, bias.data(), rows, out, in);
        for (int64_t i = 0; i < y.size(); ++i) {
          want_y[i] = std::max(want_y[i], 0.0);
          dz[i] = y[i] > 0 ? dy[i] : T(0);
        }
        check_close(y, want_y, rounding<T>(double(in) + 1), "linear");
        ops::linear_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), weight.data(),
                             ops::Activation::relu, rows, in, out);
        reference::linear_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), x.data(),
                                   weight.data(), rows, in, out);
        check_close(dx, want_dx, rounding<T>(double(out)), "dx");
        check_close(dweight, want_dweight, rounding<T>(double(rows)), "dweight");
        check_close(dbias, want_dbias, rounding<T>(double(rows)), "dbias");
      }
    }
  }
}
