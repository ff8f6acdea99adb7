// How many threads some work is worth.
#pragma once

#include <cstdint>

#include "runtime/threads.h"

namespace pynn::ops {

// Multiply-adds below which a second thread costs more than it gives, if it waits for work or has to be woken.
constexpr int64_t kSerialWork = int64_t(1) << 17;
constexpr int64_t kWakingWork = int64_t(1) << 19;

// For so many multiply-adds; in double, where a product of sizes cannot overflow.
inline int64_t threads_for(double work) {
  return work < kSerialWork ? 1 : work < kWakingWork ? awake_threads() : num_threads();
}

}  // namespace pynn::ops
