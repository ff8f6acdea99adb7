#include "kernels/broadcast.h"

#include "kernels/table.h"
#include "simd/math.h"

namespace pynn::PYNN_ISA {
namespace {

// Calls body(k, lanes, va, vb) for every vector of y[rows, n], k its offset. At most one operand has col == 0: an axis
// along which both repeat has size 1 and is dropped.
template <class T, class Body>
PYNN_INLINE void for_pairs(Operand<T> a, Operand<T> b, int64_t rows, int64_t n, Body body) {
  for (int64_t i = 0; i < rows; ++i) {
    const T *pa = a.data + i * a.row, *pb = b.data + i * b.row;
    const int64_t y = i * n;
    if (a.col == 0) {
      const Vec<T> va(*pa);
      for_lanes<T>(n, [&](int64_t j, auto lanes) { body(y + j, lanes, va, load(pb + j, lanes)); });
    } else if (b.col == 0) {
      const Vec<T> vb(*pb);
      for_lanes<T>(n, [&](int64_t j, auto lanes) { body(y + j, lanes, load(pa + j, lanes), vb); });
    } else {
      for_lanes<T>(n, [&](int64_t j, auto lanes) { body(y + j, lanes, load(pa + j, lanes), load(pb + j, lanes)); });
    }
  }
}

template <class T, class Function>
PYNN_INLINE void binary(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n, Function f) {
  for_pairs(a, b, rows, n, [&](int64_t k, auto lanes, Vec<T> va, Vec<T> vb) { store(y + k, f(va, vb), lanes); });
}

template <class T>
void add(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return u + v; });
}
template <class T>
void sub(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return u - v; });
}
template <class T>
void mul(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return u * v; });
}
template <class T>
void div(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return u / v; });
}

// max(a, b) is b where either is NaN: only a NaN in a is left to pass on.
template <class T>
void maximum(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return select(u == u, max(u, v), u); });
}
template <class T>
void minimum(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return select(u == u, min(u, v), u); });
}

// The winner takes dy, a tie halves it; where one is NaN, dy goes to b.
template <class T, class Wins>
PYNN_INLINE void extremum_backward(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, int64_t rows, int64_t n,
                                   Wins wins) {
  for_pairs(a, b, rows, n, [&](int64_t k, auto lanes, Vec<T> u, Vec<T> v) {
    const Vec<T> d = load(dy + k, lanes), half = d * Vec<T>(T(0.5)), none = Vec<T>::zero();
    const Mask<T> a_wins = wins(u, v), tie = u == v;
    store(da + k, select(a_wins, d, select(tie, half, none)), lanes);
    store(db + k, select(a_wins, none, select(tie, half, d)), lanes);
  });
}
template <class T>
void maximum_backward(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  extremum_backward(da, db, dy, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return v < u; });
}
template <class T>
void minimum_backward(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  extremum_backward(da, db, dy, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return u < v; });
}

PYNN_INLINE float scalar_pow(float a, float b) { return ::powf(a, b); }
PYNN_INLINE double scalar_pow(double a, double b) { return ::pow(a, b); }

template <class T>
PYNN_INLINE Vec<T> lanewise_pow(Vec<T> a, Vec<T> b) {
  T base[Vec<T>::lanes], exponent[Vec<T>::lanes];
  a.store(base);
  b.store(exponent);
  for (int i = 0; i < Vec<T>::lanes; ++i) base[i] = scalar_pow(base[i], exponent[i]);
  return Vec<T>::load(base);
}
template <class T>
void pow(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return lanewise_pow(u, v); });
}

// The square root, but for -0 and -infinity: as a power, these are 0 and infinity.
template <class T>
void pow_half(T* y, const T* a, int64_t n) {
  const Vec<T> infinity(static_cast<T>(INFINITY)), minus_infinity(-static_cast<T>(INFINITY));
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> v = load(a + i, lanes);
    store(y + i, select(v == minus_infinity, infinity, sqrt(v + Vec<T>::zero())), lanes);
  });
}

