// How the sums of a convolution get from a buffer in the L1 cache to y: as they are, or the maxima of their windows.
#pragma once

#include "kernels/conv.h"
#include "kernels/max_pool_2x2.h"
#include "simd/pairs.h"

namespace pynn::PYNN_ISA {
namespace {

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

// Pooled pixels and their winners, unless indices is null, to channels y and indices that have `room` elements left.
template <class T>
PYNN_INLINE void pool_rows(T* y, uint8_t* indices, const ConvPixels& pixels, int64_t room, const T* buffer,
                           int64_t buffer_row) {
  for (int64_t r = 0; r < pixels.rows; r += 2, buffer += 2 * buffer_row) {
    const int64_t row = r / 2 * pixels.row_step;
    for_lanes<T>(pixels.columns / 2, [&](int64_t c, auto lanes) {
      const Pairs<T> top(buffer + 2 * c, lanes), bottom(buffer + buffer_row + 2 * c, lanes);
      if (indices == nullptr) {
        store(y + row + c, window_max(top.left, top.right, bottom.left, bottom.right), lanes);
        return;
      }
      const WindowMax<T> window(top.left, top.right, bottom.left, bottom.right);
      store(y + row + c, window.best, lanes);
      store_indices(indices + row + c, window.index, count<T>(lanes), room - row - c);
    });
  }
}

// -- from a buffer [pixels, width of outputs] -------------------------------------------------------------------------

constexpr int64_t kRun = 112;  // pixels that go through the buffer at a time: whole blocks of 14, whole vectors of 16

// Pixels of the buffer, and behind them what pooling leaves of a quarter as many: maxima and indices.
constexpr int64_t outputs_buffer(int64_t lanes) { return 2 * lanes * (kRun + lanes + 2 * (kRun / 4 + lanes)); }

// y[output, pixel] = buffer[pixel, output]; the buffer has `width` outputs, and pixels up to a whole vector.
template <class T>
void write_outputs(T* y, int64_t channel_step, int64_t column_step, const T* buffer, int64_t width, int64_t outputs,
                   int64_t pixels) {
  constexpr int64_t lanes = Vec<T>::lanes;
  if (column_step != 1) {
    for (int64_t i = 0; i < outputs; ++i) {
      for (int64_t p = 0; p < pixels; ++p) y[i * channel_step + p * column_step] = buffer[p * width + i];
    }
    return;
  }
  for (int64_t i = 0; i < outputs; i += lanes) {
    for (int64_t p = 0; p < pixels; p += lanes) {
      const T* from = buffer + p * width + i;
      T* to = y + i * channel_step + p;
      if (outputs - i >= lanes && pixels - p >= lanes) {
        transpose_block(to, channel_step, from, width);
        continue;
      }
      T block[lanes * lanes];
      transpose_block(block, lanes, from, width);
      const int n = static_cast<int>(pixels - p < lanes ? pixels - p : lanes);
      for (int64_t o = 0; o < lanes && i + o < outputs; ++o)
        Vec<T>::load(block + o * lanes).store(to + o * channel_step, n);
    }
  }
}

// The maxima of the buffer's windows, and the taps that they come from unless taps is null: [rows / 2 * columns / 2,
// width].
template <class T>
void pool_outputs(T* maxima, T* taps, const T* buffer, int64_t width, int64_t rows, int64_t columns) {
  const int64_t row = columns * width;
  for (int64_t r = 0; r < rows; r += 2, buffer += 2 * row) {
    for (int64_t c = 0; c < columns; c += 2, maxima += width) {
      for (int64_t i = 0; i < width; i += Vec<T>::lanes) {
        const T* from = buffer + c * width + i;
        const Vec<T> top_left = Vec<T>::load(from), top_right = Vec<T>::load(from + width);
        const Vec<T> bottom_left = Vec<T>::load(from + row), bottom_right = Vec<T>::load(from + row + width);
        if (taps == nullptr) {
          window_max(top_left, top_right, bottom_left, bottom_right).store(maxima + i);
          continue;
        }
        const WindowMax<T> window(top_left, top_right, bottom_left, bottom_right);
        window.best.store(maxima + i);
        window.index.store(taps + i);
      }
      if (taps != nullptr) taps += width;
    }
  }
}

// indices[output, pixel] = taps[pixel, output], of channels that have `room` elements left
template <class T>
void write_indices(uint8_t* indices, int64_t channel_step, int64_t room, const T* taps, int64_t width, int64_t outputs,
                   int64_t pixels) {
  constexpr int64_t lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < outputs; i += lanes) {
    for (int64_t p = 0; p < pixels; p += lanes) {
      T block[lanes * lanes];
      transpose_block(block, lanes, taps + p * width + i, width);
      const int n = static_cast<int>(pixels - p < lanes ? pixels - p : lanes);
      for (int64_t o = 0; o < lanes && i + o < outputs; ++o)
        store_indices(indices + (i + o) * channel_step + p, Vec<T>::load(block + o * lanes), n, room - p);
    }
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
