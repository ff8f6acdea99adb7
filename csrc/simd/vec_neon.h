// Vec<T> on NEON (AArch64). Compiled by a cross-compiler in CI, not run there. The face is described in vec.h.
#pragma once

#include <arm_neon.h>

namespace pynn::PYNN_ISA {
namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int lanes = 4;
  float32x4_t v;

  Vec() = default;
  PYNN_INLINE Vec(float32x4_t x) : v(x) {}
  PYNN_INLINE explicit Vec(float x) : v(vdupq_n_f32(x)) {}
  static PYNN_INLINE Vec zero() { return vdupq_n_f32(0.0f); }
  static PYNN_INLINE Vec load(const float* p) { return vld1q_f32(p); }
  static PYNN_INLINE Vec load(const float* p, int n) {
    float lane[lanes] = {};
    for (int i = 0; i < n; ++i) lane[i] = p[i];
    return vld1q_f32(lane);
  }
  PYNN_INLINE void store(float* p) const { vst1q_f32(p, v); }
  PYNN_INLINE void store(float* p, int n) const {
    float lane[lanes];
    vst1q_f32(lane, v);
    for (int i = 0; i < n; ++i) p[i] = lane[i];
  }
};

template <>
struct Vec<double> {
  static constexpr int lanes = 2;
  float64x2_t v;

  Vec() = default;
  PYNN_INLINE Vec(float64x2_t x) : v(x) {}
  PYNN_INLINE explicit Vec(double x) : v(vdupq_n_f64(x)) {}
  static PYNN_INLINE Vec zero() { return vdupq_n_f64(0.0); }
  static PYNN_INLINE Vec load(const double* p) { return vld1q_f64(p); }
  static PYNN_INLINE Vec load(const double* p, int n) {
    double lane[lanes] = {};
    for (int i = 0; i < n; ++i) lane[i] = p[i];
    return vld1q_f64(lane);
  }
  PYNN_INLINE void store(double* p) const { vst1q_f64(p, v); }
  PYNN_INLINE void store(double* p, int n) const {
    double lane[lanes];
    vst1q_f64(lane, v);
    for (int i = 0; i < n; ++i) p[i] = lane[i];
  }
};

template <class T>
struct Mask;
template <>
struct Mask<float> {
  uint32x4_t m;
};
template <>
struct Mask<double> {
  uint64x2_t m;
};

using F = Vec<float>;
PYNN_INLINE F operator+(F a, F b) { return vaddq_f32(a.v, b.v); }
PYNN_INLINE F operator-(F a, F b) { return vsubq_f32(a.v, b.v); }
PYNN_INLINE F operator*(F a, F b) { return vmulq_f32(a.v, b.v); }
PYNN_INLINE F operator/(F a, F b) { return vdivq_f32(a.v, b.v); }
PYNN_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c.v, a.v, b.v); }
PYNN_INLINE F sqrt(F a) { return vsqrtq_f32(a.v); }
PYNN_INLINE F abs(F a) { return vabsq_f32(a.v); }
PYNN_INLINE F round(F a) { return vrndnq_f32(a.v); }
PYNN_INLINE Mask<float> operator<(F a, F b) { return {vcltq_f32(a.v, b.v)}; }
PYNN_INLINE Mask<float> operator<=(F a, F b) { return {vcleq_f32(a.v, b.v)}; }
PYNN_INLINE Mask<float> operator==(F a, F b) { return {vceqq_f32(a.v, b.v)}; }
PYNN_INLINE Mask<float> operator&(Mask<float> a, Mask<float> b) { return {vandq_u32(a.m, b.m)}; }
PYNN_INLINE Mask<float> operator|(Mask<float> a, Mask<float> b) { return {vorrq_u32(a.m, b.m)}; }
PYNN_INLINE Mask<float> operator!(Mask<float> a) { return {vmvnq_u32(a.m)}; }
PYNN_INLINE F select(Mask<float> m, F a, F b) { return vbslq_f32(m.m, a.v, b.v); }
PYNN_INLINE F exp2i(F n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127)), 23));
}
PYNN_INLINE F exponent(F a) {
  return vcvtq_f32_s32(vsubq_s32(vshrq_n_s32(vreinterpretq_s32_f32(a.v), 23), vdupq_n_s32(127)));
}
PYNN_INLINE F mantissa(F a) {
  const int32x4_t fraction = vandq_s32(vreinterpretq_s32_f32(a.v), vdupq_n_s32(0x7fffff));
  return vreinterpretq_f32_s32(vorrq_s32(fraction, vdupq_n_s32(0x3f800000)));
}
PYNN_INLINE float reduce_add(F a) { return vaddvq_f32(a.v); }
PYNN_INLINE float reduce_max(F a) { return vmaxvq_f32(a.v); }

using D = Vec<double>;
PYNN_INLINE D operator+(D a, D b) { return vaddq_f64(a.v, b.v); }
PYNN_INLINE D operator-(D a, D b) { return vsubq_f64(a.v, b.v); }
PYNN_INLINE D operator*(D a, D b) { return vmulq_f64(a.v, b.v); }
PYNN_INLINE D operator/(D a, D b) { return vdivq_f64(a.v, b.v); }
PYNN_INLINE D fma(D a, D b, D c) { return vfmaq_f64(c.v, a.v, b.v); }
PYNN_INLINE D sqrt(D a) { return vsqrtq_f64(a.v); }
PYNN_INLINE D abs(D a) { return vabsq_f64(a.v); }
PYNN_INLINE D round(D a) { return vrndnq_f64(a.v); }
PYNN_INLINE Mask<double> operator<(D a, D b) { return {vcltq_f64(a.v, b.v)}; }
PYNN_INLINE Mask<double> operator<=(D a, D b) { return {vcleq_f64(a.v, b.v)}; }
PYNN_INLINE Mask<double> operator==(D a, D b) { return {vceqq_f64(a.v, b.v)}; }
PYNN_INLINE Mask<double> operator&(Mask<double> a, Mask<double> b) { return {vandq_u64(a.m, b.m)}; }
PYNN_INLINE Mask<double> operator|(Mask<double> a, Mask<double> b) { return {vorrq_u64(a.m, b.m)}; }
PYNN_INLINE Mask<double> operator!(Mask<double> a) { return {veorq_u64(a.m, vdupq_n_u64(~uint64_t(0)))}; }
PYNN_INLINE D select(Mask<double> m, D a, D b) { return vbslq_f64(m.m, a.v, b.v); }
PYNN_INLINE D exp2i(D n) {
  return vreinterpretq_f64_s64(vshlq_n_s64(vaddq_s64(vcvtnq_s64_f64(n.v), vdupq_n_s64(1023)), 52));
}
PYNN_INLINE double reduce_add(D a) { return vaddvq_f64(a.v); }
PYNN_INLINE double reduce_max(D a) { return vmaxvq_f64(a.v); }

// NEON's own maximum propagates NaN from either side; the face asks for b, as on x86.
template <class T>
PYNN_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return select(b < a, a, b);
}
template <class T>
PYNN_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return select(a < b, a, b);
}

// gemm keeps gemm_rows x 2 vectors of accumulators in the 32 registers.
constexpr int gemm_rows = 14;
constexpr bool loads_by_mask = false;

}  // namespace
}  // namespace pynn::PYNN_ISA
