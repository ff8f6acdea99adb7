// Class labels: integers of any width, compared and counted.
#pragma once

#include <cstdint>

namespace pynn::ops {

template <class Integer>
void to_int64(int64_t* y, const Integer* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<int64_t>(x[i]);
}

// y[i] = a[i] == b[i], or b[0] if b is one element
inline void equal(bool* y, const int64_t* a, const int64_t* b, bool one, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] == b[one ? 0 : i];
}

inline int64_t count(const bool* x, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += x[i] ? 1 : 0;
  return sum;
}

// NaN of nothing, as NumPy's mean.
inline double share(const bool* x, int64_t n) { return static_cast<double>(count(x, n)) / static_cast<double>(n); }

}  // namespace pynn::ops
