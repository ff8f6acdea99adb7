// The block of accumulators for the gradient of the data: the patch of dx that the outputs of one window read, which is
// one row and one column larger than the kernel. Each live output adds g times its filter, at its place in the patch.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// float64 serves gradient checks; smaller blocks keep the library small.
template <class T>
constexpr int dx_most_rows = sizeof(T) == 4 ? 5 : 2;
template <class T>
constexpr int dx_most_vectors = sizeof(T) == 4 ? 3 : 1;  // of a row whose vectors lie one after the other
constexpr int dx_registers = gemm_rows > 6 ? 27 : gemm_rows > 4 ? 13 : 11;

// acc[ROW + i][SHIFT * COLUMN + v] += g * filter[i][v], for `count` outputs whose winner lies in ROW and COLUMN. The
// last SHIFT vectors of a row, or the first, are out of the filter's reach.
template <class T, int KR, int NV, int SHIFT, int ROW, int COLUMN, int ROWS>
PYNN_INLINE void add_filters(Vec<T> (&acc)[ROWS][NV], const SparsePatches<T>& a, const T* g,
                             const typename SparsePosition<T>::Int* winners, int64_t count) {
  // By pixels, a row of a filter is what a row of the patch has: a constant.
  const int64_t weight_row = SHIFT > 0 ? (NV - SHIFT) * Vec<T>::lanes : a.weight_row;
  const T* weight = a.weight + COLUMN * a.weight_shift;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t output = winners[i];
    const T* filter = in_register(weight + output * a.weight_output);
    const Vec<T> factor(g[output]);
#pragma GCC unroll 8
    for (int r = 0; r < KR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV - SHIFT; ++v) {
        Vec<T>& sum = acc[ROW + r][SHIFT * COLUMN + v];
        sum = fma(factor, Vec<T>::load(filter + r * weight_row + v * Vec<T>::lanes), sum);
      }
    }
  }
}

template <class T, int ROWS, int NV>
PYNN_INLINE void clear_patch(Vec<T> (&acc)[ROWS][NV]) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[r][v] = Vec<T>::zero();
  }
}

template <class T, int ROWS, int NV>
PYNN_INLINE void add_patch(T* dx, const Vec<T> (&acc)[ROWS][NV], const SparsePatches<T>& a) {
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      T* to = dx + r * a.row + v * a.vector_step;
      (Vec<T>::load(to) + acc[r][v]).store(to);
    }
  }
}

// KR rows of taps. SHIFT 1: a winner in the right column moves the filter by a vector; 0: it has a filter of its own.
template <class T, int KR, int NV, int SHIFT>
void dx_micro_kernel(const SparsePatches<T>& a) {
  const T* g = a.g;
  const auto *winners = a.winners, *counts = a.counts;
  for (int64_t row = 0; row < a.pooled_rows; ++row) {
    for (int64_t column = 0; column < a.pooled_columns; ++column, g += a.g_step, counts += 4) {
      T* to = a.dx + 2 * row * a.row + column * a.window_step;
      const int64_t n0 = counts[0], n1 = counts[1], n2 = counts[2], n3 = counts[3];
      const auto *w1 = winners + n0, *w2 = w1 + n1, *w3 = w2 + n2;
      if constexpr ((KR + 1) * NV <= dx_registers) {
        Vec<T> acc[KR + 1][NV];
        clear_patch(acc);
        add_filters<T, KR, NV, SHIFT, 0, 0>(acc, a, g, winners, n0);
        add_filters<T, KR, NV, SHIFT, 0, 1>(acc, a, g, w1, n1);
        add_filters<T, KR, NV, SHIFT, 1, 0>(acc, a, g, w2, n2);
        add_filters<T, KR, NV, SHIFT, 1, 1>(acc, a, g, w3, n3);
        add_patch(to, acc, a);
      } else {  // winners in the upper row, then those in the lower
        Vec<T> acc[KR][NV];
        clear_patch(acc);
        add_filters<T, KR, NV, SHIFT, 0, 0>(acc, a, g, winners, n0);
        add_filters<T, KR, NV, SHIFT, 0, 1>(acc, a, g, w1, n1);
        add_patch(to, acc, a);
        clear_patch(acc);
        add_filters<T, KR, NV, SHIFT, 0, 0>(acc, a, g, w2, n2);
        add_filters<T, KR, NV, SHIFT, 0, 1>(acc, a, g, w3, n3);
        add_patch(to + a.row, acc, a);
      }
      winners = w3 + n3;
    }
  }
}

template <class T>
using DxMicroKernel = void (*)(const SparsePatches<T>&);

// Rows of taps whose patch fits into the registers, if each is NV vectors wide.
template <class T>
constexpr int dx_rows(int vectors) {
  const int fit = dx_registers / vectors;
  return fit < dx_most_rows<T> ? fit : dx_most_rows<T>;
}

// [rows - 1][vectors - 1], and by pixels [rows - 1][1, 2 or 3 for kernels that are 3, 5 or 7 wide]
template <class T>
struct DxMicroKernels {
  DxMicroKernel<T> of[dx_most_rows<T>][dx_most_vectors<T>];
  DxMicroKernel<T> by_pixels[dx_most_rows<T>][4];
  constexpr DxMicroKernels() : of(), by_pixels() {
    fill_vectors<dx_most_vectors<T>>();
    fill_by_pixels<dx_rows<T>(4), 4>();
    fill_by_pixels<dx_rows<T>(6), 6>();
    fill_by_pixels<dx_rows<T>(8), 8>();
  }

 private:
  template <int NV>
  constexpr void fill_vectors() {
    fill<dx_rows<T>(NV), NV>();
    if constexpr (NV > 1) fill_vectors<NV - 1>();
  }
  template <int KR, int NV>
  constexpr void fill() {
    of[KR - 1][NV - 1] = dx_micro_kernel<T, KR, NV, 0>;
    if constexpr (KR > 1) fill<KR - 1, NV>();
  }
  template <int KR, int NV>
  constexpr void fill_by_pixels() {
    by_pixels[KR - 1][NV / 2 - 1] = dx_micro_kernel<T, KR, NV, 1>;
    if constexpr (KR > 1) fill_by_pixels<KR - 1, NV>();
  }
};

template <class T>
constexpr DxMicroKernels<T> dx_micro_kernels;

}  // namespace
}  // namespace pynn::PYNN_ISA
