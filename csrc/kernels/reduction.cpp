#include "kernels/reduction.h"

#include <math.h>

#include "kernels/narrow.h"
#include "kernels/table.h"
#include "simd/transpose.h"

namespace pynn::PYNN_ISA {
namespace {

// What a reduction is made of: its value of nothing, its step, and how two results combine. `fill` stands in for the
// elements beyond the end of a row and leaves the result as it is.

template <class T>
struct Sum {
  static PYNN_INLINE T fill(T) { return T(0); }
  static PYNN_INLINE Vec<T> start() { return Vec<T>::zero(); }
  static PYNN_INLINE Vec<T> step(Vec<T> sum, Vec<T> x, Vec<T>) { return sum + x; }
  static PYNN_INLINE Vec<T> combine(Vec<T> a, Vec<T> b) { return a + b; }
  static PYNN_INLINE T over_lanes(Vec<T> sum) { return reduce_add(sum); }
};

template <class T>
struct SquaredDeviations : Sum<T> {
  static PYNN_INLINE T fill(T center) { return center; }
  static PYNN_INLINE Vec<T> step(Vec<T> sum, Vec<T> x, Vec<T> center) {
    const Vec<T> d = x - center;
    return fma(d, d, sum);
  }
};

template <class T>
PYNN_INLINE bool any_nan(Vec<T> x) {
  return reduce_max(select(x == x, Vec<T>::zero(), Vec<T>(T(1)))) > T(0);
}

template <class T>
struct Max {
  static PYNN_INLINE T fill(T) { return T(-INFINITY); }
  static PYNN_INLINE Vec<T> start() { return Vec<T>(T(-INFINITY)); }
  static PYNN_INLINE Vec<T> step(Vec<T> best, Vec<T> x, Vec<T>) { return combine(best, x); }
  // A NaN in b fails the comparison and is taken; once in a, it stays.
  static PYNN_INLINE Vec<T> combine(Vec<T> a, Vec<T> b) { return select((b <= a) | !(a == a), a, b); }
  static PYNN_INLINE T over_lanes(Vec<T> best) { return any_nan(best) ? T(NAN) : reduce_max(best); }
};

template <class T>
struct Min {
  static PYNN_INLINE T fill(T) { return T(INFINITY); }
  static PYNN_INLINE Vec<T> start() { return Vec<T>(T(INFINITY)); }
  static PYNN_INLINE Vec<T> step(Vec<T> best, Vec<T> x, Vec<T>) { return combine(best, x); }
  static PYNN_INLINE Vec<T> combine(Vec<T> a, Vec<T> b) { return select((a <= b) | !(a == a), a, b); }
  static PYNN_INLINE T over_lanes(Vec<T> best) { return any_nan(best) ? T(NAN) : -reduce_max(Vec<T>(T(-0.0)) - best); }
};

// True in the first n lanes.
template <class T>
PYNN_INLINE Mask<T> first_lanes(int n) {
  T ones[Vec<T>::lanes];
  for (T& one : ones) one = T(1);
  return Vec<T>::zero() < Vec<T>::load(ones, n);
}

template <template <class> class R, class T>
PYNN_INLINE void narrow_rows(T* y, const T* x, const T* center, int64_t count, int64_t n, int64_t ldx) {
  constexpr int64_t lanes = Vec<T>::lanes;
  T turned[kNarrow * lanes];
  for (int64_t r = 0; r < count; r += lanes) {
    const int64_t some = count - r < lanes ? count - r : lanes;
    turn(turned, lanes, x + r * ldx, ldx, some, n);
    const Vec<T> middle = center != nullptr ? Vec<T>::load(center + r, static_cast<int>(some)) : Vec<T>::zero();
    Vec<T> total = R<T>::start();
    for (int64_t j = 0; j < n; ++j) total = R<T>::step(total, Vec<T>::load(turned + j * lanes), middle);
    total.store(y + r, static_cast<int>(some));
  }
}

template <template <class> class R, class T>
void rows(T* y, const T* x, const T* center, int64_t count, int64_t n, int64_t ldx) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr int Width = 8;  // accumulators: they hide the latency of the addition and shorten each sum
  const int tail = static_cast<int>(n % lanes);
  if (is_narrow<T>(n)) return narrow_rows<R>(y, x, center, count, n, ldx);
  const Mask<T> in_tail = first_lanes<T>(tail);
  for (int64_t r = 0; r < count; ++r, x += ldx) {
    const T c = center != nullptr ? center[r] : T(0);
    const Vec<T> middle(c);
    Vec<T> total = R<T>::start();
    int64_t i = 0;
    if (n >= Width * lanes) {
      Vec<T> part[Width];
#pragma GCC unroll 8
      for (int w = 0; w < Width; ++w) part[w] = R<T>::start();
      for (; i + Width * lanes <= n; i += Width * lanes) {
#pragma GCC unroll 8
        for (int w = 0; w < Width; ++w) part[w] = R<T>::step(part[w], Vec<T>::load(x + i + w * lanes), middle);
      }
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) part[w] = R<T>::combine(part[w], part[w + 4]);
      total = R<T>::combine(R<T>::combine(part[0], part[2]), R<T>::combine(part[1], part[3]));
    }
    for (; i + lanes <= n; i += lanes) total = R<T>::step(total, Vec<T>::load(x + i), middle);
    if (tail != 0) {
      total = R<T>::step(total, select(in_tail, Vec<T>::load(x + i, tail), Vec<T>(R<T>::fill(c))), middle);
    }
    y[r] = R<T>::over_lanes(total);
  }
}

