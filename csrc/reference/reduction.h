// The naive twins of the reductions of x [outer, n, inner] over n. Sums are in long double: one after another in
// double they would be less exact than the kernels.
#pragma once

#include <cmath>
#include <cstdint>

namespace pynn::reference {

template <class T, class Step>
void reduce(double* y, double start, const T* x, int64_t outer, int64_t n, int64_t inner, const Step& step) {
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < inner; ++j) {
      long double result = start;
      for (int64_t k = 0; k < n; ++k) result = step(result, x[(i * n + k) * inner + j]);
      y[i * inner + j] = static_cast<double>(result);
    }
  }
}

inline long double sum_step(long double sum, long double x) { return sum + x; }
// A NaN that was met stays: no comparison with it holds.
inline long double max_step(long double best, long double x) { return std::isnan(x) || x > best ? x : best; }
inline long double min_step(long double best, long double x) { return std::isnan(x) || x < best ? x : best; }

template <class T>
void var(double* y, const T* x, int64_t correction, int64_t outer, int64_t n, int64_t inner) {
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < inner; ++j) {
      const auto at = [&](int64_t k) { return static_cast<long double>(x[(i * n + k) * inner + j]); };
      long double total = 0, squares = 0;
      for (int64_t k = 0; k < n; ++k) total += at(k);
      const long double mean = total / static_cast<long double>(n);
      for (int64_t k = 0; k < n; ++k) squares += (at(k) - mean) * (at(k) - mean);
      y[i * inner + j] = static_cast<double>(squares / static_cast<long double>(n - correction));
    }
  }
}

// The first NaN, or else the first of the largest.
template <class T>
void argmax(int64_t* y, const T* x, int64_t outer, int64_t n, int64_t inner) {
  for (int64_t i = 0; i < outer; ++i) {
    for (int64_t j = 0; j < inner; ++j) {
      int64_t best = 0;
      for (int64_t k = 1; k < n; ++k) {
        const T value = x[(i * n + k) * inner + j], held = x[(i * n + best) * inner + j];
        if (!std::isnan(held) && (std::isnan(value) || value > held)) best = k;
      }
      y[i * inner + j] = best;
    }
  }
}

}  // namespace pynn::reference
