// Softmax and the losses: ten classes as in MNIST, a thousand, and a vocabulary.
#include "ops/loss.h"

#include "bench/bench.h"
#include "reference/loss.h"

namespace pynn::bench {
namespace {

struct Rows {
  int64_t rows, cols;
};

constexpr Rows kRows[] = {{128, 10}, {128, 1000}, {512, 8192}};
constexpr int64_t kElements = 128 * 784;  // of the elementwise losses
constexpr int64_t kIgnored = -100;

struct Arrays {
  Rows shape;
  int64_t size;
  Array<float> x, y, dy, dx;
  std::vector<double> log_y;  // log(softmax(x)) of the naive twin

  explicit Arrays(Rows s)
      : shape(s),
        size(s.rows * s.cols),
        x(random_array(size, -5, 5)),
        y(size),
        dy(random_array(size)),
        dx(size),
        log_y(static_cast<size_t>(size)) {
    reference::log_softmax(log_y.data(), x.get(), s.rows, s.cols);
    ops::softmax(y.get(), x.get(), s.rows, s.cols);
  }
  double terms() const { return static_cast<double>(shape.cols); }
};

Work make_softmax(Rows s) {
  const Arrays a(s);
  const auto run = [=] { ops::softmax(a.y.get(), a.x.get(), s.rows, s.cols); };
  const auto check = [=] {
    std::vector<double> want(a.log_y);
    for (double& value : want) value = std::exp(value);
    expect_close(a.y.get(), want.data(), a.size, a.terms());
  };
  return {run, check};
}

Work make_softmax_backward(Rows s) {
  const Arrays a(s);
  const auto run = [=] { ops::softmax_backward(a.dx.get(), a.dy.get(), a.y.get(), s.rows, s.cols); };
  const auto check = [=] {
    std::vector<double> want(a.log_y.size());
    reference::softmax_backward(want.data(), a.dy.get(), a.log_y.data(), s.rows, s.cols);
    expect_close(a.dx.get(), want.data(), a.size, a.terms());
  };
  return {run, check};
}

Work make_log_softmax(Rows s) {
  const Arrays a(s);
  const auto run = [=] { ops::log_softmax(a.y.get(), a.x.get(), s.rows, s.cols); };
  const auto check = [=] { expect_close(a.y.get(), a.log_y.data(), a.size, a.terms(), 10); };
  return {run, check};
}

// Loss and gradient in one call, as training uses it.
Work make_cross_entropy(Rows s) {
  const Arrays a(s);
  const std::vector<int64_t> target = random_indices(s.rows, s.cols);
  const Array<float> loss(1);
  const auto run = [=] {
    ops::cross_entropy<float>(loss.get(), a.dx.get(), a.x.get(), target.data(), nullptr, kIgnored, 0.0,
                              ops::Reduction::mean, s.rows, s.cols);
  };
  const auto check = [=] {
    std::vector<double> losses(target.size()), want(a.log_y.size());
    reference::cross_entropy<float>(losses.data(), want.data(), a.x.get(), target.data(), nullptr, kIgnored, 0.0,
                                    s.rows, s.cols);
    double mean = 0;
    for (const double l : losses) mean += l / static_cast<double>(s.rows);
    for (double& value : want) value /= static_cast<double>(s.rows);
    expect_close(loss.get(), &mean, 1, a.terms(), 10);
    expect_close(a.dx.get(), want.data(), a.size, a.terms(), 1 / static_cast<double>(s.rows));
  };
  return {run, check};
}

Work make_elementwise(ops::ElementwiseLoss kind, void (*naive)(double&, double&, double, double)) {
  const Array<float> x = random_array(kElements, -5, 5), target = random_array(kElements, 0, 1), dx(kElements), loss(1);
  const auto run = [=] {
    ops::elementwise_loss(kind, loss.get(), dx.get(), x.get(), target.get(), ops::Reduction::sum, kElements);
  };
  const auto check = [=] {
    double sum = 0;
    std::vector<double> want(static_cast<size_t>(kElements));
    for (int64_t i = 0; i < kElements; ++i) {
      double l;
      naive(l, want[static_cast<size_t>(i)], static_cast<double>(x[i]), static_cast<double>(target[i]));
      sum += l;
    }
    expect_close(loss.get(), &sum, 1, 1, sum);  // sums are kept in double until the end
    expect_close(dx.get(), want.data(), kElements, 4, 10);
  };
  return {run, check};
}

}  // namespace

void add_loss_cases() {
  for (const Rows s : kRows) {
    const std::string shape = std::to_string(s.rows) + "x" + std::to_string(s.cols);
    const int64_t bytes = 4 * s.rows * s.cols;
    add_case("softmax/" + shape, {0, 2 * bytes}, [=] { return make_softmax(s); });
    add_case("softmax_backward/" + shape, {0, 3 * bytes}, [=] { return make_softmax_backward(s); });
    add_case("log_softmax/" + shape, {0, 2 * bytes}, [=] { return make_log_softmax(s); });
    add_case("cross_entropy/" + shape, {0, 2 * bytes}, [=] { return make_cross_entropy(s); });
  }
  const Cost cost{0, 3 * 4 * kElements};
  add_case("mse_loss", cost, [] { return make_elementwise(ops::ElementwiseLoss::mse, reference::mse); });
  add_case("bce_with_logits", cost,
           [] { return make_elementwise(ops::ElementwiseLoss::bce_with_logits, reference::bce_with_logits); });
  add_case("hinge_loss", cost, [] { return make_elementwise(ops::ElementwiseLoss::hinge, reference::hinge); });
}

}  // namespace pynn::bench
