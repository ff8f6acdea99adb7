// Dropout, forward and (the same call on dy) backward.
#pragma once

#include <cstdint>

namespace pynn::ops {

// y[n] = x[n] / (1 - p) where kept, else 0; 0 <= p <= 1. Uses ceil(n / 4) counters from `offset` on.
template <class T>
void dropout(T* y, const T* x, double p, uint64_t seed, uint64_t offset, int64_t n);

}  // namespace pynn::ops
