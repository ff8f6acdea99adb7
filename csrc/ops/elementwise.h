// Elementwise operations of one operand, split over the threads.
#pragma once

#include <cstdint>

#include "runtime/threads.h"

namespace pynn::ops {

constexpr int64_t kElementGrain = 16384;  // a thread gets at least this many elements, or it costs more than it gives

// Calls kernel(begin, end) on ranges of 0..n-1.
template <class Kernel>
void for_elements(int64_t n, const Kernel& kernel) {
  if (n < 2 * kElementGrain) {
    kernel(int64_t(0), n);
  } else {
    parallel_ranges(n, kElementGrain, kernel);
  }
}

}  // namespace pynn::ops
