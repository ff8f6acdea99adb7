#include "kernels/conv.h"

#include "kernels/table.h"
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
                  int64_t taps) {
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
using MicroKernel = void (*)(const Pixels<T>*, int64_t, const int64_t*, const T*, const T*, int64_t);

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

template <class T>
constexpr int vectors_of_outputs(int64_t outputs) {
  return most_vectors<T>(static_cast<int>(outputs));
}

// y = the columns of the rows in buffer
template <class T>
PYNN_INLINE void copy_rows(T* y, const ConvPixels& pixels, const T* buffer) {
  for (int64_t r = 0; r < pixels.rows; ++r, y += pixels.row_step, buffer += pixels.source_row) {
    if (pixels.column_step == 1) {
      for_lanes<T>(pixels.columns, [&](int64_t c, auto lanes) { store(y + c, load(buffer + c, lanes), lanes); });
    } else {
      for (int64_t c = 0; c < pixels.columns; ++c) y[c * pixels.column_step] = buffer[c];
    }
  }
}

template <class T>
void correlate(T* y, const ConvPixels& pixels, const T* source, const int64_t* offsets, const T* weight, const T* bias,
               int64_t outputs, int64_t taps, T* buffer) {
  constexpr int64_t lanes = Vec<T>::lanes;
  // Either each row in vectors of its own, whose last one is filled in part, or all rows and the garbage between them
  // as one run of pixels, of which the rows are then copied: what takes less.
  const int64_t row_vectors = (pixels.columns + lanes - 1) / lanes;
  const int64_t run_vectors = ((pixels.rows - 1) * pixels.source_row + pixels.columns + lanes - 1) / lanes;
  const bool by_rows = pixels.column_step == 1 && pixels.rows * row_vectors * (taps + 1) <= run_vectors * (taps + 3);
  const int64_t vectors = by_rows ? pixels.rows * row_vectors : run_vectors;
  const int64_t buffer_step = run_vectors * lanes;
  const int64_t blocks = (vectors + vectors_of_outputs<T>(outputs) - 1) / vectors_of_outputs<T>(outputs);
  int64_t row = 0, column = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = vectors * b / blocks, end = vectors * (b + 1) / blocks;
    Pixels<T> group[most_vectors<T>(1)];
    for (int64_t v = begin; v < end; ++v) {
      if (!by_rows) {
        group[v - begin] = {source + v * lanes, buffer + v * lanes, static_cast<int>(lanes)};
        continue;
      }
      const int64_t left = pixels.columns - column;
      group[v - begin] = {source + row * pixels.source_row + column, y + row * pixels.row_step + column,
                          static_cast<int>(left < lanes ? left : lanes)};
      column += lanes;
      if (column >= pixels.columns) {
        column = 0;
        ++row;
      }
    }
    micro_kernels<T>.of[outputs - 1][end - begin - 1](group, by_rows ? pixels.channel_step : buffer_step, offsets,
                                                      weight, bias, taps);
  }
  if (by_rows) return;
  for (int64_t i = 0; i < outputs; ++i) copy_rows(y + i * pixels.channel_step, pixels, buffer + i * buffer_step);
}

template <class T>
PYNN_INLINE void clear(T* p, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(p + i, Vec<T>::zero(), lanes); });
}

PYNN_INLINE int64_t clamp(int64_t x, int64_t high) { return x < 0 ? 0 : x < high ? x : high; }

// The positions begin..end-1 among `count` at first + position * step that lie in 0..size-1.
struct Inside {
  int64_t begin, end;

  PYNN_INLINE Inside(int64_t first, int64_t step, int64_t size, int64_t count) {
    begin = first >= 0 ? 0 : clamp((-first + step - 1) / step, count);
    end = first >= size ? begin : clamp((size - first + step - 1) / step, count);
    if (end < begin) end = begin;
  }
};

