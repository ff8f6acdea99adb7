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

// plane[r, c] = x[top + r * row_step, left + c * column_step], or 0 outside of x
struct ConvWindow {
  int64_t height, width;  // of x
  int64_t top, left, row_step, column_step;
};

template <class T>
struct ConvKernels {
  int64_t lanes;    // a source must be readable, and hold finite values, up to this many elements behind its last one
  int64_t outputs;  // the most output channels of one call of `correlate`

  void (*copy_window)(T* plane, int64_t rows, int64_t columns, const T* x, const ConvWindow& window);

  // packed[taps, outputs]; packed[k, i] = weight[tap_offsets[k] + i * output_step]
  void (*pack_weight)(T* packed, const T* weight, const int64_t* tap_offsets, int64_t output_step, int64_t outputs,
                      int64_t taps);

  // y[i, r, c] = bias[i] + sum over k of weight[k, i] * source[offsets[k] + r * source_row + c]
  // weight is packed, bias [outputs] or null, buffer [outputs, rows * source_row + lanes]
  void (*correlate)(T* y, const ConvPixels& pixels, const T* source, const int64_t* offsets, const T* weight,
                    const T* bias, int64_t outputs, int64_t taps, T* buffer);

  // dweight[outputs, taps] += sum over images and p < pixels of dy[image, output, p] * source[image, offsets[tap] + p]
  // pixels is a multiple of lanes
  void (*dweight)(T* dweight, const T* dy, int64_t dy_plane, int64_t dy_image, const T* source, int64_t source_image,
                  const int64_t* offsets, int64_t outputs, int64_t taps, int64_t pixels, int64_t images);

  // sums[count] += sums of the rows of x [count, size]
  void (*add_row_sums)(T* sums, const T* x, int64_t count, int64_t size);
};

}  // namespace pynn
