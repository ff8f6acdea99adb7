// The source of a convolution (see kernels/conv.h): how images are cut into bands, and how a band lies in scratch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/ceil_div.h"
#include "ops/conv_plan.h"
#include "runtime/dispatch.h"

namespace pynn::ops {

// Multiply-adds below which a second thread costs more than it gives.
constexpr int64_t kConvSerialWork = int64_t(1) << 19;
// Of a band's source, which should stay in the L2 cache.
constexpr int64_t kSourceBytes = int64_t(1) << 19;

// Images are worked on in bands of output rows, so that what a band reads stays in the cache.
struct Bands {
  int64_t rows, count;
};

// A band has a multiple of `unit` rows; so have `rows`.
inline Bands choose_bands(int64_t rows, int64_t unit, int64_t halo, int64_t bytes_per_row, int64_t least_count) {
  const int64_t fits = kSourceBytes / std::max<int64_t>(1, bytes_per_row) - halo;
  const int64_t least_rows = std::min(rows, std::max<int64_t>(4, 2 * halo));  // or most of a band is its halo
  const int64_t most_rows = std::max(least_rows, std::min(fits, ceil_div(rows, std::max<int64_t>(1, least_count))));
  const int64_t count = ceil_div(rows, most_rows);
  const int64_t even = round_up(ceil_div(rows, count), unit);
  return {even, ceil_div(rows, even)};
}

// The source of one band in scratch: planes [channel][row phase][column phase] of rows x columns.
struct Source {
  const AxisPlan *rows, *columns;
  int64_t channels, height, width;  // of the images read
  int64_t band_rows, row_length;

  int64_t plane() const { return band_rows * row_length; }
  int64_t channel() const { return plane() * rows->planes() * columns->planes(); }
  int64_t offset(int64_t channel_index, const AxisTap& row, const AxisTap& column) const {
    return channel_index * channel() + (row.plane * columns->planes() + column.plane) * plane() +
           row.shift * row_length + column.shift;
  }
};

inline Source make_source(const AxisPlan& rows, const AxisPlan& columns, int64_t channels, int64_t height,
                          int64_t width, const Bands& bands) {
  return {&rows, &columns, channels, height, width, bands.rows + rows.halo, columns.length()};
}

// Whether every tap of every output falls on the images, one after the other: they are a source as they are.
inline bool is_source(const AxisPlan& plan, int64_t size) {
  return plan.planes() == 1 && plan.first[0] == 0 && plan.step == 1 && plan.length() <= size;
}

inline Source source_in_place(const AxisPlan& rows, const AxisPlan& columns, int64_t channels, int64_t height,
                              int64_t width) {
  return {&rows, &columns, channels, height, width, height, width};
}

// Where `correlate_windows` reads a source: each of its planes split into halves, see kernels/conv.h.
struct WindowPlanes {
  int64_t columns;  // windows in a row
  int64_t shifts;
  int64_t half;

  WindowPlanes(const Source& source, int64_t window_columns, int64_t lanes)
      : columns(window_columns),
        shifts(source.columns->halo + 2),
        half(ceil_div(source.band_rows, 2) * window_columns + lanes) {}

  int64_t plane() const { return 2 * shifts * half; }
  int64_t row_offset(int64_t row) const { return row % 2 * shifts * half + row / 2 * columns; }
};

// Channels first .. first + count - 1 of x [channels, height, width], for the output rows from `row` on; 0 where
// `mask`, if not null, is 0 or less.
template <class T>
void fill_source(T* source, const Source& s, const T* x, const T* mask, int64_t first, int64_t count, int64_t row) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  for (int64_t c = first; c < first + count; ++c) {
    for (int64_t i = 0; i < s.rows->planes(); ++i) {
      for (int64_t j = 0; j < s.columns->planes(); ++j, source += s.plane()) {
        const ConvWindow window{s.height,
                                s.width,
                                s.rows->first[static_cast<size_t>(i)] + row * s.rows->step,
                                s.columns->first[static_cast<size_t>(j)],
                                s.rows->step,
                                s.columns->step};
        kernel.copy_window(source, s.band_rows, s.row_length, x + c * s.height * s.width,
                           mask != nullptr ? mask + c * s.height * s.width : nullptr, window);
      }
    }
  }
  std::fill(source, source + kernel.lanes, T(0));
}

}  // namespace pynn::ops
