// Vec<T> on AVX-512 (F, BW, DQ, VL). The face is described in vec.h.
#pragma once

#include <immintrin.h>

namespace pynn::PYNN_ISA {
namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int lanes = 16;
  using Mask = __mmask16;
  __m512 v;

  Vec() = default;
  PYNN_INLINE Vec(__m512 x) : v(x) {}
  PYNN_INLINE explicit Vec(float x) : v(_mm512_set1_ps(x)) {}
  static PYNN_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static PYNN_INLINE Mask first(int n) { return static_cast<Mask>((1u << n) - 1u); }
  static PYNN_INLINE Mask between(int64_t begin, int64_t end) {
    const auto limited = [](int64_t n) { return static_cast<int>(n < 0 ? 0 : n < lanes ? n : lanes); };
    return static_cast<Mask>(first(limited(end)) & ~first(limited(begin)));
  }
  static PYNN_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static PYNN_INLINE Vec load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
  PYNN_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  PYNN_INLINE void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }
};

template <>
struct Vec<double> {
  static constexpr int lanes = 8;
  using Mask = __mmask8;
  __m512d v;

  Vec() = default;
  PYNN_INLINE Vec(__m512d x) : v(x) {}
  PYNN_INLINE explicit Vec(double x) : v(_mm512_set1_pd(x)) {}
  static PYNN_INLINE Vec zero() { return _mm512_setzero_pd(); }
  static PYNN_INLINE Mask first(int n) { return static_cast<Mask>((1u << n) - 1u); }
  static PYNN_INLINE Vec load(const double* p) { return _mm512_loadu_pd(p); }
  static PYNN_INLINE Vec load(const double* p, int n) { return _mm512_maskz_loadu_pd(first(n), p); }
  PYNN_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  PYNN_INLINE void store(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), v); }
};

// A k-register as a type of its own, so that & | ! and select read the same on every instruction set.
template <class T>
struct Mask {
  typename Vec<T>::Mask m;
};

// The lanes of m; the others are 0, and nothing is read for them.
PYNN_INLINE Vec<float> load(const float* p, Mask<float> m) { return _mm512_maskz_loadu_ps(m.m, p); }

template <class T>
PYNN_INLINE Mask<T> operator&(Mask<T> a, Mask<T> b) {
  return {static_cast<typename Vec<T>::Mask>(a.m & b.m)};
}
template <class T>
PYNN_INLINE Mask<T> operator|(Mask<T> a, Mask<T> b) {
  return {static_cast<typename Vec<T>::Mask>(a.m | b.m)};
}
template <class T>
PYNN_INLINE Mask<T> operator!(Mask<T> a) {
  return {static_cast<typename Vec<T>::Mask>(~a.m)};
}

using F = Vec<float>;
PYNN_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
PYNN_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
PYNN_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
PYNN_INLINE F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
PYNN_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
PYNN_INLINE F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
PYNN_INLINE F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
PYNN_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
PYNN_INLINE F abs(F a) { return _mm512_abs_ps(a.v); }
PYNN_INLINE F round(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PYNN_INLINE Mask<float> operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
PYNN_INLINE Mask<float> operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
PYNN_INLINE Mask<float> operator==(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
PYNN_INLINE F select(Mask<float> m, F a, F b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
PYNN_INLINE F exp2i(F n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
PYNN_INLINE F times_exp2i(F a, F n) { return _mm512_scalef_ps(a.v, n.v); }
PYNN_INLINE F exponent(F a) { return _mm512_getexp_ps(a.v); }
PYNN_INLINE F mantissa(F a) { return _mm512_getmant_ps(a.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero); }
PYNN_INLINE float reduce_add(F a) { return _mm512_reduce_add_ps(a.v); }
PYNN_INLINE float reduce_max(F a) { return _mm512_reduce_max_ps(a.v); }
// In a register, then stored whole: the instruction that compresses into memory is slow on AMD.
PYNN_INLINE unsigned bits_of(Mask<float> m) { return m.m; }
PYNN_INLINE int compress_store(float* p, Mask<float> m, F a) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m.m, a.v));
  return __builtin_popcount(m.m);
}
PYNN_INLINE int expand_load(float* to, const float* p, unsigned bits) {
  _mm512_storeu_ps(to, _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(p)));
  return __builtin_popcount(bits);
}

