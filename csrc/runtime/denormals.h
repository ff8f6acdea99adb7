// Denormal numbers (below the smallest normal one, 1.2e-38 in float32) as 0, in what kernels read and in what they
// compute. Some processors take a hundred times as long for an operation with one, and training makes them: the
// momentum of a weight whose gradient has become 0 decays until it is denormal, and stays so. XLA does the same.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pynn {

// The mode of this thread's floating-point unit, which decides it.
inline uint64_t float_mode() {
#if defined(__x86_64__)
  return _mm_getcsr();
#elif defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}

inline void set_float_mode(uint64_t mode) {
#if defined(__x86_64__)
  _mm_setcsr(static_cast<unsigned>(mode));
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
#else
  (void)mode;
#endif
}

// For this scope, on this thread; parallel_for gives its threads the mode of the caller.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() { set_float_mode(before_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON); }
#elif defined(__aarch64__)
  FlushDenormals() { set_float_mode(before_ | uint64_t(1) << 24); }
#else
  FlushDenormals() = default;
#endif
  ~FlushDenormals() { set_float_mode(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  const uint64_t before_ = float_mode();
};

}  // namespace pynn
