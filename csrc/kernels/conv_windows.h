// Convolution and 2 x 2 max-pooling in one block of registers: the lanes are windows, and each output channel has four
// vectors of sums, one for each pixel of the windows.
#pragma once

#include "kernels/conv_blocks.h"
#include "kernels/max_pool_2x2.h"
#include "simd/pairs.h"

namespace pynn::PYNN_ISA {
namespace {

// Output channels of a block: four sums and a weight each, beside one vector of what is read.
template <class T>
constexpr int most_window_outputs = smaller(sizeof(T) == 4 ? 6 : 2, usable_registers / 5);

// halves[row % 2, shift] [row / 2, w] = plane[row, 2 * w + shift]
template <class T>
void split_windows(T* halves, int64_t half, const T* plane, int64_t rows, int64_t row_length, int64_t windows,
                   int64_t shifts) {
  constexpr int64_t lanes = Vec<T>::lanes;
  for (int64_t shift = 0; shift < shifts; shift += 2) {
    const bool both = shift + 1 < shifts;
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = plane + r * row_length + shift;
      T* to = halves + (r % 2 * shifts + shift) * half + r / 2 * windows;
      for (int64_t w = 0; w < windows; w += lanes) {
        const Pairs<T> pairs(from + 2 * w, AllLanes{});
        pairs.left.store(to + w);
        if (both) pairs.right.store(to + half + w);
      }
    }
  }
  for (int64_t i = 0; i < 2 * shifts; ++i) {
    const int64_t count = (rows + (i < shifts ? 1 : 0)) / 2;
    Vec<T>::zero().store(halves + i * half + count * windows);
  }
}

// y and, unless null, indices [MR output channels] x [vector of windows]
template <class T, int MR>
void windows_micro_kernel(T* y, uint8_t* indices, int64_t channel_step, const T* source, int64_t next_column,
                          const int64_t* offsets, const T* weight, const T* bias, bool relu, int64_t taps) {
  Vec<T> sum[MR][4];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    const Vec<T> start = bias != nullptr ? Vec<T>(bias[i]) : Vec<T>::zero();
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) sum[i][p] = start;
  }
  for (int64_t k = 0; k < taps; ++k, weight += MR) {
    Vec<T> w[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) w[i] = in_register(Vec<T>(weight[i]));
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const Vec<T> x = in_register(Vec<T>::load(source + offsets[2 * k + p / 2] + p % 2 * next_column));
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) sum[i][p] = fma(w[i], x, sum[i][p]);
    }
  }
  if (indices == nullptr) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const Vec<T> best = window_max(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
      (relu ? keep_positive(best) : best).store(y + i * channel_step);
    }
    return;
  }
  if (relu) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) sum[i][p] = keep_positive(sum[i][p]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    const WindowMax<T> window(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
    window.best.store(y + i * channel_step);
    store_indices(indices + i * channel_step, window.index, Vec<T>::lanes, Vec<T>::lanes);
  }
}

template <class T>
using WindowsMicroKernel = void (*)(T*, uint8_t*, int64_t, const T*, int64_t, const int64_t*, const T*, const T*, bool,
                                    int64_t);

// [output channels - 1]
template <class T>
struct WindowsMicroKernels {
  WindowsMicroKernel<T> of[most_window_outputs<T>];
  constexpr WindowsMicroKernels() : of() { fill<most_window_outputs<T>>(); }

 private:
  template <int MR>
  constexpr void fill() {
    of[MR - 1] = windows_micro_kernel<T, MR>;
    if constexpr (MR > 1) fill<MR - 1>();
  }
};

template <class T>
constexpr WindowsMicroKernels<T> windows_micro_kernels;

template <class T>
void correlate_windows(T* y, int64_t channel_step, int64_t windows, const T* halves, int64_t half,
                       const int64_t* offsets, const T* weight, const ConvEpilogue<T>& epilogue, int64_t outputs,
                       int64_t taps, const T* next, int64_t next_size) {
  constexpr int64_t lanes = Vec<T>::lanes, line = 64 / sizeof(T);
  const WindowsMicroKernel<T> micro_kernel = windows_micro_kernels<T>.of[outputs - 1];
  const int64_t fetched = (next_size / (windows / lanes + 1) / line + 1) * line;  // for each vector
  int64_t w = 0, at = 0;
  for (; w + lanes <= windows; w += lanes) {
    for (const int64_t end = at + fetched < next_size ? at + fetched : next_size; at < end; at += line) {
      __builtin_prefetch(next + at);
    }
    micro_kernel(y + w, epilogue.indices_at(w), channel_step, halves + w, half, offsets, weight, epilogue.bias,
                 epilogue.relu, taps);
  }
  if (w == windows) return;
  T maxima[most_window_outputs<T> * lanes];
  uint8_t taps_of_maxima[most_window_outputs<T> * lanes];
  uint8_t* indices = epilogue.indices;
  micro_kernel(maxima, indices != nullptr ? taps_of_maxima : nullptr, lanes, halves + w, half, offsets, weight,
               epilogue.bias, epilogue.relu, taps);
  const int n = static_cast<int>(windows - w);
  for (int64_t i = 0; i < outputs; ++i) {
    Vec<T>::load(maxima + i * lanes).store(y + i * channel_step + w, n);
    for (int j = 0; j < n && indices != nullptr; ++j) indices[i * channel_step + w + j] = taps_of_maxima[i * lanes + j];
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