// Columns of four vectors side by side from the first row to the last; of those that are left, each fourth row by
// itself, so that one operation does not wait for the other.
template <template <class> class R, class T>
void columns(T* y, const T* x, const T* center, int64_t n, int64_t cols, int64_t ldx) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr int Width = 4;                        // vectors side by side
  constexpr int Parts = is_narrow<T>(0) ? 4 : 1;  // of the rows; one is enough where vectors are short
  int64_t j = 0;
  for (; j + Width * lanes <= cols; j += Width * lanes) {
    Vec<T> total[Width], middle[Width];
#pragma GCC unroll 4
    for (int w = 0; w < Width; ++w) {
      total[w] = R<T>::start();
      middle[w] = center != nullptr ? Vec<T>::load(center + j + w * lanes) : Vec<T>::zero();
    }
    for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int w = 0; w < Width; ++w) {
        total[w] = R<T>::step(total[w], Vec<T>::load(x + i * ldx + j + w * lanes), middle[w]);
      }
    }
#pragma GCC unroll 4
    for (int w = 0; w < Width; ++w) total[w].store(y + j + w * lanes);
  }
  for_lanes<T>(cols - j, [&](int64_t k, auto some) {
    Vec<T> part[Parts];
#pragma GCC unroll 4
    for (int p = 0; p < Parts; ++p) part[p] = R<T>::start();
    const Vec<T> middle = center != nullptr ? load(center + j + k, some) : Vec<T>::zero();
    // No pointer is moved on, for x may be null where n is 0.
    const auto row = [&](int64_t i) __attribute__((always_inline)) { return load(x + i * ldx + j + k, some); };
    int64_t i = 0;
    for (; i + Parts <= n; i += Parts) {
#pragma GCC unroll 4
      for (int p = 0; p < Parts; ++p) part[p] = R<T>::step(part[p], row(i + p), middle);
    }
    for (; i < n; ++i) part[0] = R<T>::step(part[0], row(i), middle);
    for (int p = 1; p < Parts; ++p) part[0] = R<T>::combine(part[0], part[p]);
    store(y + j + k, part[0], some);
  });
}

template <class T>
int64_t find(const T* x, T value, int64_t n) {
  constexpr int lanes = Vec<T>::lanes, Width = 4;
  const Vec<T> wanted(value);
  int64_t i = 0;
  for (; i + Width * lanes <= n; i += Width * lanes) {
    Vec<T> found = Vec<T>::zero();
#pragma GCC unroll 4
    for (int w = 0; w < Width; ++w) {
      const Vec<T> v = Vec<T>::load(x + i + w * lanes);
      found = select((v == wanted) | !(v == v), Vec<T>(T(1)), found);
    }
    if (reduce_max(found) > T(0)) break;
  }
  while (i < n && x[i] != value && x[i] == x[i]) ++i;
  return i;
}

template <class T>
void find_columns(int64_t* index, const T* x, const T* value, int64_t n, int64_t cols, int64_t ldx) {
  // From the last row, so that the first match is what stays.
  for (int64_t i = n - 1; i >= 0; --i) {
    const T* row = x + i * ldx;
    for (int64_t j = 0; j < cols; ++j) index[j] = row[j] == value[j] || row[j] != row[j] ? i : index[j];
  }
}

template <class T>
ReductionKernels<T> table() {
  return {{rows<Sum, T>, columns<Sum, T>},
          {rows<SquaredDeviations, T>, columns<SquaredDeviations, T>},
          {rows<Max, T>, columns<Max, T>},
          {rows<Min, T>, columns<Min, T>},
          find<T>,
          find_columns<T>};
}

}  // namespace

void register_reduction(KernelSet& set) {
  set.f32.reduction = table<float>();
  set.f64.reduction = table<double>();
}

}  // namespace pynn::PYNN_ISA
