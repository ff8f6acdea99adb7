#include "kernels/peak.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int kSums = 12;  // enough to hide the latency; with the operands they fit into 16 registers

// Hides from the compiler that x stays the same, so that no product is taken out of the loop.
template <class T>
PYNN_INLINE void opaque(Vec<T>& x) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(x.v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(x.v));
#else
  asm volatile("" : "+m"(x.v));
#endif
}

template <class T>
int64_t multiply_add(T* sink, int64_t rounds) {
  Vec<T> sum[kSums], x(T(1)), y(T(1e-9));
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sum[i] = Vec<T>::zero();
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      opaque(x);
      sum[i] = fma(x, y, sum[i]);
    }
  }
  Vec<T> total = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) total = total + sum[i];
  *sink = reduce_add(total);
  return rounds * kSums * 2 * Vec<T>::lanes;
}

template <class T>
PeakKernels<T> table() {
  return {multiply_add<T>};
}

}  // namespace

void register_peak(KernelSet& set) {
  set.f32.peak = table<float>();
  set.f64.peak = table<double>();
}

}  // namespace pynn::PYNN_ISA
