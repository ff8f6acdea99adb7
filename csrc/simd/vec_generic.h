// Vec<T> in the compiler's own 16-byte vectors: SSE2 on x86-64, the base set elsewhere. The face is described in vec.h.
#pragma once

#include <math.h>

namespace pynn::PYNN_ISA {
namespace {

template <class T>
struct VecTypes;
template <>
struct VecTypes<float> {
  using Lanes __attribute__((vector_size(16))) = float;
  using Bits __attribute__((vector_size(16))) = int32_t;
  using Int = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
};
template <>
struct VecTypes<double> {
  using Lanes __attribute__((vector_size(16))) = double;
  using Bits __attribute__((vector_size(16))) = int64_t;
  using Int = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
};

template <class T>
struct Mask {
  typename VecTypes<T>::Bits m;
};

template <class T>
struct Vec {
  static constexpr int lanes = 16 / sizeof(T);
  using Lanes = typename VecTypes<T>::Lanes;
  using Bits = typename VecTypes<T>::Bits;
  Lanes v;

  Vec() = default;
  PYNN_INLINE Vec(Lanes x) : v(x) {}
  PYNN_INLINE explicit Vec(T x) : v(x - Lanes{}) {}  // a sum would turn -0 into +0
  static PYNN_INLINE Vec zero() { return Lanes{}; }
  static PYNN_INLINE Vec load(const T* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof(Lanes));
    return r;
  }
  static PYNN_INLINE Vec load(const T* p, int n) {
    Vec r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  PYNN_INLINE void store(T* p) const { std::memcpy(p, &v, sizeof(Lanes)); }
  PYNN_INLINE void store(T* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }

  friend PYNN_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  friend PYNN_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  friend PYNN_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  friend PYNN_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }
  friend PYNN_INLINE Vec fma(Vec a, Vec b, Vec c) { return a.v * b.v + c.v; }
  friend PYNN_INLINE Mask<T> operator<(Vec a, Vec b) { return {a.v < b.v}; }
  friend PYNN_INLINE Mask<T> operator<=(Vec a, Vec b) { return {a.v <= b.v}; }
  friend PYNN_INLINE Mask<T> operator==(Vec a, Vec b) { return {a.v == b.v}; }
  friend PYNN_INLINE Vec select(Mask<T> m, Vec a, Vec b) { return (Lanes)(((Bits)a.v & m.m) | ((Bits)b.v & ~m.m)); }
  friend PYNN_INLINE Vec max(Vec a, Vec b) { return select({a.v > b.v}, a, b); }
  friend PYNN_INLINE Vec min(Vec a, Vec b) { return select({a.v < b.v}, a, b); }
  friend PYNN_INLINE Vec abs(Vec a) { return (Lanes)((Bits)a.v & ~(Bits)Vec(T(-0.0)).v); }
  friend PYNN_INLINE Vec sqrt(Vec a) {
    for (int i = 0; i < lanes; ++i) a.v[i] = sizeof(T) == 4 ? T(::sqrtf(float(a.v[i]))) : T(::sqrt(double(a.v[i])));
    return a;
  }
  // Adding and subtracting 1.5 * 2^mantissa_bits leaves the nearest even integer; larger values are integers already.
  friend PYNN_INLINE Vec round(Vec a) {
    const Vec shift(T(1.5) * T(int64_t(1) << VecTypes<T>::mantissa_bits));
    const Vec limit(T(int64_t(1) << (VecTypes<T>::mantissa_bits - 1)));
    return select(abs(a) < limit, (a + shift) - shift, a);
  }
  // By adding 1.5 * 2^mantissa_bits, as round does: to convert a NaN to an integer is undefined.
  friend PYNN_INLINE Vec exp2i(Vec n) {
    const Vec shift(T(1.5) * T(int64_t(1) << VecTypes<T>::mantissa_bits));
    const Bits bits = (Bits)(n + shift).v - (Bits)shift.v;
    return (Lanes)((bits + VecTypes<T>::bias) << VecTypes<T>::mantissa_bits);
  }
  friend PYNN_INLINE Vec exponent(Vec a) {
    const Bits biased = (Bits)a.v >> VecTypes<T>::mantissa_bits;
    return __builtin_convertvector(biased - VecTypes<T>::bias, Lanes);
  }
  friend PYNN_INLINE Vec mantissa(Vec a) {
    const Bits fraction = (Bits)a.v & ((typename VecTypes<T>::Int(1) << VecTypes<T>::mantissa_bits) - 1);
    return (Lanes)(fraction | (Bits)Vec(T(1)).v);
  }
  friend PYNN_INLINE T reduce_add(Vec a) {
    T sum = a.v[0];
    for (int i = 1; i < lanes; ++i) sum += a.v[i];
    return sum;
  }
  friend PYNN_INLINE T reduce_max(Vec a) {
    T largest = a.v[0];
    for (int i = 1; i < lanes; ++i) largest = largest > a.v[i] ? largest : a.v[i];
    return largest;
  }
};

template <class T>
PYNN_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  return {a.m & b.m};
}
template <class T>
PYNN_INLINE Mask<T> operator|(Mask<T> a, Mask<T> b) {
  return {a.m | b.m};
}
template <class T>
PYNN_INLINE Mask<T> operator!(Mask<T> a) {
  return {~a.m};
}

constexpr int gemm_rows = 4;
constexpr bool loads_by_mask = false;

}  // namespace
}  // namespace pynn::PYNN_ISA
