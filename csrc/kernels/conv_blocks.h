// The blocks of accumulators of convolution: with pixels in the lanes, or with output channels in them. The first take
// any number of channels, the second any number of pixels; the other number is rounded up to whole vectors.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int smaller(int a, int b) { return a < b ? a : b; }

// Registers: gemm_rows tells the machines with 32 from those with 16, and those with fused multiply-add from others.
constexpr int usable_registers = gemm_rows > 6 ? 31 : gemm_rows > 4 ? 15 : 13;

// Output channels of a block. float64 serves gradient checks; smaller blocks keep the library small.
template <class T>
constexpr int most_outputs = sizeof(T) == 4 && gemm_rows > 6 ? 8 : 4;

// Vectors of pixels that fit beside this many output channels, one vector each of what is read, and a weight.
template <class T>
constexpr int most_vectors(int outputs) {
  return smaller(sizeof(T) == 4 ? 6 : 3, usable_registers / (outputs + 1));
}

// ReLU; max returns its second argument where one is NaN.
template <class T>
PYNN_INLINE Vec<T> keep_positive(Vec<T> v) {
  return max(Vec<T>::zero(), v);
}

// A vector of pixels: where it is read, where it is written, and how many lanes of it.
template <class T>
struct Pixels {
  const T* source;
  T* y;
  int lanes;
};

// [MR output channels] x [NV vectors of pixels], all accumulators in registers.
template <class T, int MR, int NV>
void micro_kernel(const Pixels<T>* pixels, int64_t channel_step, const int64_t* offsets, const T* weight, const T* bias,
                  bool relu, int64_t taps) {
  Vec<T> sum[MR][NV];
  const T* source[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) source[v] = pixels[v].source;
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    const Vec<T> start = bias != nullptr ? Vec<T>(bias[i]) : Vec<T>::zero();
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[i][v] = start;
  }
  for (int64_t k = 0; k < taps; ++k, weight += MR) {
    const int64_t offset = offsets[k];
    Vec<T> x[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) x[v] = Vec<T>::load(source[v] + offset);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const Vec<T> w(weight[i]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sum[i][v] = fma(w, x[v], sum[i][v]);
    }
  }
  if (relu) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sum[i][v] = keep_positive(sum[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    T* y = pixels[v].y;
    const int lanes = pixels[v].lanes;
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      if (lanes == Vec<T>::lanes) {
        sum[i][v].store(y + i * channel_step);
      } else {
        sum[i][v].store(y + i * channel_step, lanes);
      }
    }
  }
}

template <class T>
using MicroKernel = void (*)(const Pixels<T>*, int64_t, const int64_t*, const T*, const T*, bool, int64_t);

// [output channels - 1][vectors - 1]
template <class T>
struct MicroKernels {
  MicroKernel<T> of[most_outputs<T>][most_vectors<T>(1)];
  constexpr MicroKernels() : of() { fill<most_outputs<T>>(); }

 private:
  template <int MR>
  constexpr void fill() {
    fill_vectors<MR, most_vectors<T>(MR)>();
    if constexpr (MR > 1) fill<MR - 1>();
  }
  template <int MR, int NV>
  constexpr void fill_vectors() {
    of[MR - 1][NV - 1] = micro_kernel<T, MR, NV>;
    if constexpr (NV > 1) fill_vectors<MR, NV - 1>();
  }
};

template <class T>
constexpr MicroKernels<T> micro_kernels;

// -- output channels in the lanes -------------------------------------------------------------------------------------

// Pixels, or taps, whose sums stay in registers beside two vectors of output channels. float64 serves gradient checks.
template <class T>
constexpr int most_pixels = sizeof(T) == 4 ? gemm_rows : 4;

