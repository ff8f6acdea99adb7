// Gradients of a convolution behind ReLU and a 2 x 2 max-pool. Of the convolution's outputs in a window one at most has
// a gradient other than 0: the live windows are listed, each with its gradient g and the output that won, and dy is
// never written out. Images lie in scratch with their channels last and zeros around them: [rows, columns, channels].
#pragma once

#include <cstdint>

#include "kernels/conv.h"

namespace pynn {

// Positions that fill a vector as the elements do.
template <class T>
struct SparsePosition;
template <>
struct SparsePosition<float> {
  using Int = int32_t;
};
template <>
struct SparsePosition<double> {
  using Int = int64_t;
};

// Of windows that lie one after the other. The gradient of a window is dy where y > 0 or y is NaN, and 0 elsewhere; it
// is dy if y is null. Of an index the two lowest bits count: 2 * row + column.
template <class T>
struct PooledGradient {
  const T *dy, *y;
  const uint8_t* indices;

  PooledGradient from(int64_t window) const {
    return {dy + window, y == nullptr ? nullptr : y + window, indices + window};
  }
};

// The patches of dx that the windows of an image read, and what is added to them. A filter is rows of whole vectors.
template <class T>
struct SparsePatches {
  T* dx;  // [rows, columns, channels]
  // distances in dx, of neighbouring rows, windows, and vectors of a row
  int64_t row, window_step, vector_step;
  const T* weight;
  // distances in weight: of outputs, of rows of taps, and from a filter to the same for winners in the right column
  int64_t weight_output, weight_row, weight_shift;
  const T* g;  // [windows, g_step]
  int64_t g_step;
  const typename SparsePosition<T>::Int *winners, *counts;
  int64_t pooled_rows, pooled_columns;
};

template <class T>
struct SparseConvKernels {
  using Int = typename SparsePosition<T>::Int;

  // Arrays that are written in whole vectors have room for so many elements behind their last one, and images are
  // readable so far.
  int64_t lanes;

  // image[r, c, channel] = x[channel, top + r, left + c], or 0 outside of x; the steps of the window are 1
  void (*pack_image)(T* image, int64_t rows, int64_t columns, int64_t channels, const T* x, const ConvWindow& window);

  // dx[channel, top + r, left + c] = image[r, c, channel], or 0 where the image does not reach
  void (*unpack_image)(T* dx, const ConvWindow& window, int64_t channels, const T* image, int64_t rows,
                       int64_t columns);

  // Appends g and the position, corners[i] + row * row_step + column * column_step, of each live window i to the lists.
  // Returns how many there are, and adds their g to sum [lanes]. corners has room for whole vectors, as the lists have.
  int64_t (*list_live)(T* g, Int* at, T* sum, const PooledGradient<T>& gradient, const Int* corners, Int row_step,
                       Int column_step, int64_t windows);

  // As many elements of a row of taps as the accumulators of `dweight` take for `run` of them.
  int64_t (*dweight_row)(int64_t run);

  // sums[i, j] += sum over the listed windows of g * image[at + i * image_row + j], j < row = dweight_row(run)
  void (*dweight)(T* sums, int64_t kernel_rows, int64_t row, const T* image, int64_t image_row, const T* g,
                  const Int* at, int64_t count);

  int64_t most_winners;  // of `list_winners`: that many outputs at a time

  // g[windows, outputs rounded up to lanes], the rows rounded up as well, and for each window the outputs that are
  // live, those whose winner has index 0 first, with counts [windows, 4]; the gradient is [outputs, windows].
  void (*list_winners)(T* g, Int* winners, Int* counts, const PooledGradient<T>& gradient, int64_t outputs,
                       int64_t windows);

  // Whether a vector of a patch is a pixel's, whose filters are [kernel rows, kernel columns, lanes]. Else filters are
  // rows of as many vectors as (kernel columns + 1) * channels take; those for winners in the right column begin
  // with `channels` zeros, the others end with them.
  bool (*dx_by_pixels)(int64_t channels, int64_t kernel_columns);

  // Adds g times the filters of all live outputs to the patches; `vectors` of a row of a patch.
  void (*dx)(const SparsePatches<T>& patches, int64_t kernel_rows, int64_t vectors, bool by_pixels);
};

}  // namespace pynn
