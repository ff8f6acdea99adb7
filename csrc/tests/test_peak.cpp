#include "harness.h"
#include "ops/peak.h"

using namespace pynn;
using namespace pynn::test;

TEST_CASE_TEMPLATE("the loop of multiply-adds does what it counts", T, float, double) {
  T sum = 0;
  const int64_t rounds = 1000, operations = kernels<T>().peak.multiply_add(&sum, rounds);
  CHECK(operations % (2 * rounds) == 0);
  const double want = 1e-9 * static_cast<double>(operations) / 2;  // each adds 1e-9
  CHECK(std::abs(static_cast<double>(sum) - want) <= rounding<T>(rounds, want));
}

TEST_CASE("the machine has a peak and copies") {
  CHECK(ops::peak_flops() > 0);
  for (const int64_t bytes : {0, 1, 1 << 16}) CHECK(ops::copy_rate(bytes) > 0);
}
