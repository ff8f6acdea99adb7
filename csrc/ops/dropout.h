// Dropout, forward and (the same call on dy) backward.
#pragma once

#include <cmath>
#include <cstdint>

namespace pynn::ops {

// What the kernels take for the probability p: an element is kept if its 24 random bits are at least the threshold.
inline uint32_t dropout_threshold(double p) { return static_cast<uint32_t>(std::ceil(std::ldexp(p, 24))); }
inline double dropout_scale(double p) { return p < 1 ? 1 / (1 - p) : 0; }

// y[n] = x[n] / (1 - p) where kept, else 0; 0 <= p <= 1. Uses ceil(n / 4) counters from `offset` on.
template <class T>
void dropout(T* y, const T* x, double p, uint64_t seed, uint64_t offset, int64_t n);

}  // namespace pynn::ops
