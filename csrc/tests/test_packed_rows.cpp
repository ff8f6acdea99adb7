#include <algorithm>
#include <limits>
#include <stdexcept>

#include "harness.h"
#include "ops/packed_rows.h"
#include "reference/gemm.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

struct Size {
  int64_t rows, columns, out, count;  // count: rows of a batch
};

// One and more words of bits, tasks of packing, groups of outputs, passes over the batch, and parts of each.
const std::vector<Size> kLayers = {{1, 1, 1, 1},       {3, 64, 16, 5},    {20, 65, 17, 64},
                                   {60, 784, 100, 70}, {50, 129, 301, 9}, {2100, 70, 33, 300}};
const std::vector<int> kThreads = {1, 2, 3};

template <class T>
Guarded<T> mostly_zeros(int64_t rows, int64_t columns) {
  Guarded<T> x = random_array<T>(rows * columns);
  for (int64_t i = 0; i < x.size(); ++i) {
    if (generator()() % 5 != 0 || i % columns % 7 == 3) x[i] = i % 2 == 0 ? T(0) : T(-0.0);
  }
  return x;
}

// The rows of a batch, some of them twice.
std::vector<int64_t> numbers_of(const Size& s) {
  std::vector<int64_t> numbers(static_cast<size_t>(s.count));
  for (int64_t& number : numbers) number = static_cast<int64_t>(generator()() % static_cast<uint64_t>(s.rows));
  return numbers;
}

}  // namespace

TEST_CASE_TEMPLATE("layers on packed rows are the naive ones, with the same bits on any threads", T, float, double) {
  for (const Size s : kLayers) {
    const int64_t line = ops::kPackedLine<T>, width = (s.out / line + 1 + s.out % 2) * line;
    const Guarded<T> x = mostly_zeros<T>(s.rows, s.columns), bias = random_array<T>(s.out);
    const Guarded<T> dy = random_array<T>(s.count * s.out);
    Guarded<T> weight = random_array<T>(s.columns * width), usual(s.columns * s.out), batch(s.count * s.columns);
    for (int64_t i = 0; i < weight.size(); ++i) {
      if (i % width >= s.out) {
        weight[i] = T(0);
      } else {
        usual[i / width * s.out + i % width] = weight[i];
      }
    }
    const std::vector<int64_t> numbers = numbers_of(s);
    for (int64_t i = 0; i < batch.size(); ++i) {
      batch[i] = x[numbers[static_cast<size_t>(i / s.columns)] * s.columns + i % s.columns];
    }
    const auto packed = ops::PackedRows<T>::of_dense(x.data(), s.rows, s.columns);
    REQUIRE(bool(packed));
    CHECK(packed->rows() == s.rows);
    Guarded<double> want(s.count * s.out), dx(s.count * s.columns), want_dweight(s.out * s.columns), want_dbias(s.out);
    reference::gemm(want.data(), batch.data(), false, usual.data(), false, bias.data(), s.count, s.out, s.columns);
    for (const auto activation : {ops::Activation::none, ops::Activation::relu}) {
      const bool relu = activation == ops::Activation::relu;
      Guarded<T> first_y(0), first_dweight(0);
      for (const int threads : kThreads) {
        const Threads scope(threads);
        Guarded<T> y(s.count * s.out), dweight(s.columns * width), dbias(s.out), dz = dy, turned(s.out * s.columns);
        ops::packed_linear(y.data(), *packed, numbers.data(), weight.data(), bias.data(), activation, s.count, s.out,
                           width);
        Guarded<double> want_y = want;
        for (int64_t i = 0; i < y.size(); ++i) {
          if (relu) want_y[i] = std::max(want_y[i], 0.0);
          if (relu && y[i] <= 0) dz[i] = T(0);
        }
        check_close(y, want_y, rounding<T>(double(s.columns) + 1), "packed_linear");
        reference::linear_backward(dx.data(), want_dweight.data(), want_dbias.data(), dz.data(), batch.data(),
                                   Guarded<T>(s.out * s.columns).data(), s.count, s.columns, s.out);
        ops::packed_linear_backward(dweight.data(), dbias.data(), dy.data(), y.data(), *packed, numbers.data(),
                                    activation, s.count, s.out, width);
        for (int64_t i = 0; i < dweight.size(); ++i) {
          if (i % width < s.out) {
            turned[i % width * s.columns + i / width] = dweight[i];
          } else {
            REQUIRE(dweight[i] == 0);
          }
        }
        check_close(turned, want_dweight, rounding<T>(double(s.count)), "dweight");
        check_close(dbias, want_dbias, rounding<T>(double(s.count)), "dbias");
        if (threads == 1) {
          first_y = y;
          first_dweight = dweight;
        }
        check_close(y, first_y, 0, "packed_linear on other threads");
        check_close(dweight, first_dweight, 0, "dweight on other threads");
      }
    }
  }
}

TEST_CASE_TEMPLATE("rows are packed if they are finite and mostly zeros", T, float, double) {
  const int64_t rows = 70, columns = 200;
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
    Guarded<T> x = mostly_zeros<T>(rows, columns);
    CHECK(bool(ops::PackedRows<T>::of_dense(x.data(), rows, columns)));
    x[rows * columns - 1] = bad;
    CHECK_FALSE(bool(ops::PackedRows<T>::of_dense(x.data(), rows, columns)));
  }
  const Guarded<T> dense = random_array<T>(rows * columns, 1, 2);
  CHECK_FALSE(bool(ops::PackedRows<T>::of_dense(dense.data(), rows, columns)));
  const BeforeNoAccess<T> last(mostly_zeros<T>(rows, columns));
  CHECK(bool(ops::PackedRows<T>::of_dense(last.data(), rows, columns)));
}

TEST_CASE("lists of values in any order pack, and those that leave the matrix are refused") {
  const std::vector<int64_t> offsets = {0, 3, 3, 5}, indices = {69, 0, 69, 64, 1};
  const std::vector<double> values = {1, 2, 3, 0, 5};
  Guarded<double> x(3 * 70), weight = random_array<double>(70 * 8), bias(8), y(3 * 8), want(3 * 8);
  x[69] = 4;
  x[0] = 2;
  x[2 * 70 + 1] = 5;
  const std::vector<int64_t> numbers = {0, 1, 2};
  const auto packed = ops::PackedRows<double>::of_csr(offsets.data(), indices.data(), values.data(), 5, 3, 70);
  REQUIRE(bool(packed));
  ops::packed_linear(y.data(), *packed, numbers.data(), weight.data(), bias.data(), ops::Activation::none, 3, 8, 8);
  reference::gemm(want.data(), x.data(), false, weight.data(), false, bias.data(), 3, 8, 70);
  check_close(y, want, rounding<double>(8, 8), "packed_linear");
  const auto pack = [&](int64_t count, int64_t columns) {
    return ops::PackedRows<double>::of_csr(offsets.data(), indices.data(), values.data(), count, 3, columns);
  };
  CHECK_THROWS_AS(pack(4, 70), std::out_of_range);
  CHECK_THROWS_AS(pack(5, 69), std::out_of_range);
  const std::vector<int64_t> outside = {0, 3, 2};
  CHECK_THROWS_AS(
      ops::packed_linear(y.data(), *packed, outside.data(), weight.data(), bias.data(), ops::Activation::none, 3, 8, 8),
      std::out_of_range);
}
