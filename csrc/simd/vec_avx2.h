// Vec<T> on AVX2 with FMA. The face is described in vec.h.
#pragma once

#include <immintrin.h>

namespace pynn::PYNN_ISA {
namespace {

template <class T>
struct Vec;

// Loads n ones followed by zeros when read at offset lanes - n: the masks of partial loads and stores.
alignas(64) constexpr int32_t kMask32[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr int64_t kMask64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

template <>
struct Vec<float> {
  static constexpr int lanes = 8;
  __m256 v;

  Vec() = default;
  PYNN_INLINE Vec(__m256 x) : v(x) {}
  PYNN_INLINE explicit Vec(float x) : v(_mm256_set1_ps(x)) {}
  static PYNN_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static PYNN_INLINE __m256i first(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask32 + lanes - n));
  }
  static PYNN_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static PYNN_INLINE Vec load(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  PYNN_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  PYNN_INLINE void store(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }
};

template <>
struct Vec<double> {
  static constexpr int lanes = 4;
  __m256d v;

  Vec() = default;
  PYNN_INLINE Vec(__m256d x) : v(x) {}
  PYNN_INLINE explicit Vec(double x) : v(_mm256_set1_pd(x)) {}
  static PYNN_INLINE Vec zero() { return _mm256_setzero_pd(); }
  static PYNN_INLINE __m256i first(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask64 + lanes - n));
  }
  static PYNN_INLINE Vec load(const double* p) { return _mm256_loadu_pd(p); }
  static PYNN_INLINE Vec load(const double* p, int n) { return _mm256_maskload_pd(p, first(n)); }
  PYNN_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
  PYNN_INLINE void store(double* p, int n) const { _mm256_maskstore_pd(p, first(n), v); }
};

template <class T>
struct Mask;
template <>
struct Mask<float> {
  __m256 m;
};
template <>
struct Mask<double> {
  __m256d m;
};

