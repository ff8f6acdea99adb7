#include "harness.h"
#include "ops/optim.h"
#include "reference/optim.h"

using namespace pynn;
using namespace pynn::test;

namespace {

// Arrays around the sizes where tasks and vectors are cut.
const std::vector<int64_t> kArrays = {1, 7, 0, 17, 33, 16384, 5, 16300, 40001, 3};

template <class T>
struct List {
  std::vector<Guarded<T>> arrays;

  explicit List(double low = -1, double high = 1) {
    for (const int64_t size : kArrays) arrays.push_back(random_array<T>(size, low, high));
  }
  ops::ArrayList<T> pointers() {
    ops::ArrayList<T> list;
    for (Guarded<T>& array : arrays) {
      list.data.push_back(array.data());
      list.sizes.push_back(array.size());
    }
    return list;
  }
  List<double> in_double() const {
    List<double> copy;
    for (size_t a = 0; a < arrays.size(); ++a) {
      for (int64_t i = 0; i < arrays[a].size(); ++i) copy.arrays[a][i] = static_cast<double>(arrays[a][i]);
    }
    return copy;
  }
};

template <class T>
void check_lists(const List<T>& got, const List<double>& want, double tolerance, const std::string& what) {
  for (size_t a = 0; a < got.arrays.size(); ++a) check_close(got.arrays[a], want.arrays[a], tolerance, what);
}

}  // namespace

TEST_CASE_TEMPLATE("sgd equals the naive step", T, float, double) {
  for (const ops::SgdOptions& o :
       {ops::SgdOptions{0.1, 0, 0, 0, false, true}, ops::SgdOptions{0.1, 0, 0, 0.3, false, false},
        ops::SgdOptions{0.1, 0.9, 0.2, 0.01, false, false}, ops::SgdOptions{0.1, 0.9, 0.2, 0.01, false, true},
        ops::SgdOptions{0.1, 0.9, 0, 0, true, false}, ops::SgdOptions{0.1, 0.9, 0, 0.3, true, true}}) {
    List<T> param, buffer, grad;
    List<double> want = param.in_double(), want_buffer = buffer.in_double();
    for (size_t a = 0; a < kArrays.size(); ++a) {
      for (int64_t i = 0; i < kArrays[a]; ++i) {
        reference::sgd(want.arrays[a][i], want_buffer.arrays[a][i], double(grad.arrays[a][i]), o);
      }
    }
    ops::sgd(param.pointers(), {grad.pointers()}, o.momentum != 0 ? buffer.pointers() : ops::ArrayList<T>{}, o);
    check_lists(param, want, rounding<T>(3), "param");
    check_lists(buffer, want_buffer, rounding<T>(3, 2), "momentum_buffer");
  }
}

TEST_CASE_TEMPLATE("sgd without weight decay keeps infinite parameters from NaN", T, float, double) {
  T param = std::numeric_limits<T>::infinity(), grad = 1;
  ops::sgd<T>({{&param}, {1}}, {{{&grad}, {1}}}, {}, {0.1, 0, 0, 0, false, true});
  CHECK(param == std::numeric_limits<T>::infinity());
}

TEST_CASE_TEMPLATE("adam equals the naive step", T, float, double) {
  for (const ops::AdamOptions& o :
       {ops::AdamOptions{1, 0.01, 0.9, 0.999, 1e-8, 0, false}, ops::AdamOptions{7, 0.01, 0.9, 0.999, 1e-8, 0.1, false},
        ops::AdamOptions{7, 0.01, 0.9, 0.999, 1e-3, 0.1, true}, ops::AdamOptions{2, 0.01, 0, 0, 1e-8, 0, false},
        ops::AdamOptions{int64_t(1) << 40, 0.01, 0.5, 0.9, 1e-8, 0, false}}) {
    List<T> param, exp_avg, exp_avg_sq(0.01, 1), grad;
    List<double> want = param.in_double(), want_avg = exp_avg.in_double(), want_avg_sq = exp_avg_sq.in_double();
    for (size_t a = 0; a < kArrays.size(); ++a) {
      for (int64_t i = 0; i < kArrays[a]; ++i) {
        // Away from 0, where m / sqrt(v) of beta2 = 0 is the sign of grad and any error of it is multiplied.
        T& g = grad.arrays[a][i];
        g += g < 0 ? T(-0.1) : T(0.1);
        reference::adam(want.arrays[a][i], want_avg.arrays[a][i], want_avg_sq.arrays[a][i], double(g), o);
      }
    }
    ops::adam(param.pointers(), {grad.pointers()}, exp_avg.pointers(), exp_avg_sq.pointers(), o);
    check_lists(exp_avg, want_avg, rounding<T>(3), "exp_avg");
    check_lists(exp_avg_sq, want_avg_sq, rounding<T>(3), "exp_avg_sq");
    check_lists(param, want, rounding<T>(4), "param");
  }
}

TEST_CASE_TEMPLATE("rmsprop equals the naive step", T, float, double) {
  for (const bool centred : {false, true}) {
    for (const ops::RmspropOptions& o :
         {ops::RmspropOptions{0.01, 0.99, 1e-8, 0, 0}, ops::RmspropOptions{0.01, 0.5, 1e-3, 0.1, 0.9}}) {
      // Gradients' mean and mean square far apart, so that centring loses few digits.
      List<T> param, square_avg(0.5, 1), grad_avg(-0.5, 0.5), buffer, grad;
      List<double> want = param.in_double(), want_square = square_avg.in_double(), want_grad = grad_avg.in_double();
      List<double> want_buffer = buffer.in_double();
      for (size_t a = 0; a < kArrays.size(); ++a) {
        for (int64_t i = 0; i < kArrays[a]; ++i) {
          reference::rmsprop(want.arrays[a][i], want_square.arrays[a][i], centred ? &want_grad.arrays[a][i] : nullptr,
                             want_buffer.arrays[a][i], double(grad.arrays[a][i]), o);
        }
      }
      ops::rmsprop(param.pointers(), {grad.pointers()}, square_avg.pointers(),
                   centred ? grad_avg.pointers() : ops::ArrayList<T>{},
                   o.momentum != 0 ? buffer.pointers() : ops::ArrayList<T>{}, o);
      check_lists(square_avg, want_square, rounding<T>(4), "square_avg");
      check_lists(grad_avg, want_grad, rounding<T>(3), "grad_avg");
      check_lists(buffer, want_buffer, rounding<T>(16, 4), "momentum_buffer");
      check_lists(param, want, rounding<T>(4), "param");
    }
  }
}

