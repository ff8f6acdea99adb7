#include "ops/dropout.h"

#include <cmath>

#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

template <class T>
void dropout(T* y, const T* x, double p, uint64_t seed, uint64_t offset, int64_t n) {
  constexpr int64_t kGrain = 4096;  // a multiple of the four elements of a block
  // bits * 2^-24 >= p, in integers
  const auto threshold = static_cast<uint32_t>(std::ceil(std::ldexp(p, 24)));
  const T scale = p < 1 ? static_cast<T>(1 / (1 - p)) : T(0);
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels<T>().dropout.dropout(y + begin, x + begin, threshold, scale, seed,
                                 offset + static_cast<uint64_t>(begin / 4), end - begin);
  });
}

template void dropout(float*, const float*, double, uint64_t, uint64_t, int64_t);
template void dropout(double*, const double*, double, uint64_t, uint64_t, int64_t);

}  // namespace pynn::ops
