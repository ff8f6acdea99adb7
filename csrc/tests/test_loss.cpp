#include "harness.h"
#include "ops/loss.h"
#include "reference/loss.h"

using namespace pynn;
using namespace pynn::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Guarded<double> exp_of(Guarded<double> x) {
  for (int64_t i = 0; i < x.size(); ++i) x[i] = std::exp(x[i]);
  return x;
}

// Labels 0..classes-1, every fourth one ignored.
Guarded<int64_t> random_target(int64_t rows, int64_t classes, int64_t ignore_index) {
  Guarded<int64_t> target(rows);
  for (int64_t i = 0; i < rows; ++i) {
    target[i] = i % 4 == 3 ? ignore_index : static_cast<int64_t>(generator()() % static_cast<uint64_t>(classes));
  }
  return target;
}

struct Kind {
  ops::ElementwiseLoss kind;
  void (*reference)(double&, double&, double, double);
};
const Kind kKinds[] = {{ops::ElementwiseLoss::mse, reference::mse},
                       {ops::ElementwiseLoss::bce_with_logits, reference::bce_with_logits},
                       {ops::ElementwiseLoss::hinge, reference::hinge},
                       {ops::ElementwiseLoss::l1, [](double& loss, double& dx, double x,
                                                     double target) { reference::smooth_l1(loss, dx, x, target, 0); }},
                       {ops::ElementwiseLoss::kl_div, reference::kl_div},
                       {ops::ElementwiseLoss::kl_div_log_target, reference::kl_div_log_target}};

}  // namespace

TEST_CASE_TEMPLATE("softmax and log_softmax equal the naive ones, forward and backward", T, float, double) {
  for (const int64_t rows : {1, 3, 40}) {
    for (const int64_t cols : kSizes) {
      const int64_t n = rows * cols;
      const Guarded<T> x = random_array<T>(n, -9, 9), dy = random_array<T>(n);
      Guarded<T> y(n), log_y(n), dx(n);
      Guarded<double> want_log(n), want_dx(n);
      reference::log_softmax(want_log.data(), x.data(), rows, cols);
      const double tolerance = rounding<T>(8 + double(cols) / 16, 2);

      ops::softmax(y.data(), x.data(), rows, cols);
      check_close(y, exp_of(want_log), tolerance, "softmax");
      ops::softmax_backward(dx.data(), dy.data(), y.data(), rows, cols);
      reference::softmax_backward(want_dx.data(), dy.data(), want_log.data(), rows, cols);
      check_close(dx, want_dx, tolerance, "softmax_backward");

      ops::log_softmax(log_y.data(), x.data(), rows, cols);
      check_close(log_y, want_log, rounding<T>(8, 20), "log_softmax");
      ops::log_softmax_backward(dx.data(), dy.data(), log_y.data(), rows, cols);
      reference::log_softmax_backward(want_dx.data(), dy.data(), want_log.data(), rows, cols);
      check_close(dx, want_dx, rounding<T>(20 + double(cols), 2), "log_softmax_backward");
    }
  }
}

TEST_CASE_TEMPLATE("softmax of rows with infinities, NaN and entries far apart", T, float, double) {
  struct Row {
    double x[3], y[3];
  };
  for (const Row row :
       {Row{{-kInfinity, -kInfinity, -kInfinity}, {kNaN, kNaN, kNaN}}, Row{{0, kNaN, 1}, {kNaN, kNaN, kNaN}},
        Row{{kInfinity, 0, 1}, {kNaN, kNaN, kNaN}}, Row{{-kInfinity, 0, 0}, {0, 0.5, 0.5}},
        Row{{1e30, 0, 1}, {1, 0, 0}}, Row{{1e4, 1e4, -1e4}, {0.5, 0.5, 0}}}) {
    Guarded<T> x(3), y(3);
    Guarded<double> want(3);
    for (int j = 0; j < 3; ++j) {
      x[j] = static_cast<T>(row.x[j]);
      want[j] = row.y[j];
    }
    ops::softmax(y.data(), x.data(), 1, 3);
    check_close(y, want, 0, "softmax");
    ops::log_softmax(y.data(), x.data(), 1, 3);
    for (int j = 0; j < 3; ++j) CHECK(std::isnan(y[j]) == std::isnan(want[j]));
  }
}