using F = Vec<float>;
PYNN_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
PYNN_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
PYNN_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
PYNN_INLINE F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
PYNN_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
PYNN_INLINE F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
PYNN_INLINE F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
PYNN_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
PYNN_INLINE F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
PYNN_INLINE F round(F a) { return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PYNN_INLINE Mask<float> operator<(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
PYNN_INLINE Mask<float> operator<=(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
PYNN_INLINE Mask<float> operator==(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
PYNN_INLINE Mask<float> operator&(Mask<float> a, Mask<float> b) { return {_mm256_and_ps(a.m, b.m)}; }
PYNN_INLINE Mask<float> operator|(Mask<float> a, Mask<float> b) { return {_mm256_or_ps(a.m, b.m)}; }
PYNN_INLINE Mask<float> operator!(Mask<float> a) {
  return {_mm256_xor_ps(a.m, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
}
PYNN_INLINE F select(Mask<float> m, F a, F b) { return _mm256_blendv_ps(b.v, a.v, m.m); }
PYNN_INLINE F exp2i(F n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
PYNN_INLINE F exponent(F a) {
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(a.v), 23), _mm256_set1_epi32(127)));
}
PYNN_INLINE F mantissa(F a) {
  const __m256i fraction = _mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x7fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f800000)));
}
PYNN_INLINE float reduce_add(F a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
PYNN_INLINE float reduce_max(F a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// Of every mask of 8 lanes the lanes that are set, in order, 4 bits each.
struct CompressTable {
  uint32_t lanes[256];
  constexpr CompressTable() : lanes() {
    for (uint32_t mask = 0; mask < 256; ++mask) {
      int count = 0;
      for (uint32_t lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) != 0) lanes[mask] |= lane << (4 * count++);
      }
    }
  }
};
constexpr CompressTable kCompress;
PYNN_INLINE unsigned bits_of(Mask<float> m) { return static_cast<unsigned>(_mm256_movemask_ps(m.m)); }
PYNN_INLINE int compress_store(float* p, Mask<float> m, F a) {
  const int mask = _mm256_movemask_ps(m.m);
  const __m256i packed = _mm256_set1_epi32(static_cast<int>(kCompress.lanes[mask]));
  const __m256i lanes = _mm256_srlv_epi32(packed, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(a.v, lanes));
  return __builtin_popcount(static_cast<unsigned>(mask));
}
PYNN_INLINE __m256i widen(const uint8_t* p, F) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

using D = Vec<double>;
PYNN_INLINE D operator+(D a, D b) { return _mm256_add_pd(a.v, b.v); }
PYNN_INLINE D operator-(D a, D b) { return _mm256_sub_pd(a.v, b.v); }
PYNN_INLINE D operator*(D a, D b) { return _mm256_mul_pd(a.v, b.v); }
PYNN_INLINE D operator/(D a, D b) { return _mm256_div_pd(a.v, b.v); }
PYNN_INLINE D fma(D a, D b, D c) { return _mm256_fmadd_pd(a.v, b.v, c.v); }
PYNN_INLINE D max(D a, D b) { return _mm256_max_pd(a.v, b.v); }
PYNN_INLINE D min(D a, D b) { return _mm256_min_pd(a.v, b.v); }
PYNN_INLINE D sqrt(D a) { return _mm256_sqrt_pd(a.v); }
PYNN_INLINE D abs(D a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v); }
PYNN_INLINE D round(D a) { return _mm256_round_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PYNN_INLINE Mask<double> operator<(D a, D b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
PYNN_INLINE Mask<double> operator<=(D a, D b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LE_OQ)}; }
PYNN_INLINE Mask<double> operator==(D a, D b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }
PYNN_INLINE Mask<double> operator&(Mask<double> a, Mask<double> b) { return {_mm256_and_pd(a.m, b.m)}; }
PYNN_INLINE Mask<double> operator|(Mask<double> a, Mask<double> b) { return {_mm256_or_pd(a.m, b.m)}; }
PYNN_INLINE Mask<double> operator!(Mask<double> a) {
  return {_mm256_xor_pd(a.m, _mm256_castsi256_pd(_mm256_set1_epi32(-1)))};
}
PYNN_INLINE D select(Mask<double> m, D a, D b) { return _mm256_blendv_pd(b.v, a.v, m.m); }
PYNN_INLINE D exp2i(D n) {
  const __m256i biased = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n.v)), _mm256_set1_epi64x(1023));
  return _mm256_castsi256_pd(_mm256_slli_epi64(biased, 52));
}
PYNN_INLINE unsigned bits_of(Mask<double> m) { return static_cast<unsigned>(_mm256_movemask_pd(m.m)); }
PYNN_INLINE double reduce_add(D a) {
  const __m128d x = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)));
}
PYNN_INLINE double reduce_max(D a) {
  const __m128d x = _mm_max_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_max_sd(x, _mm_unpackhi_pd(x, x)));
}

// gemm keeps gemm_rows x 2 vectors of accumulators in the 16 registers.
constexpr int gemm_rows = 6;
constexpr bool loads_by_mask = false;

// The 8 x 8 block in `row`, transposed: pairs, quads, then halves.
PYNN_INLINE void transpose_square(__m256 row[8]) {
  __m256 pair[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m256d low = _mm256_castps_pd(pair[i + j]), high = _mm256_castps_pd(pair[i + j + 2]);
      row[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      row[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256 top = row[j], low = row[4 + j];
    row[j] = _mm256_permute2f128_ps(top, low, 0x20);
    row[4 + j] = _mm256_permute2f128_ps(top, low, 0x31);
  }
}

PYNN_INLINE void transpose_block(float* dst, int64_t dst_stride, const float* src, int64_t src_stride) {
  __m256 row[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(src + i * src_stride);
  transpose_square(row);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(dst + i * dst_stride, row[i]);
}

PYNN_INLINE void transpose_block(float* dst, int64_t dst_stride, const float* src, int64_t src_stride, int rows,
                                 int cols) {
  const __m256i in = F::first(cols), out = F::first(rows);
  __m256 row[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) row[i] = i < rows ? _mm256_maskload_ps(src + i * src_stride, in) : _mm256_setzero_ps();
  transpose_square(row);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if (i < cols) _mm256_maskstore_ps(dst + i * dst_stride, out, row[i]);
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
