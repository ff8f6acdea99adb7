#include "ops/dropout.h"

#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

template <class T>
void dropout(T* y, const T* x, double p, uint64_t seed, uint64_t offset, int64_t n) {
  constexpr int64_t kGrain = 4096;  // a multiple of the four elements of a block
  const uint32_t threshold = dropout_threshold(p);
  const T scale = static_cast<T>(dropout_scale(p));
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels<T>().dropout.dropout(y + begin, x + begin, threshold, scale, seed,
                                 offset + static_cast<uint64_t>(begin / 4), end - begin);
  });
}

template void dropout(float*, const float*, double, uint64_t, uint64_t, int64_t);
template void dropout(double*, const double*, double, uint64_t, uint64_t, int64_t);

}  // namespace pynn::ops
