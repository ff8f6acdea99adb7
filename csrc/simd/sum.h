// Long sums of Vec<T>: over blocks in T, beyond them in double.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int64_t kSumBlock = 512;

// v in the first n lanes, `other` in the rest: what a tail may add to a sum or compare with a maximum.
template <class T>
PYNN_INLINE Vec<T> first_or(Vec<T> v, AllLanes, T) {
  return v;
}
template <class T>
PYNN_INLINE Vec<T> first_or(Vec<T> v, int n, T other) {
  alignas(64) static constexpr T index[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(Vec<T>::load(index) < Vec<T>(T(n)), v, Vec<T>(other));
}

// The sum over 0..n-1 of term(i, lanes).
template <class T, class Term>
PYNN_INLINE double sum_terms(int64_t n, Term term) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    Vec<T> sum = Vec<T>::zero();
    for_lanes<T>(n - begin < kSumBlock ? n - begin : kSumBlock,
                 [&](int64_t i, auto lanes) { sum = sum + first_or(term(begin + i, lanes), lanes, T(0)); });
    total += static_cast<double>(reduce_add(sum));
  }
  return total;
}

struct SumPair {
  double a, b;
};

// The sums over rows [n, l], `stride` apart, of a and b * a, where terms(at, lanes, a, b) sets both for the elements at
// the offset `at`; a must be 0 beyond a tail. Short rows share their vectors of sums.
template <class T, class Terms>
PYNN_INLINE SumPair sum_pair(int64_t stride, int64_t n, int64_t l, Terms terms) {
  SumPair total{0, 0};
  Vec<T> sum_a = Vec<T>::zero(), sum_b = Vec<T>::zero();
  int64_t pending = 0;
  const auto flush = [&] {
    total.a += static_cast<double>(reduce_add(sum_a));
    total.b += static_cast<double>(reduce_add(sum_b));
    sum_a = sum_b = Vec<T>::zero();
    pending = 0;
  };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t begin = 0; begin < l; begin += kSumBlock) {
      const int64_t count = l - begin < kSumBlock ? l - begin : kSumBlock;
      for_lanes<T>(count, [&](int64_t j, auto lanes) {
        Vec<T> a, b;
        terms(i * stride + begin + j, lanes, a, b);
        sum_a = sum_a + a;
        sum_b = fma(a, b, sum_b);
      });
      pending += count;
      if (pending >= kSumBlock) flush();
    }
  }
  flush();
  return total;
}

}  // namespace
}  // namespace pynn::PYNN_ISA