template <class T>
void copy_window(T* plane, int64_t rows, int64_t columns, const T* x, const ConvWindow& window) {
  const Inside row(window.top, window.row_step, window.height, rows);
  const Inside column(window.left, window.column_step, window.width, columns);
  clear(plane, row.begin * columns);
  for (int64_t r = row.begin; r < row.end; ++r) {
    const T* from = x + (window.top + r * window.row_step) * window.width + window.left;
    T* to = plane + r * columns;
    clear(to, column.begin);
    if (window.column_step == 1) {
      for_lanes<T>(column.end - column.begin, [&](int64_t i, auto lanes) {
        store(to + column.begin + i, load(from + column.begin + i, lanes), lanes);
      });
    } else {
      for (int64_t c = column.begin; c < column.end; ++c) to[c] = from[c * window.column_step];
    }
    clear(to + column.end, columns - column.end);
  }
  clear(plane + row.end * columns, (rows - row.end) * columns);
}

template <class T>
void pack_weight(T* packed, const T* weight, const int64_t* tap_offsets, int64_t output_step, int64_t outputs,
                 int64_t taps) {
  for (int64_t k = 0; k < taps; ++k) {
    for (int64_t i = 0; i < outputs; ++i) packed[k * outputs + i] = weight[tap_offsets[k] + i * output_step];
  }
}

// -- gradient of the weights
// ---------------------------------------------------------------------------------------------

constexpr int dweight_outputs = gemm_rows > 6 ? 4 : gemm_rows > 4 ? 3 : 2;
constexpr int dweight_taps = gemm_rows > 6 ? 6 : 4;

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
  DweightMicroKernel<T> of[dweight_outputs][dweight_taps];
  constexpr DweightMicroKernels() : of() { fill<dweight_outputs, dweight_taps>(); }

 private:
  template <int MO, int KT>
  constexpr void fill() {
    of[MO - 1][KT - 1] = dweight_micro_kernel<T, MO, KT>;
    if constexpr (KT > 1) {
      fill<MO, KT - 1>();
    } else if constexpr (MO > 1) {
      fill<MO - 1, dweight_taps>();
    }
  }
};

template <class T>
constexpr DweightMicroKernels<T> dweight_micro_kernels;

template <class T>
void dweight(T* dweight, const T* dy, int64_t dy_plane, int64_t dy_image, const T* source, int64_t source_image,
             const int64_t* offsets, int64_t outputs, int64_t taps, int64_t pixels, int64_t images) {
  const int64_t output_blocks = (outputs + dweight_outputs - 1) / dweight_outputs;
  const int64_t tap_blocks = (taps + dweight_taps - 1) / dweight_taps;
  for (int64_t b = 0; b < output_blocks; ++b) {
    const int64_t o = outputs * b / output_blocks, os = outputs * (b + 1) / output_blocks - o;
    for (int64_t t = 0; t < tap_blocks; ++t) {
      const int64_t k = taps * t / tap_blocks, ks = taps * (t + 1) / tap_blocks - k;
      dweight_micro_kernels<T>.of[os - 1][ks - 1](dweight + o * taps + k, taps, dy + o * dy_plane, dy_plane, dy_image,
                                                  source, source_image, offsets + k, pixels, images);
    }
  }
}

template <class T>
void add_row_sums(T* sums, const T* x, int64_t count, int64_t size) {
  constexpr int64_t lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < count; ++i, x += size) {
    Vec<T> sum[4] = {Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero()};
    int64_t j = 0;
    for (; j + 4 * lanes <= size; j += 4 * lanes) {
      for (int v = 0; v < 4; ++v) sum[v] = sum[v] + Vec<T>::load(x + j + v * lanes);
    }
    for_lanes<T>(size - j, [&](int64_t p, auto n) { sum[0] = sum[0] + load(x + j + p, n); });
    sums[i] += reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

template <class T>
ConvKernels<T> table() {
  return {Vec<T>::lanes, most_outputs<T>, copy_window<T>, pack_weight<T>, correlate<T>, dweight<T>, add_row_sums<T>};
}

}  // namespace

void register_conv(KernelSet& set) {
  set.f32.conv = table<float>();
  set.f64.conv = table<double>();
}

}  // namespace pynn::PYNN_ISA
