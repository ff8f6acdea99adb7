#include "harness.h"
#include "ops/norm.h"
#include "reference/norm.h"

using namespace pynn;
using namespace pynn::test;

namespace {

const std::vector<ops::BatchNormSizes> kBatchSizes = {{2, 1, 1},     {1, 3, 2},    {4, 3, 1},   {64, 17, 1},
                                                      {1100, 65, 1}, {3, 17, 9},   {2, 5, 49},  {40, 33, 36},
                                                      {3, 2, 2000},  {64, 700, 1}, {3, 9, 300}, {2, 5, 9000}};

// Sums of `terms` numbers run in at most this many steps of T.
double steps(int64_t terms) { return 8 + static_cast<double>(std::min<int64_t>(terms, 512)); }

}  // namespace

TEST_CASE_TEMPLATE("batch_norm equals the naive one, and its running statistics move", T, float, double) {
  for (const ops::BatchNormSizes& s : kBatchSizes) {
    for (const double centre : {0.0, 1e4}) {
      const double twin = 10 * rounding<double>(1, centre);  // its mean rounds too, and 1 / sqrt(eps) multiplies that
      for (const bool affine : {false, true}) {
        const int64_t size = s.batch * s.channels * s.length, c = s.channels;
        const reference::NormSizes naive{s.batch, c, s.length, true};
        const Guarded<T> x = random_array<T>(size, centre - 2, centre + 2), weight = random_array<T>(c),
                         bias = random_array<T>(c);
        const T *w = affine ? weight.data() : nullptr, *b = affine ? bias.data() : nullptr;
        Guarded<T> y(size), mean(c), rstd(c), running_mean(c, T(1)), running_var(c, T(2));
        Guarded<double> want(size), want_mean(c), want_var(c);
        reference::moments(want_mean.data(), want_var.data(), x.data(), naive);
        reference::normalise(want.data(), x.data(), w, b, want_mean.data(), want_var.data(), 1e-2, naive);
        ops::batch_norm(y.data(), mean.data(), rstd.data(), x.data(), w, b, running_mean.data(), running_var.data(),
                        true, 0.25, 1e-2, s);
        // Around 1e4 the differences to the mean stay exact; only the mean itself rounds at its size.
        check_close(mean, want_mean, rounding<T>(4, centre) + rounding<T>(steps(s.count())), "mean");
        check_close(y, want, rounding<T>(steps(s.count()), 20) + twin, "y");
        const double n = static_cast<double>(s.count());
        for (int64_t i = 0; i < c; ++i) {
          want_mean[i] = 0.75 + 0.25 * want_mean[i];
          want_var[i] = 1.5 + 0.25 * want_var[i] * n / (n - 1);
        }
        check_close(running_mean, want_mean, rounding<T>(4, centre) + rounding<T>(steps(s.count())), "running_mean");
        check_close(running_var, want_var, rounding<T>(steps(s.count()), 8), "running_var");
      }
    }
  }
}

TEST_CASE_TEMPLATE("batch_norm is accurate when a channel begins far from its mean", T, float, double) {
  for (const int64_t length : {1, 100}) {
    const ops::BatchNormSizes s{4000 / length, 2, length};
    const reference::NormSizes naive{s.batch, 2, length, true};
    Guarded<T> x = random_array<T>(8000, 99, 101);
    x[0] = T(-3000);
    Guarded<T> y(8000), mean(2), rstd(2);
    Guarded<double> want(8000), want_mean(2), want_var(2);
    reference::moments(want_mean.data(), want_var.data(), x.data(), naive);
    reference::normalise<T>(want.data(), x.data(), nullptr, nullptr, want_mean.data(), want_var.data(), 1e-5, naive);
    ops::batch_norm<T>(y.data(), mean.data(), rstd.data(), x.data(), nullptr, nullptr, nullptr, nullptr, true, 0.1,
                       1e-5, s);
    check_close(y, want, rounding<T>(16, 64), "y");  // the outlier itself lies 63 deviations out
  }
}

TEST_CASE_TEMPLATE("batch_norm with the running statistics leaves them as they are", T, float, double) {
  for (const ops::BatchNormSizes& s : kBatchSizes) {
    const int64_t size = s.batch * s.channels * s.length, c = s.channels;
    const Guarded<T> x = random_array<T>(size), weight = random_array<T>(c), bias = random_array<T>(c);
    Guarded<T> y(size), mean(c), rstd(c), running_mean = random_array<T>(c), running_var = random_array<T>(c, 0.5, 1);
    Guarded<double> want(size), want_mean(c), want_var(c);
    for (int64_t i = 0; i < c; ++i) {
      want_mean[i] = static_cast<double>(running_mean[i]);
      want_var[i] = static_cast<double>(running_var[i]);
    }
    reference::normalise(want.data(), x.data(), weight.data(), bias.data(), want_mean.data(), want_var.data(), 1e-5,
                         {s.batch, c, s.length, true});
    ops::batch_norm(y.data(), mean.data(), rstd.data(), x.data(), weight.data(), bias.data(), running_mean.data(),
                    running_var.data(), false, 0.25, 1e-5, s);
    check_close(y, want, rounding<T>(4, 4), "y");
    check_close(running_mean, want_mean, 0, "running_mean");
    check_close(running_var, want_var, 0, "running_var");
  }
}

