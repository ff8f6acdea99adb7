#include "harness.h"
#include "ops/dropout.h"
#include "reference/dropout.h"

using namespace pynn;
using namespace pynn::test;

TEST_CASE("the generator gives the numbers of its authors' table") {
  using Counter = std::array<uint32_t, 4>;
  CHECK(reference::philox({0, 0, 0, 0}, {0, 0}) == Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(reference::philox({ones, ones, ones, ones}, {ones, ones}) ==
        Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(reference::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE_TEMPLATE("dropout equals the naive one for any size, key, counter and rate", T, float, double) {
  std::vector<int64_t> sizes = kSizes;
  sizes.push_back(100003);  // split over threads
  for (const int64_t n : sizes) {
    for (const double p : {0.0, 0.1, 0.5, 0.999, 1.0}) {
      const Guarded<T> x = random_array<T>(n);
      const uint64_t seed = generator()(), offset = n == 64 ? 0xfffffff0u : generator()();
      Guarded<T> y(n), want(n);
      ops::dropout(y.data(), x.data(), p, seed, offset, n);
      reference::dropout(want.data(), x.data(), p, seed, offset, n);
      check_close(y, want, 0, "dropout");
    }
  }
}
