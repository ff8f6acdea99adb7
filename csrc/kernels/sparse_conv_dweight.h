// The block of accumulators for the gradient of the weights of one output channel: rows of taps times vectors of
// neighbouring (column, channel) pairs. Each live window adds g times as many elements of the image.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// Half a vector, for rows of taps that are shorter: a processor may execute twice as many of them.
struct HalfVec {
  using Lanes __attribute__((vector_size(32))) = float;
  Lanes v;

  HalfVec() = default;
  PYNN_INLINE HalfVec(Lanes x) : v(x) {}
  PYNN_INLINE explicit HalfVec(float x) : v(x - Lanes{}) {}
  static constexpr int lanes = 8;
  static PYNN_INLINE HalfVec zero() { return Lanes{}; }
  static PYNN_INLINE HalfVec load(const float* p) {
    HalfVec r;
    std::memcpy(&r.v, p, sizeof(Lanes));
    return r;
  }
  PYNN_INLINE void store(float* p) const { std::memcpy(p, &v, sizeof(Lanes)); }
  friend PYNN_INLINE HalfVec operator+(HalfVec a, HalfVec b) { return a.v + b.v; }
  friend PYNN_INLINE HalfVec fma(HalfVec a, HalfVec b, HalfVec c) { return a.v * b.v + c.v; }
};

template <class T>
constexpr bool has_half_vectors = Vec<T>::lanes == 16;

constexpr int dweight_most_rows = 5;

// Vectors whose sums fit into the registers beside g; 25 of 32, 13 of 16. float64 serves gradient checks.
template <class T>
constexpr int dweight_most_vectors(int rows) {
  const int fit = (gemm_rows > 6 ? 25 : gemm_rows > 4 ? 13 : 11) / rows;
  const int most = sizeof(T) == 4 ? 6 : 2;
  return fit < most ? fit : most;
}

// sums[KR rows][NV vectors of V]
template <class T, class V, int KR, int NV>
void dweight_micro_kernel(T* sums, int64_t row, const T* image, int64_t image_row, const T* g,
                          const typename SparsePosition<T>::Int* at, int64_t count) {
  // Few sums wait for each other: every second window has sums of its own.
  constexpr int sets = KR * NV < 6 ? 2 : 1;
  V sum[sets][KR][NV];
#pragma GCC unroll 2
  for (int s = 0; s < sets; ++s) {
#pragma GCC unroll 8
    for (int i = 0; i < KR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sum[s][i][v] = s == 0 ? V::load(sums + i * row + v * V::lanes) : V::zero();
    }
  }
  const auto add = [&](V(&to)[KR][NV], int64_t entry) __attribute__((always_inline)) {
    const V factor(g[entry]);
    const T* from = in_register(image + at[entry]);
#pragma GCC unroll 8
    for (int i = 0; i < KR; ++i, from = NV > 1 ? in_register(from + image_row) : from + image_row) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) to[i][v] = fma(factor, V::load(from + v * V::lanes), to[i][v]);
    }
  };
  int64_t entry = 0;
  for (; entry + sets <= count; entry += sets) {
#pragma GCC unroll 2
    for (int s = 0; s < sets; ++s) add(sum[s], entry + s);
  }
  if (sets > 1 && entry < count) add(sum[0], entry);
#pragma GCC unroll 8
  for (int i = 0; i < KR; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      (sets > 1 ? sum[0][i][v] + sum[sets - 1][i][v] : sum[0][i][v]).store(sums + i * row + v * V::lanes);
    }
  }
}

template <class T>
using SparseDweightMicroKernel = void (*)(T*, int64_t, const T*, int64_t, const T*,
                                          const typename SparsePosition<T>::Int*, int64_t);

// [rows - 1][vectors - 1], and the ones of half a vector
template <class T>
struct SparseDweightMicroKernels {
  SparseDweightMicroKernel<T> of[dweight_most_rows][dweight_most_vectors<T>(1)];
  SparseDweightMicroKernel<T> half[dweight_most_rows];
  constexpr SparseDweightMicroKernels() : of(), half() { fill<dweight_most_rows>(); }

 private:
  template <int KR>
  constexpr void fill() {
    fill_vectors<KR, dweight_most_vectors<T>(KR)>();
    if constexpr (has_half_vectors<T>) half[KR - 1] = dweight_micro_kernel<T, HalfVec, KR, 1>;
    if constexpr (KR > 1) fill<KR - 1>();
  }
  template <int KR, int NV>
  constexpr void fill_vectors() {
    of[KR - 1][NV - 1] = dweight_micro_kernel<T, Vec<T>, KR, NV>;
    if constexpr (NV > 1) fill_vectors<KR, NV - 1>();
  }
};

template <class T>
constexpr SparseDweightMicroKernels<T> sparse_dweight_micro_kernels;

}  // namespace
}  // namespace pynn::PYNN_ISA