using D = Vec<double>;
PYNN_INLINE D operator+(D a, D b) { return _mm512_add_pd(a.v, b.v); }
PYNN_INLINE D operator-(D a, D b) { return _mm512_sub_pd(a.v, b.v); }
PYNN_INLINE D operator*(D a, D b) { return _mm512_mul_pd(a.v, b.v); }
PYNN_INLINE D operator/(D a, D b) { return _mm512_div_pd(a.v, b.v); }
PYNN_INLINE D fma(D a, D b, D c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
PYNN_INLINE D max(D a, D b) { return _mm512_max_pd(a.v, b.v); }
PYNN_INLINE D min(D a, D b) { return _mm512_min_pd(a.v, b.v); }
PYNN_INLINE D sqrt(D a) { return _mm512_sqrt_pd(a.v); }
PYNN_INLINE D abs(D a) { return _mm512_abs_pd(a.v); }
PYNN_INLINE D round(D a) { return _mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PYNN_INLINE Mask<double> operator<(D a, D b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
PYNN_INLINE Mask<double> operator<=(D a, D b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)}; }
PYNN_INLINE Mask<double> operator==(D a, D b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }
PYNN_INLINE D select(Mask<double> m, D a, D b) { return _mm512_mask_blend_pd(m.m, b.v, a.v); }
PYNN_INLINE D exp2i(D n) {
  const __m512i biased = _mm512_add_epi64(_mm512_cvtpd_epi64(n.v), _mm512_set1_epi64(1023));
  return _mm512_castsi512_pd(_mm512_slli_epi64(biased, 52));
}
PYNN_INLINE double reduce_add(D a) { return _mm512_reduce_add_pd(a.v); }
PYNN_INLINE double reduce_max(D a) { return _mm512_reduce_max_pd(a.v); }
PYNN_INLINE __m512i widen(const uint8_t* p, F) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
PYNN_INLINE unsigned bits_of(Mask<double> m) { return m.m; }
PYNN_INLINE int compress_store(double* p, Mask<double> m, D a) {
  _mm512_storeu_pd(p, _mm512_maskz_compress_pd(m.m, a.v));
  return __builtin_popcount(m.m);
}
PYNN_INLINE int expand_load(double* to, const double* p, unsigned bits) {
  _mm512_storeu_pd(to, _mm512_maskz_expand_pd(static_cast<__mmask8>(bits), _mm512_loadu_pd(p)));
  return __builtin_popcount(bits);
}

// gemm keeps gemm_rows x 2 vectors of accumulators in the 32 registers.
constexpr int gemm_rows = 14;
constexpr bool loads_by_mask = true;  // of float32, with Vec::between

// The 16 x 16 block in `row`, transposed: pairs, quads, then 128-bit lanes.
PYNN_INLINE void transpose_square(__m512 row[16]) {
  __m512 pair[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pair[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(pair[i + j]), high = _mm512_castps_pd(pair[i + j + 2]);
      row[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      row[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // row[4i + j] now holds, in 128-bit lane L, column 4L + j of rows 4i..4i+3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 top01 = _mm512_shuffle_f32x4(row[j], row[4 + j], 0x44);
    const __m512 top23 = _mm512_shuffle_f32x4(row[j], row[4 + j], 0xee);
    const __m512 low01 = _mm512_shuffle_f32x4(row[8 + j], row[12 + j], 0x44);
    const __m512 low23 = _mm512_shuffle_f32x4(row[8 + j], row[12 + j], 0xee);
    row[j] = _mm512_shuffle_f32x4(top01, low01, 0x88);
    row[4 + j] = _mm512_shuffle_f32x4(top01, low01, 0xdd);
    row[8 + j] = _mm512_shuffle_f32x4(top23, low23, 0x88);
    row[12 + j] = _mm512_shuffle_f32x4(top23, low23, 0xdd);
  }
}

PYNN_INLINE void transpose_block(float* dst, int64_t dst_stride, const float* src, int64_t src_stride) {
  __m512 row[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_ps(src + i * src_stride);
  transpose_square(row);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(dst + i * dst_stride, row[i]);
}

PYNN_INLINE void transpose_block(float* dst, int64_t dst_stride, const float* src, int64_t src_stride, int rows,
                                 int cols) {
  const __mmask16 in = F::first(cols), out = F::first(rows);
  __m512 row[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    row[i] = i < rows ? _mm512_maskz_loadu_ps(in, src + i * src_stride) : _mm512_setzero_ps();
  }
  transpose_square(row);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i < cols) _mm512_mask_storeu_ps(dst + i * dst_stride, out, row[i]);
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
