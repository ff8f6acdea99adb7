// Convolution without a matrix of patches. The images that are read lie in scratch, the "source": planes with their
// zeros around them, those of a strided convolution split into one plane per phase of the stride. Then tap k of the
// outputs in row r and columns c, c+1, ... is the run of neighbours source[offsets[k] + r * source_row + c], [.. + c +
// 1], ...
#pragma once

#include <cstdint>

namespace pynn {

struct ConvPixels {
  int64_t rows, columns;  // of outputs
  int64_t source_row;     // distance between the rows in the source, at least `columns`
  // distances of neighbours in y
  int64_t channel_step, row_step, column_step;
};

// What becomes of the sums. With pool, y and indices are the maximum of each window of 2 x 2 and 2 * row + column of
// it; `pixels` then counts the convolution's outputs, an even number both ways, and has the distances in y.
template <class T>
struct ConvEpilogue {
  const T* bias;  // [outputs] or null
  bool relu, pool;
  uint8_t* indices;  // or null

  uint8_t* indices_at(int64_t at) const { return indices == nullptr ? nullptr : indices + at; }
};

// plane[r, c] = x[top + r * row_step, left + c * column_step], or 0 outside of x
struct ConvWindow {
  int64_t height, width;  // of x
  int64_t top, left, row_step, column_step;
};

// Ways to fill vectors: `correlate` and `dweight` hold pixels in the lanes, the `_outputs` ones output channels, in
// blocks of two vectors, and with pooling `correlate_windows` holds windows. The sums and their order are the same.
enum class ConvLanes { pixels, outputs, windows };

template <class T>
struct ConvKernels {
  int64_t lanes;           // a source must be readable, and finite, up to this many elements behind its last one
  int64_t outputs;         // the most output channels of one call of `correlate`; 2 * lanes of `correlate_outputs`
  int64_t window_outputs;  // and of `correlate_windows`
  int64_t outputs_buffer;  // elements in the buffer of `correlate_outputs`

  // The plane is writable up to `lanes` elements behind its last one, which are changed.
  // With `y`, of x's shape, 0 where y <= 0 too: ReLU's gradient. The steps are then 1.
  void (*copy_window)(T* plane, int64_t rows, int64_t columns, const T* x, const T* y, const ConvWindow& window);

  // packed[taps, width]; packed[k, i] = weight[tap_offsets[k] + i * output_step], 0 from i = outputs on
  void (*pack_weight)(T* packed, const T* weight, const int64_t* tap_offsets, int64_t output_step, int64_t outputs,
                      int64_t width, int64_t taps);

  // Which way takes least. `split_windows` would write so many rows; split_rows is 0 where windows are no choice.
  ConvLanes (*choose_lanes)(const ConvPixels& pixels, int64_t outputs, int64_t taps, int64_t split_rows);

  // y[i, r, c] = bias[i] + sum over k of weight[k, i] * source[offsets[k] + r * source_row + c]
  // weight is packed; buffer [outputs, rows * (source_row + lanes) + lanes]
  void (*correlate)(T* y, const ConvPixels& pixels, const T* source, const int64_t* offsets, const T* weight,
                    const ConvEpilogue<T>& epilogue, int64_t outputs, int64_t taps, T* buffer);

  // The same where the sum of row r is over the taps row_taps[r, 0] .. row_taps[r, 1] - 1: the other products are 0.
  // weight is packed as wide as whole vectors; buffer [outputs_buffer]
  void (*correlate_outputs)(T* y, const ConvPixels& pixels, const T* source, const int64_t* offsets,
                            const int64_t* row_taps, const T* weight, const ConvEpilogue<T>& epilogue, int64_t outputs,
                            T* buffer);

  // The source of `correlate_windows`, from a plane of rows that are readable up to two vectors behind the last one:
  // halves[row % 2, shift, half]: row / 2 and window: plane[row, 2 * window + shift], for shift < shifts. A half has
  // room for a vector behind its rows.
  void (*split_windows)(T* halves, int64_t half, const T* plane, int64_t rows, int64_t row_length, int64_t windows,
                        int64_t shifts);

  // y [outputs, windows], with the distance between channels given: the maxima of
  // y[i, w, row, column] = bias[i] + sum over k of weight[k, i] * halves[offsets[k, row] + column * half + w]
  // Meanwhile the `next_size` elements at `next` are fetched into the L1 cache, some for each vector of windows.
  void (*correlate_windows)(T* y, int64_t channel_step, int64_t windows, const T* halves, int64_t half,
                            const int64_t* offsets, const T* weight, const ConvEpilogue<T>& epilogue, int64_t outputs,
                            int64_t taps, const T* next, int64_t next_size);

  // dweight[outputs, taps] += sum over images and p < pixels of dy[image, output, p] * source[image, offsets[tap] + p]
  // pixels is a multiple of lanes
  void (*dweight)(T* dweight, const T* dy, int64_t dy_plane, int64_t dy_image, const T* source, int64_t source_image,
                  const int64_t* offsets, int64_t outputs, int64_t taps, int64_t pixels, int64_t images);

  // The same for dweight[taps, outputs] from dy [images, rows, columns, dy_step], readable for two vectors more.
  void (*dweight_outputs)(T* dweight, const T* dy, int64_t dy_step, int64_t dy_image, const T* source,
                          int64_t source_image, const int64_t* offsets, const ConvPixels& pixels, int64_t outputs,
                          int64_t taps, int64_t images);

  // sums[count] += sums of the rows of x [count, size]
  void (*add_row_sums)(T* sums, const T* x, int64_t count, int64_t size);
};

}  // namespace pynn