// tile[R rows][P pixels][NC vectors of output channels]; weight [taps, NC vectors], the last vector of bias has `tail`
// lanes. Rows are source_row apart in the source, and tile_row in the tile.
template <class T, int R, int P, int NC>
void outputs_micro_kernel(T* tile, int64_t tile_row, const T* source, int64_t source_row, const int64_t* offsets,
                          const T* weight, const T* bias, int tail, bool relu, int64_t taps) {
  constexpr int lanes = Vec<T>::lanes;
  Vec<T> sum[R * P][NC];
#pragma GCC unroll 2
  for (int c = 0; c < NC; ++c) {
    Vec<T> start = Vec<T>::zero();
    if (bias != nullptr) start = c == NC - 1 ? Vec<T>::load(bias + c * lanes, tail) : Vec<T>::load(bias + c * lanes);
#pragma GCC unroll 32
    for (int p = 0; p < R * P; ++p) sum[p][c] = start;
  }
  for (int64_t k = 0; k < taps; ++k, weight += NC * lanes) {
    const T* pixel = in_register(source + offsets[k]);
    Vec<T> w[NC];
#pragma GCC unroll 2
    for (int c = 0; c < NC; ++c) w[c] = Vec<T>::load(weight + c * lanes);
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r, pixel = in_register(pixel + source_row)) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const Vec<T> x(pixel[p]);
#pragma GCC unroll 2
        for (int c = 0; c < NC; ++c) sum[r * P + p][c] = fma(w[c], x, sum[r * P + p][c]);
      }
    }
  }
  if (relu) {
#pragma GCC unroll 32
    for (int p = 0; p < R * P; ++p) {
#pragma GCC unroll 2
      for (int c = 0; c < NC; ++c) sum[p][c] = keep_positive(sum[p][c]);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r, tile += tile_row) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int c = 0; c < NC; ++c) sum[r * P + p][c].store(tile + (p * NC + c) * lanes);
    }
  }
}

template <class T>
using OutputsMicroKernel = void (*)(T*, int64_t, const T*, int64_t, const int64_t*, const T*, const T*, int, bool,
                                    int64_t);

// A single vector of output channels takes pixels of two rows at a time, and so do two vectors where rows are short: of
// one row alone the products are too few to keep the multipliers busy, and wait for the loads. float64 serves gradient
// checks.
template <class T>
constexpr bool outputs_in_two_rows = sizeof(T) == 4;

// Pixels of a row, of two vectors of output channels.
template <class T>
constexpr int most_pixels_of_two_rows = most_pixels<T> / 2;

// [pixels - 1][vectors - 1], and the same of two rows
template <class T>
struct OutputsMicroKernels {
  OutputsMicroKernel<T> of[most_pixels<T>][2];
  OutputsMicroKernel<T> two_rows[most_pixels<T>][2];
  constexpr OutputsMicroKernels() : of(), two_rows() { fill<most_pixels<T>>(); }

 private:
  template <int P>
  constexpr void fill() {
    of[P - 1][0] = outputs_micro_kernel<T, 1, P, 1>;
    of[P - 1][1] = outputs_micro_kernel<T, 1, P, 2>;
    if constexpr (outputs_in_two_rows<T>) {
      two_rows[P - 1][0] = outputs_micro_kernel<T, 2, P, 1>;
      if constexpr (P <= most_pixels_of_two_rows<T>) two_rows[P - 1][1] = outputs_micro_kernel<T, 2, P, 2>;
    }
    if constexpr (P > 1) fill<P - 1>();
  }
};

template <class T>
constexpr OutputsMicroKernels<T> outputs_micro_kernels;

// -- gradient of the weights ------------------------------------------------------------------------------------------

template <class T>
constexpr int dweight_most_outputs = sizeof(T) == 8  ? 2
                                     : gemm_rows > 6 ? 6
                                     : gemm_rows > 4 ? 3
                                                     : 2;

// Taps whose sums fit beside one vector of dy for each output channel, and one of the source.
template <class T>
constexpr int dweight_most_taps(int outputs) {
  return smaller(sizeof(T) == 4 ? 6 : 3, (usable_registers - outputs) / outputs);
}