TEST_CASE_TEMPLATE("cross_entropy equals the naive one for all reductions", T, float, double) {
  constexpr int64_t ignore = -100;
  for (const int64_t rows : {1, 5, 33, 128}) {
    for (const int64_t cols : {1, 2, 7, 8, 9, 10, 16, 17, 33, 100, 5000}) {
      for (const double smoothing : {0.0, 0.1, 1.0}) {
        const Guarded<T> logits = random_array<T>(rows * cols, -9, 9), weights = random_array<T>(cols, 0.1, 2);
        const T* weight = rows == 5 || rows == 128 ? weights.data() : nullptr;
        const Guarded<int64_t> target = random_target(rows, cols, ignore);
        Guarded<double> want(rows), want_d(rows * cols);
        reference::cross_entropy(want.data(), want_d.data(), logits.data(), target.data(), weight, ignore, smoothing,
                                 rows, cols);
        double kept = 0, sum = 0;
        for (int64_t i = 0; i < rows; ++i) {
          if (target[i] != ignore) kept += weight != nullptr ? double(weight[target[i]]) : 1;
          sum += want[i];
        }
        Guarded<T> loss(rows), total(1), d(rows * cols);
        ops::cross_entropy(loss.data(), d.data(), logits.data(), target.data(), weight, ignore, smoothing,
                           ops::Reduction::none, rows, cols);
        check_close(loss, want, rounding<T>(20, 40), "losses");
        check_close(d, want_d, rounding<T>(8 + double(cols) / 16, 4), "dlogits");

        ops::cross_entropy(total.data(), static_cast<T*>(nullptr), logits.data(), target.data(), weight, ignore,
                           smoothing, ops::Reduction::sum, rows, cols);
        check_close(total, Guarded<double>(1, sum), rounding<T>(20, 20 * kept), "sum");

        ops::cross_entropy(total.data(), d.data(), logits.data(), target.data(), weight, ignore, smoothing,
                           ops::Reduction::mean, rows, cols);
        for (int64_t i = 0; i < want_d.size(); ++i) want_d[i] /= kept;
        check_close(total, Guarded<double>(1, sum / kept), rounding<T>(20, 20), "mean");
        check_close(d, want_d, rounding<T>(8 + double(cols) / 16, 4 / kept), "dlogits of the mean");
      }
    }
  }
}

TEST_CASE_TEMPLATE("cross_entropy of ignored rows alone has mean NaN and no gradient", T, float, double) {
  const Guarded<T> logits(6, T(1));
  const Guarded<int64_t> target(2, -100);
  Guarded<T> loss(1), d(6, T(5));
  ops::cross_entropy<T>(loss.data(), d.data(), logits.data(), target.data(), nullptr, -100, 0.0, ops::Reduction::mean,
                        2, 3);
  CHECK(std::isnan(loss[0]));
  check_close(d, Guarded<double>(6), 0, "dlogits");
}

TEST_CASE_TEMPLATE("cross_entropy takes nothing from ignored rows, whatever they hold", T, float, double) {
  for (const int64_t cols : {3, 100}) {
    Guarded<T> logits(2 * cols, T(1)), loss(2), d(2 * cols, T(5));
    for (int64_t j = 0; j < cols; ++j) logits[j] = static_cast<T>(j == 0 ? kInfinity : kNaN);
    Guarded<int64_t> target(2, 0);
    target[0] = -100;
    ops::cross_entropy<T>(loss.data(), d.data(), logits.data(), target.data(), nullptr, -100, 0.1, ops::Reduction::none,
                          2, cols);
    CHECK(loss[0] == T(0));
    for (int64_t j = 0; j < cols; ++j) REQUIRE(d[j] == T(0));
    CHECK(std::isfinite(loss[1]));
  }
}

TEST_CASE_TEMPLATE("elementwise losses equal the naive ones for all reductions", T, float, double) {
  for (const Kind& kind : kKinds) {
    for (const int64_t n : {1, 3, 8, 15, 17, 33, 511, 513, 8192, 20001}) {
      const Guarded<T> x = random_array<T>(n, -9, 9), target = random_array<T>(n, 0, 1);
      Guarded<double> want(n), want_dx(n);
      double sum = 0, size = 0;
      for (int64_t i = 0; i < n; ++i) {
        kind.reference(want[i], want_dx[i], double(x[i]), double(target[i]));
        sum += want[i];
        size += std::abs(want[i]);
      }
      Guarded<T> loss(n), total(1), dx(n);
      ops::elementwise_loss(kind.kind, loss.data(), dx.data(), x.data(), target.data(), ops::Reduction::none, n);
      check_close(loss, want, rounding<T>(4, 100), "losses");
      check_close(dx, want_dx, rounding<T>(4, 20), "dx");

      ops::elementwise_loss(kind.kind, total.data(), static_cast<T*>(nullptr), x.data(), target.data(),
                            ops::Reduction::sum, n);
      check_close(total, Guarded<double>(1, sum), rounding<T>(32, size + 1), "sum");

      ops::elementwise_loss(kind.kind, total.data(), dx.data(), x.data(), target.data(), ops::Reduction::mean, n);
      for (int64_t i = 0; i < n; ++i) want_dx[i] /= double(n);
      check_close(total, Guarded<double>(1, sum / double(n)), rounding<T>(32, size / double(n) + 1), "mean");
      check_close(dx, want_dx, rounding<T>(4, 20 / double(n)), "dx of the mean");
    }
  }
}

