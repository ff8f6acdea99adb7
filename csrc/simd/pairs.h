// Neighbours in memory as two vectors, the even and the odd ones: windows of 2 x 2, and every second element of a row.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

#define PYNN_EVEN_4 0, 2, 4, 6
#define PYNN_EVEN_8 PYNN_EVEN_4, 8, 10, 12, 14
#define PYNN_EVEN_16 PYNN_EVEN_8, 16, 18, 20, 22, 24, 26, 28, 30
#define PYNN_ODD_4 1, 3, 5, 7
#define PYNN_ODD_8 PYNN_ODD_4, 9, 11, 13, 15
#define PYNN_ODD_16 PYNN_ODD_8, 17, 19, 21, 23, 25, 27, 29, 31

template <class T>
PYNN_INLINE Vec<T> even(Vec<T> a, Vec<T> b) {
  if constexpr (Vec<T>::lanes == 16) return __builtin_shufflevector(a.v, b.v, PYNN_EVEN_16);
  if constexpr (Vec<T>::lanes == 8) return __builtin_shufflevector(a.v, b.v, PYNN_EVEN_8);
  if constexpr (Vec<T>::lanes == 4) return __builtin_shufflevector(a.v, b.v, PYNN_EVEN_4);
  if constexpr (Vec<T>::lanes == 2) return __builtin_shufflevector(a.v, b.v, 0, 2);
}
template <class T>
PYNN_INLINE Vec<T> odd(Vec<T> a, Vec<T> b) {
  if constexpr (Vec<T>::lanes == 16) return __builtin_shufflevector(a.v, b.v, PYNN_ODD_16);
  if constexpr (Vec<T>::lanes == 8) return __builtin_shufflevector(a.v, b.v, PYNN_ODD_8);
  if constexpr (Vec<T>::lanes == 4) return __builtin_shufflevector(a.v, b.v, PYNN_ODD_4);
  if constexpr (Vec<T>::lanes == 2) return __builtin_shufflevector(a.v, b.v, 1, 3);
}

// The first and the second half of a0 b0 a1 b1 ...
template <class T>
PYNN_INLINE Vec<T> interleave_low(Vec<T> a, Vec<T> b) {
  if constexpr (Vec<T>::lanes == 16)
    return __builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  if constexpr (Vec<T>::lanes == 8) return __builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 2, 10, 3, 11);
  if constexpr (Vec<T>::lanes == 4) return __builtin_shufflevector(a.v, b.v, 0, 4, 1, 5);
  if constexpr (Vec<T>::lanes == 2) return __builtin_shufflevector(a.v, b.v, 0, 2);
}
template <class T>
PYNN_INLINE Vec<T> interleave_high(Vec<T> a, Vec<T> b) {
  if constexpr (Vec<T>::lanes == 16)
    return __builtin_shufflevector(a.v, b.v, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  if constexpr (Vec<T>::lanes == 8) return __builtin_shufflevector(a.v, b.v, 4, 12, 5, 13, 6, 14, 7, 15);
  if constexpr (Vec<T>::lanes == 4) return __builtin_shufflevector(a.v, b.v, 2, 6, 3, 7);
  if constexpr (Vec<T>::lanes == 2) return __builtin_shufflevector(a.v, b.v, 1, 3);
}

// n pairs of neighbours in memory, taken apart.
template <class T>
struct Pairs {
  Vec<T> left, right;

  PYNN_INLINE Pairs(const T* p, AllLanes) { split(Vec<T>::load(p), Vec<T>::load(p + Vec<T>::lanes)); }
  PYNN_INLINE Pairs(const T* p, int n) {
    constexpr int lanes = Vec<T>::lanes;
    if (2 * n <= lanes) {
      split(Vec<T>::load(p, 2 * n), Vec<T>::zero());
    } else {
      split(Vec<T>::load(p), Vec<T>::load(p + lanes, 2 * n - lanes));
    }
  }
  PYNN_INLINE Pairs(Vec<T> l, Vec<T> r) : left(l), right(r) {}

  PYNN_INLINE void store(T* p, AllLanes) const {
    interleave_low(left, right).store(p);
    interleave_high(left, right).store(p + Vec<T>::lanes);
  }
  PYNN_INLINE void store(T* p, int n) const {
    constexpr int lanes = Vec<T>::lanes;
    if (2 * n <= lanes) {
      interleave_low(left, right).store(p, 2 * n);
    } else {
      interleave_low(left, right).store(p);
      interleave_high(left, right).store(p + lanes, 2 * n - lanes);
    }
  }

 private:
  PYNN_INLINE void split(Vec<T> a, Vec<T> b) {
    left = even(a, b);
    right = odd(a, b);
  }
};

}  // namespace
}  // namespace pynn::PYNN_ISA
