#include "bench/peak.h"

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int kSums = 12;  // enough to hide the latency; with the operands they fit into 16 registers

// Hides from the compiler that x stays the same, so that no product is taken out of the loop.
PYNN_INLINE void opaque(Vec<float>& x) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(x.v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(x.v));
#else
  asm volatile("" : "+m"(x.v));
#endif
}

int64_t multiply_add(float* sink, int64_t rounds) {
  Vec<float> sum[kSums], x(1.0f), y(1e-9f);
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = Vec<float>::zero();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      opaque(x);
      sum[i] = fma(x, y, sum[i]);
    }
  }
  Vec<float> total = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) total = total + sum[i];
  *sink = reduce_add(total);
  return rounds * kSums * 2 * Vec<float>::lanes;
}

void copy(float* y, const float* x, int64_t size) {
  for_lanes<float>(size, [&](int64_t i, auto n) { store(y + i, load(x + i, n), n); });
}

}  // namespace

void register_peak(bench::PeakLoops& loops) { loops = {multiply_add, copy}; }

}  // namespace pynn::PYNN_ISA