// y = a^b: da = dy b a^(b-1), db = dy y log(a). 0 * infinity must not appear: a^0 has no slope, and 0^b is constant in
// b >= 0.
template <class T>
void pow_backward(T* da, T* db, const T* dy, Operand<T> a, Operand<T> b, const T* y, int64_t rows, int64_t n) {
  for_pairs(a, b, rows, n, [&](int64_t k, auto lanes, Vec<T> u, Vec<T> v) {
    const Vec<T> d = load(dy + k, lanes), none = Vec<T>::zero();
    const Vec<T> slope = d * v * lanewise_pow(u, v - Vec<T>(T(1)));
    const Vec<T> growth = d * load(y + k, lanes) * log(u);
    store(da + k, select(v == none, none, slope), lanes);
    store(db + k, select((u == none) & (none <= v), none, growth), lanes);
  });
}

// The first n elements as a mask, by way of numbers: compilers turn the loop into vectors.
template <class T>
PYNN_INLINE Mask<T> load_condition(const bool* condition, int n) {
  T lane[Vec<T>::lanes] = {};
  for (int i = 0; i < n; ++i) lane[i] = static_cast<T>(condition[i]);
  return Vec<T>::zero() < Vec<T>::load(lane);
}
template <class T>
PYNN_INLINE Mask<T> load_condition(const bool* condition, AllLanes) {
  return load_condition<T>(condition, Vec<T>::lanes);
}

template <class T, class Lanes>
PYNN_INLINE Vec<T> load_repeated(const T* p, int64_t j, int64_t col, Lanes lanes) {
  return col == 1 ? load(p + j, lanes) : Vec<T>(*p);
}

template <class T>
void where_row(T* y, const bool* condition, const T* a, int64_t a_col, const T* b, int64_t b_col, int64_t n) {
  for_lanes<T>(n, [&](int64_t j, auto lanes) {
    const Vec<T> va = load_repeated(a, j, a_col, lanes), vb = load_repeated(b, j, b_col, lanes);
    store(y + j, select(load_condition<T>(condition + j, lanes), va, vb), lanes);
  });
}

template <class T>
PYNN_INLINE void copy_row(T* y, const T* a, int64_t col, int64_t n) {
  if (col == 1) {
    memcpy(y, a, static_cast<size_t>(n) * sizeof(T));
  } else {
    const Vec<T> value(*a);
    for_lanes<T>(n, [&](int64_t j, auto lanes) { store(y + j, value, lanes); });
  }
}

template <class T>
void where(T* y, Operand<bool> condition, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i, y += n) {
    const bool* pc = condition.data + i * condition.row;
    const T *pa = a.data + i * a.row, *pb = b.data + i * b.row;
    if (condition.col == 0) {
      copy_row(y, *pc ? pa : pb, *pc ? a.col : b.col, n);
    } else {
      where_row(y, pc, pa, a.col, pb, b.col, n);
    }
  }
}
template <class T>
void where_backward(T* da, T* db, const T* dy, Operand<bool> condition, int64_t rows, int64_t n) {
  const T none = 0;
  for (int64_t i = 0; i < rows; ++i, da += n, db += n, dy += n) {
    const bool* pc = condition.data + i * condition.row;
    if (condition.col == 0) {
      copy_row(da, *pc ? dy : &none, *pc ? 1 : 0, n);
      copy_row(db, *pc ? &none : dy, *pc ? 0 : 1, n);
    } else {
      where_row(da, pc, dy, 1, &none, 0, n);
      where_row(db, pc, &none, 0, dy, 1, n);
    }
  }
}

template <class T>
void equal(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n,
         [](Vec<T> u, Vec<T> v) { return select((u == v) | !((u == u) | (v == v)), Vec<T>(T(1)), Vec<T>::zero()); });
}
template <class T>
void choose(T* y, Operand<T> a, Operand<T> b, int64_t rows, int64_t n) {
  binary(y, a, b, rows, n, [](Vec<T> u, Vec<T> v) { return select(u == Vec<T>::zero(), u, v); });
}
template <class T>
void copy(T* y, Operand<T> a, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i) copy_row(y + i * n, a.data + i * a.row, a.col, n);
}

template <class T>
BroadcastKernels<T> table() {
  return {add<T>,
          sub<T>,
          mul<T>,
          div<T>,
          pow<T>,
          pow_half<T>,
          maximum<T>,
          minimum<T>,
          maximum_backward<T>,
          minimum_backward<T>,
          pow_backward<T>,
          where<T>,
          where_backward<T>,
          equal<T>,
          choose<T>,
          copy<T>};
}

}  // namespace

void register_broadcast(KernelSet& set) {
  set.f32.broadcast = table<float>();
  set.f64.broadcast = table<double>();
}

}  // namespace pynn::PYNN_ISA