// [MO output channels] x [KT taps]: the lanes are pixels, added up at the end.
template <class T, int MO, int KT>
void dweight_micro_kernel(T* dweight, int64_t dweight_step, const T* dy, int64_t dy_plane, int64_t dy_image,
                          const T* source, int64_t source_image, const int64_t* offsets, int64_t pixels,
                          int64_t images) {
  Vec<T> sum[MO][KT];
#pragma GCC unroll 8
  for (int o = 0; o < MO; ++o) {
#pragma GCC unroll 8
    for (int k = 0; k < KT; ++k) sum[o][k] = Vec<T>::zero();
  }
  for (int64_t image = 0; image < images; ++image, dy += dy_image, source += source_image) {
    const T* tap[KT];
#pragma GCC unroll 8
    for (int k = 0; k < KT; ++k) tap[k] = source + offsets[k];
    for (int64_t p = 0; p < pixels; p += Vec<T>::lanes) {
      Vec<T> d[MO];
#pragma GCC unroll 8
      for (int o = 0; o < MO; ++o) d[o] = Vec<T>::load(dy + o * dy_plane + p);
#pragma GCC unroll 8
      for (int k = 0; k < KT; ++k) {
        const Vec<T> x = Vec<T>::load(tap[k] + p);
#pragma GCC unroll 8
        for (int o = 0; o < MO; ++o) sum[o][k] = fma(d[o], x, sum[o][k]);
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < MO; ++o) {
#pragma GCC unroll 8
    for (int k = 0; k < KT; ++k) dweight[o * dweight_step + k] += reduce_add(sum[o][k]);
  }
}

template <class T>
using DweightMicroKernel = void (*)(T*, int64_t, const T*, int64_t, int64_t, const T*, int64_t, const int64_t*, int64_t,
                                    int64_t);

// [output channels - 1][taps - 1]
template <class T>
struct DweightMicroKernels {
  DweightMicroKernel<T> of[dweight_most_outputs<T>][dweight_most_taps<T>(1)];
  constexpr DweightMicroKernels() : of() {
    fill<dweight_most_outputs<T>, dweight_most_taps<T>(dweight_most_outputs<T>)>();
  }

 private:
  template <int MO, int KT>
  constexpr void fill() {
    of[MO - 1][KT - 1] = dweight_micro_kernel<T, MO, KT>;
    if constexpr (KT > 1) {
      fill<MO, KT - 1>();
    } else if constexpr (MO > 1) {
      fill<MO - 1, dweight_most_taps<T>(MO - 1)>();
    }
  }
};

template <class T>
constexpr DweightMicroKernels<T> dweight_micro_kernels;

// -- gradient of the weights, output channels in the lanes ------------------------------------------------------------

// What the block of accumulators dweight[KT taps][NC vectors of output channels] is summed over.
template <class T>
struct OutputsDweight {
  T* dweight;   // [taps, outputs]
  const T* dy;  // [images, rows * columns, outputs]
  const T* source;
  const int64_t* offsets;
  int64_t dweight_step, dy_step, dy_image, source_image, source_row, rows, columns, images;
};

template <class T, int KT, int NC>
void outputs_dweight_micro_kernel(const OutputsDweight<T>& a, int tail) {
  constexpr int lanes = Vec<T>::lanes;
  Vec<T> sum[KT][NC];
#pragma GCC unroll 16
  for (int k = 0; k < KT; ++k) {
#pragma GCC unroll 2
    for (int c = 0; c < NC; ++c) {
      const T* p = a.dweight + k * a.dweight_step + c * lanes;
      sum[k][c] = c == NC - 1 ? Vec<T>::load(p, tail) : Vec<T>::load(p);
    }
  }
  int64_t offset[KT];  // beside one pointer that moves: nothing is set up for each row
#pragma GCC unroll 16
  for (int k = 0; k < KT; ++k) offset[k] = a.offsets[k];
  for (int64_t image = 0; image < a.images; ++image) {
    const T* dy = a.dy + image * a.dy_image;
    for (int64_t r = 0; r < a.rows; ++r) {
      const T* pixel = a.source + image * a.source_image + r * a.source_row;
      const T* const row_end = pixel + a.columns;
      for (; pixel != row_end; ++pixel, dy += a.dy_step) {
        Vec<T> d[NC];
#pragma GCC unroll 2
        for (int c = 0; c < NC; ++c) d[c] = Vec<T>::load(dy + c * lanes);
#pragma GCC unroll 16
        for (int k = 0; k < KT; ++k) {
          const Vec<T> x(pixel[offset[k]]);
#pragma GCC unroll 2
          for (int c = 0; c < NC; ++c) sum[k][c] = fma(d[c], x, sum[k][c]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < KT; ++k) {
#pragma GCC unroll 2
    for (int c = 0; c < NC; ++c) {
      T* p = a.dweight + k * a.dweight_step + c * lanes;
      if (c == NC - 1) {
        sum[k][c].store(p, tail);
      } else {
        sum[k][c].store(p);
      }
    }
  }
}

template <class T>
using OutputsDweightMicroKernel = void (*)(const OutputsDweight<T>&, int);

// [taps - 1][vectors - 1]
template <class T>
struct OutputsDweightMicroKernels {
  OutputsDweightMicroKernel<T> of[most_pixels<T>][2];
  constexpr OutputsDweightMicroKernels() : of() { fill<most_pixels<T>>(); }

 private:
  template <int KT>
  constexpr void fill() {
    of[KT - 1][0] = outputs_dweight_micro_kernel<T, KT, 1>;
    of[KT - 1][1] = outputs_dweight_micro_kernel<T, KT, 2>;
    if constexpr (KT > 1) fill<KT - 1>();
  }
};

template <class T>
constexpr OutputsDweightMicroKernels<T> outputs_dweight_micro_kernels;

}  // namespace
}  // namespace pynn::PYNN_ISA