TEST_CASE_TEMPLATE("smooth_l1_loss equals the naive one", T, float, double) {
  for (const double beta : {0.0, 0.5, 4.0}) {
    for (const int64_t n : {1, 8, 17, 513, 20001}) {
      Guarded<T> x = random_array<T>(n, -9, 9);
      const Guarded<T> target = random_array<T>(n, 0, 1);
      x[n / 2] = target[n / 2];  // where the sign is 0
      Guarded<double> want(n), want_dx(n);
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        reference::smooth_l1(want[i], want_dx[i], double(x[i]), double(target[i]), beta);
        sum += want[i];
      }
      Guarded<T> loss(n), mean(1), dx(n);
      ops::smooth_l1_loss(loss.data(), dx.data(), x.data(), target.data(), beta, ops::Reduction::none, n);
      check_close(loss, want, rounding<T>(4, 10), "losses");
      check_close(dx, want_dx, rounding<T>(4, 20), "dx");
      ops::smooth_l1_loss(mean.data(), dx.data(), x.data(), target.data(), beta, ops::Reduction::mean, n);
      for (int64_t i = 0; i < n; ++i) want_dx[i] /= double(n);
      check_close(mean, Guarded<double>(1, sum / double(n)), rounding<T>(32, sum / double(n) + 1), "mean");
      check_close(dx, want_dx, rounding<T>(4, 20 / double(n)), "dx of the mean");
    }
  }
}

TEST_CASE_TEMPLATE("nll_loss takes the label's entry of each row that is not ignored", T, float, double) {
  for (const int64_t rows : {1, 5, 129}) {
    for (const int64_t cols : {1, 7, 5000}) {
      const Guarded<T> x = random_array<T>(rows * cols, -9, 0), weights = random_array<T>(cols, 0.1, 2);
      const T* weight = rows == 5 ? weights.data() : nullptr;
      const Guarded<int64_t> target = random_target(rows, cols, -100);
      Guarded<double> want(rows), want_d(rows * cols);
      double kept = 0, sum = 0;
      for (int64_t i = 0; i < rows; ++i) {
        if (target[i] == -100) continue;
        const double row_weight = weight != nullptr ? double(weight[target[i]]) : 1;
        sum += want[i] = -row_weight * double(x[i * cols + target[i]]);
        want_d[i * cols + target[i]] = -row_weight;
        kept += row_weight;
      }
      Guarded<T> loss(rows), total(1), d(rows * cols, T(5));
      ops::nll_loss(loss.data(), d.data(), x.data(), target.data(), weight, -100, ops::Reduction::none, rows, cols);
      check_close(loss, want, weight != nullptr ? rounding<T>(1, 18) : 0, "losses");
      check_close(d, want_d, 0, "dlog_probs");
      ops::nll_loss(total.data(), static_cast<T*>(nullptr), x.data(), target.data(), weight, -100, ops::Reduction::sum,
                    rows, cols);
      check_close(total, Guarded<double>(1, sum), rounding<T>(2, sum), "sum");
      ops::nll_loss(total.data(), d.data(), x.data(), target.data(), weight, -100, ops::Reduction::mean, rows, cols);
      for (int64_t i = 0; i < want_d.size(); ++i) want_d[i] /= kept;
      check_close(total, Guarded<double>(1, sum / kept), rounding<T>(2, sum / kept), "mean");
      check_close(d, want_d, rounding<T>(2, 2 / kept), "dlog_probs of the mean");
    }
  }
}

TEST_CASE_TEMPLATE("bce_with_logits is finite and accurate for confident logits", T, float, double) {
  for (const double x : {-1e4, -100.0, -30.0, -17.0, 17.0, 30.0, 100.0, 1e4}) {
    for (const double target : {0.0, 1.0}) {
      const Guarded<T> xs(1, T(x)), targets(1, T(target));
      Guarded<T> loss(1), dx(1);
      double want, want_dx;
      reference::bce_with_logits(want, want_dx, x, target);
      ops::elementwise_loss(ops::ElementwiseLoss::bce_with_logits, loss.data(), dx.data(), xs.data(), targets.data(),
                            ops::Reduction::none, 1);
      // Below the normal numbers of float32 a result may be 0.
      check_close(loss, Guarded<double>(1, want), rounding<T>(4, want) + std::numeric_limits<T>::min(), "loss");
      check_close(dx, Guarded<double>(1, want_dx), rounding<T>(4), "dx");
    }
  }
}