TEST_CASE_TEMPLATE("batch_norm_backward equals the naive one", T, float, double) {
  for (const ops::BatchNormSizes& s : kBatchSizes) {
    for (const bool training : {false, true}) {
      for (const bool affine : {false, true}) {
        const int64_t size = s.batch * s.channels * s.length, c = s.channels;
        const reference::NormSizes naive{s.batch, c, s.length, true};
        const Guarded<T> x = random_array<T>(size), dy = random_array<T>(size), weight = random_array<T>(c);
        const Guarded<T> mean = random_array<T>(c), rstd = random_array<T>(c, 0.5, 2);
        const T* w = affine ? weight.data() : nullptr;
        Guarded<T> dx(size), dweight(c), dbias(c);
        Guarded<double> want_dx(size), want_dweight(c), want_dbias(c);
        reference::normalise_backward(want_dx.data(), want_dweight.data(), want_dbias.data(), dy.data(), x.data(), w,
                                      mean.data(), rstd.data(), training, naive);
        ops::batch_norm_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(), w, mean.data(),
                                 rstd.data(), training, s);
        const double terms = static_cast<double>(s.count());
        check_close(dx, want_dx, rounding<T>(steps(s.count()), 20), "dx");
        check_close(dweight, want_dweight, rounding<T>(steps(s.count()), 4 * std::sqrt(terms)), "dweight");
        check_close(dbias, want_dbias, rounding<T>(steps(s.count()), 4 * std::sqrt(terms)), "dbias");
      }
    }
  }
}

TEST_CASE_TEMPLATE("batch_norm_backward with the running statistics does not look at x for dx", T, float, double) {
  const Guarded<T> x(4, std::numeric_limits<T>::infinity()), dy(4, T(3)), mean(2, T(0)), rstd(2, T(2));
  Guarded<T> dx(4), dweight(2), dbias(2);
  ops::batch_norm_backward<T>(dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(), nullptr, mean.data(),
                              rstd.data(), false, {2, 2, 1});
  check_close(dx, Guarded<double>(4, 6.0), 0, "dx");
}

TEST_CASE_TEMPLATE("layer_norm and its backward equal the naive ones", T, float, double) {
  for (const int64_t rows : {1, 3, 70, 700}) {
    for (const int64_t cols : {1, 2, 7, 16, 17, 33, 100, 1031}) {
      for (const double centre : {0.0, 1e4}) {
        const double twin = 10 * rounding<double>(1, centre);  // its mean rounds too, and 1 / sqrt(eps) multiplies that
        for (const bool affine : {false, true}) {
          const int64_t size = rows * cols;
          const reference::NormSizes naive{1, rows, cols, false};
          const Guarded<T> x = random_array<T>(size, centre - 2, centre + 2), weight = random_array<T>(cols),
                           bias = random_array<T>(cols), dy = random_array<T>(size);
          const T *w = affine ? weight.data() : nullptr, *b = affine ? bias.data() : nullptr;
          Guarded<T> y(size), mean(rows), rstd(rows), dx(size), dweight(cols), dbias(cols);
          Guarded<double> want(size), want_mean(rows), want_var(rows), want_dweight(cols), want_dbias(cols);
          reference::moments(want_mean.data(), want_var.data(), x.data(), naive);
          reference::normalise(want.data(), x.data(), w, b, want_mean.data(), want_var.data(), 1e-2, naive);
          ops::layer_norm(y.data(), mean.data(), rstd.data(), x.data(), w, b, 1e-2, rows, cols);
          check_close(mean, want_mean, rounding<T>(4, centre) + rounding<T>(steps(cols)), "mean");
          check_close(y, want, rounding<T>(steps(cols), 20) + twin, "y");

          const Guarded<T> inverse = random_array<T>(rows, 0.5, 2);
          reference::normalise_backward(want.data(), want_dweight.data(), want_dbias.data(), dy.data(), x.data(), w,
                                        mean.data(), inverse.data(), true, naive);
          ops::layer_norm_backward(dx.data(), dweight.data(), dbias.data(), dy.data(), x.data(), w, mean.data(),
                                   inverse.data(), rows, cols);
          check_close(dx, want, rounding<T>(steps(cols), 40), "dx");
          check_close(dweight, want_dweight, rounding<T>(steps(rows), 8 * std::sqrt(double(rows))), "dweight");
          check_close(dbias, want_dbias, rounding<T>(steps(rows), 8 * std::sqrt(double(rows))), "dbias");
        }
      }
    }
  }
}