TEST_CASE_TEMPLATE("centred rmsprop takes a variance that rounding made negative as 0, and keeps NaN", T, float,
                   double) {
  Guarded<T> param(1, T(1)), square_avg(1, T(0.25)), grad_avg(1, T(1)), grad(1, T(1));
  const ops::RmspropOptions o{0.5, 0.5, 0.5, 0, 0};
  const auto step = [&] {
    ops::rmsprop<T>({{param.data()}, {1}}, {{{grad.data()}, {1}}}, {{square_avg.data()}, {1}}, {{grad_avg.data()}, {1}},
                    {}, o);
  };
  step();  // 0.625 - 1 < 0
  CHECK(param[0] == T(0));
  grad[0] = std::numeric_limits<T>::quiet_NaN();
  step();
  CHECK(std::isnan(param[0]));
}

TEST_CASE_TEMPLATE("adagrad equals the naive step", T, float, double) {
  for (const ops::AdagradOptions& o :
       {ops::AdagradOptions{1, 0.01, 0, 1e-10, 0}, ops::AdagradOptions{5, 0.1, 0.5, 1e-3, 0.1}}) {
    List<T> param, sum(0.01, 1), grad;
    List<double> want = param.in_double(), want_sum = sum.in_double();
    for (size_t a = 0; a < kArrays.size(); ++a) {
      for (int64_t i = 0; i < kArrays[a]; ++i) {
        reference::adagrad(want.arrays[a][i], want_sum.arrays[a][i], double(grad.arrays[a][i]), o);
      }
    }
    ops::adagrad(param.pointers(), {grad.pointers()}, sum.pointers(), o);
    check_lists(sum, want_sum, rounding<T>(3, 2), "sum");
    check_lists(param, want, rounding<T>(4), "param");
  }
}

TEST_CASE_TEMPLATE("adadelta equals the naive step", T, float, double) {
  for (const ops::AdadeltaOptions& o :
       {ops::AdadeltaOptions{1, 0.9, 1e-6, 0}, ops::AdadeltaOptions{0.5, 0.5, 1e-3, 0.1}}) {
    List<T> param, square_avg(0.01, 1), acc_delta(0, 0.01), grad;
    List<double> want = param.in_double(), want_square = square_avg.in_double(), want_delta = acc_delta.in_double();
    for (size_t a = 0; a < kArrays.size(); ++a) {
      for (int64_t i = 0; i < kArrays[a]; ++i) {
        reference::adadelta(want.arrays[a][i], want_square.arrays[a][i], want_delta.arrays[a][i],
                            double(grad.arrays[a][i]), o);
      }
    }
    ops::adadelta(param.pointers(), {grad.pointers()}, square_avg.pointers(), acc_delta.pointers(), o);
    check_lists(square_avg, want_square, rounding<T>(4), "square_avg");
    check_lists(acc_delta, want_delta, rounding<T>(8), "acc_delta");
    check_lists(param, want, rounding<T>(8), "param");
  }
}

TEST_CASE_TEMPLATE("l2_norm is that of all elements, summed in double", T, float, double) {
  List<T> list;
  double sum = 0;
  for (const Guarded<T>& array : list.arrays) {
    for (int64_t i = 0; i < array.size(); ++i) sum += double(array[i]) * double(array[i]);
  }
  CHECK(std::abs(ops::l2_norm(list.pointers()) - std::sqrt(sum)) <= rounding<double>(1000, std::sqrt(sum)));
  CHECK(ops::l2_norm(ops::ArrayList<T>{}) == 0);
  for (const double magnitude : {0.0, double(std::numeric_limits<T>::max()) / 8, double(std::numeric_limits<T>::min()),
                                 std::numeric_limits<double>::infinity()}) {
    Guarded<T> x(4, static_cast<T>(magnitude));
    const double norm = ops::l2_norm<T>({{x.data()}, {4}}), want = 2 * static_cast<double>(x[0]);
    CHECK((norm == want || std::abs(norm - want) <= rounding<double>(1, want)));
  }
}

TEST_CASE_TEMPLATE("scale and all_finite reach every element", T, float, double) {
  List<T> list;
  List<double> want = list.in_double();
  for (Guarded<double>& array : want.arrays) {
    for (int64_t i = 0; i < array.size(); ++i) array[i] *= 0.25;
  }
  ops::scale(list.pointers(), 0.25);
  check_lists(list, want, 0, "scale");
  CHECK(ops::all_finite(list.pointers()));
  for (size_t a = 0; a < kArrays.size(); ++a) {
    for (const int64_t i : {int64_t(0), kArrays[a] / 2, kArrays[a] - 1}) {
      if (kArrays[a] == 0) continue;
      for (const T bad : {std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(),
                          std::numeric_limits<T>::quiet_NaN()}) {
        const T before = list.arrays[a][i];
        list.arrays[a][i] = bad;
        CHECK_FALSE(ops::all_finite(list.pointers()));
        list.arrays[a][i] = before;
      }
    }
  }
}
