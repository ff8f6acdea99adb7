#include "kernels/winograd.h"

#include "kernels/max_pool_2x2.h"
#include "kernels/table.h"
#include "simd/pairs.h"

namespace pynn::PYNN_ISA {
namespace {

// G g
template <class T>
PYNN_INLINE void filter_line(Vec<T> to[4], Vec<T> g0, Vec<T> g1, Vec<T> g2) {
  const Vec<T> half(T(0.5)), ends = g0 + g2;
  to[0] = g0;
  to[1] = half * (ends + g1);
  to[2] = half * (ends - g1);
  to[3] = g2;
}

// B^T d
template <class T>
PYNN_INLINE void input_line(Vec<T> to[4], Vec<T> d0, Vec<T> d1, Vec<T> d2, Vec<T> d3) {
  to[0] = d0 - d2;
  to[1] = d1 + d2;
  to[2] = d2 - d1;
  to[3] = d1 - d3;
}

// A^T m
template <class T>
PYNN_INLINE void output_line(Vec<T>& first, Vec<T>& second, Vec<T> m0, Vec<T> m1, Vec<T> m2, Vec<T> m3) {
  first = m0 + m1 + m2;
  second = m1 - m2 - m3;
}

template <class T>
void filters(T* u, int64_t position_step, const T* g, const int64_t* taps, int64_t channels, int64_t outputs) {
  for (int64_t c = 0; c < channels; ++c) {
    for_lanes<T>(outputs, [&](int64_t o, auto lanes) {
      const T* from = g + c * 9 * outputs + o;
      Vec<T> line[3][4];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        filter_line(line[j], load(from + taps[j] * outputs, lanes), load(from + taps[3 + j] * outputs, lanes),
                    load(from + taps[6 + j] * outputs, lanes));
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Vec<T> across[4];
        filter_line(across, line[0][i], line[1][i], line[2][i]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store(u + (4 * i + j) * position_step + c * outputs + o, across[j], lanes);
      }
    });
  }
}

// d B of one row of pixels
template <class T, class Lanes>
PYNN_INLINE void input_row(Vec<T> to[4], const T* x, Lanes lanes) {
  const Pairs<T> near(x, lanes), far(x + 2, lanes);
  input_line(to, near.left, near.right, far.left, far.right);
}

// Tiles t.. of every row; of four rows of pixels the last two are the first two of the next tiles.
template <class T, class Lanes>
PYNN_INLINE void input_columns(T* v, int64_t position_step, const T* x, int64_t row_length, int64_t rows,
                               int64_t columns, Lanes lanes) {
  Vec<T> across[4][4];
  input_row(across[2], x, lanes);
  input_row(across[3], x + row_length, lanes);
  for (int64_t r = 0; r < rows; ++r, v += columns) {
    x += 2 * row_length;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      across[0][j] = across[2][j];
      across[1][j] = across[3][j];
    }
    input_row(across[2], x, lanes);
    input_row(across[3], x + row_length, lanes);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Vec<T> down[4];
      input_line(down, across[0][j], across[1][j], across[2][j], across[3][j]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) down[i].store(v + (4 * i + j) * position_step);
    }
  }
}

template <class T>
void input(T* v, int64_t position_step, const T* x, int64_t row_length, int64_t rows, int64_t columns) {
  constexpr int64_t lanes = Vec<T>::lanes;
  if (columns < lanes) {  // whole vectors: what is behind a row is written again by the next one
    input_columns(v, position_step, x, row_length, rows, columns, static_cast<int>(columns));
    return;
  }
  for (int64_t begin = 0; begin < columns; begin += lanes) {
    const int64_t t = begin < columns - lanes ? begin : columns - lanes;
    input_columns(v + t, position_step, x + 2 * t, row_length, rows, columns, AllLanes{});
  }
}

// ReLU; max returns its second argument where one is NaN.
template <class T>
PYNN_INLINE Vec<T> keep_positive(Vec<T> v, bool relu) {
  return relu ? max(Vec<T>::zero(), v) : v;
}

template <class T>
void output(T* y, const ConvPixels& pixels, const T* m, int64_t position_step, const ConvEpilogue<T>& epilogue) {
  const int64_t columns = (pixels.columns + 1) / 2;
  for (int64_t r = 0; r < pixels.rows; r += 2, m += columns) {
    for_lanes<T>(columns, [&](int64_t t, auto lanes) {
      Vec<T> top[4], bottom[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const T* from = m + j * position_step + t;
        output_line(top[j], bottom[j], Vec<T>::load(from), Vec<T>::load(from + 4 * position_step),
                    Vec<T>::load(from + 8 * position_step), Vec<T>::load(from + 12 * position_step));
      }
      Vec<T> y00, y01, y10, y11;
      output_line(y00, y01, top[0], top[1], top[2], top[3]);
      output_line(y10, y11, bottom[0], bottom[1], bottom[2], bottom[3]);
      y00 = keep_positive(y00, epilogue.relu);
      y01 = keep_positive(y01, epilogue.relu);
      y10 = keep_positive(y10, epilogue.relu);
      y11 = keep_positive(y11, epilogue.relu);
      if (epilogue.pool) {
        const int64_t at = r / 2 * pixels.row_step + t;
        if (epilogue.indices == nullptr) {
          store(y + at, window_max(y00, y01, y10, y11), lanes);
          return;
        }
        const WindowMax<T> window(y00, y01, y10, y11);
        store(y + at, window.best, lanes);
        store_indices(epilogue.indices + at, window.index, count<T>(lanes), pixels.rows / 2 * pixels.row_step - at);
        return;
      }
      T* to = y + r * pixels.row_step + 2 * t;
      if (2 * (t + count<T>(lanes)) <= pixels.columns) {
        Pairs<T>(y00, y01).store(to, lanes);
        if (r + 1 < pixels.rows) Pairs<T>(y10, y11).store(to + pixels.row_step, lanes);
        return;
      }
      T row[2 * Vec<T>::lanes];
      const size_t bytes = static_cast<size_t>(pixels.columns - 2 * t) * sizeof(T);
      Pairs<T>(y00, y01).store(row, AllLanes{});
      std::memcpy(to, row, bytes);
      if (r + 1 == pixels.rows) return;
      Pairs<T>(y10, y11).store(row, AllLanes{});
      std::memcpy(to + pixels.row_step, row, bytes);
    });
  }
}

template <class T>
WinogradKernels<T> table() {
  return {Vec<T>::lanes, 5, filters<T>, input<T>, output<T>};
}

}  // namespace

void register_winograd(KernelSet& set) {
  set.f32.winograd = table<float>();
  set.f64.winograd = table<double>();
}

}  // namespace pynn::PYNN_ISA
