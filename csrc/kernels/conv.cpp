#include "kernels/conv.h"

#include <type_traits>

#include "kernels/conv_blocks.h"
#include "kernels/conv_windows.h"
#include "kernels/conv_write.h"
#include "kernels/table.h"

namespace pynn::PYNN_ISA {
namespace {

template <class T>
constexpr int vectors_of_outputs(int64_t outputs) {
  return most_vectors<T>(static_cast<int>(outputs));
}

// How many vectors the pixels of one output channel take: each row in vectors of its own, whose last one is filled in
// part, or all rows and the garbage between them as one run, of which the rows are then copied.
struct PixelVectors {
  int64_t in_row, in_rows, in_run;
  bool by_rows;

  PixelVectors(const ConvPixels& pixels, int64_t lanes, int64_t taps)
      : in_row((pixels.columns + lanes - 1) / lanes),
        in_rows(pixels.rows * in_row),
        in_run(((pixels.rows - 1) * pixels.source_row + pixels.columns + lanes - 1) / lanes),
        by_rows(pixels.column_step == 1 && in_rows * (taps + 1) <= in_run * (taps + 3)) {}

  int64_t count() const { return by_rows ? in_rows : in_run; }
};

// Rows without anything between them, in source and output, are one long row.
PYNN_INLINE ConvPixels join_rows(ConvPixels pixels) {
  if (pixels.source_row == pixels.columns && pixels.row_step == pixels.columns && pixels.column_step == 1) {
    pixels.columns *= pixels.rows;
    pixels.rows = 1;
  }
  return pixels;
}

// y in rows of their own, or in one run with the garbage between them. Rows with room behind them get whole vectors.
template <class T>
PYNN_INLINE void correlate_pixels(T* y, const ConvPixels& pixels, const PixelVectors& vectors, bool room_behind_rows,
                                  const T* source, const int64_t* offsets, const T* weight, const T* bias, bool relu,
                                  int64_t outputs, int64_t taps) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const int64_t blocks = (vectors.count() + vectors_of_outputs<T>(outputs) - 1) / vectors_of_outputs<T>(outputs);
  int64_t row = 0, column = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = vectors.count() * b / blocks, end = vectors.count() * (b + 1) / blocks;
    Pixels<T> group[most_vectors<T>(1)];
    for (int64_t v = begin; v < end; ++v) {
      if (!vectors.by_rows) {
        group[v - begin] = {source + v * lanes, y + v * lanes, static_cast<int>(lanes)};
        continue;
      }
      const int64_t left = pixels.columns - column;
      group[v - begin] = {source + row * pixels.source_row + column, y + row * pixels.row_step + column,
                          static_cast<int>(left < lanes && !room_behind_rows ? left : lanes)};
      column += lanes;
      if (column >= pixels.columns) {
        column = 0;
        ++row;
      }
    }
    micro_kernels<T>.of[outputs - 1][end - begin - 1](group, pixels.channel_step, offsets, weight, bias, relu, taps);
  }
}

// Some rows at a time, through a part of the buffer that stays in the L1 cache.
template <class T>
void correlate_pool(T* y, uint8_t* indices, const ConvPixels& pixels, const T* source, const int64_t* offsets,
                    const T* weight, const T* bias, bool relu, int64_t outputs, int64_t taps, T* buffer) {
  constexpr int64_t lanes = Vec<T>::lanes, most = 16384 / sizeof(T);
  const int64_t row_pairs = most / (outputs * 2 * (pixels.source_row + lanes));
  const int64_t most_rows = row_pairs > 1 ? 2 * row_pairs : 2;
  for (int64_t row = 0; row < pixels.rows; row += most_rows) {
    ConvPixels part = pixels;
    part.rows = pixels.rows - row < most_rows ? pixels.rows - row : most_rows;
    const PixelVectors vectors(part, lanes, taps);
    part.row_step = vectors.by_rows ? vectors.in_row * lanes : part.source_row;
    part.channel_step = vectors.by_rows ? part.rows * part.row_step : vectors.in_run * lanes;
    correlate_pixels(buffer, part, vectors, true, source + row * pixels.source_row, offsets, weight, bias, relu,
                     outputs, taps);
    const int64_t first = row / 2 * pixels.row_step, room = (pixels.rows - row) / 2 * pixels.row_step;
    const ConvPixels windows{part.rows, pixels.columns, 0, 0, pixels.row_step, 1};
    for (int64_t i = 0; i < outputs; ++i) {
      const int64_t to = i * pixels.channel_step + first;
      pool_rows(y + to, indices == nullptr ? nullptr : indices + to, windows, room, buffer + i * part.channel_step,
                part.row_step);
    }
  }
}

template <class T>
void correlate(T* y, const ConvPixels& all_pixels, const T* source, const int64_t* offsets, const T* weight,
               const ConvEpilogue<T>& epilogue, int64_t outputs, int64_t taps, T* buffer) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const T* bias = epilogue.bias;
  const bool relu = epilogue.relu;
  if (epilogue.pool) {
    correlate_pool(y, epilogue.indices, all_pixels, source, offsets, weight, bias, relu, outputs, taps, buffer);
    return;
  }
  const ConvPixels pixels = join_rows(all_pixels);
  const PixelVectors vectors(pixels, lanes, taps);
  if (vectors.by_rows) {
    correlate_pixels(y, pixels, vectors, false, source, offsets, weight, bias, relu, outputs, taps);
    return;
  }
  ConvPixels run = pixels;
  run.channel_step = vectors.in_run * lanes;
  correlate_pixels(buffer, run, vectors, true, source, offsets, weight, bias, relu, outputs, taps);
  for (int64_t i = 0; i < outputs; ++i) copy_rows(y + i * pixels.channel_step, pixels, buffer + i * run.channel_step);
}

template <class T>
void correlate_outputs(T* y, const ConvPixels& all_pixels, const T* source, const int64_t* offsets,
                       const int64_t* row_taps, const T* weight, const ConvEpilogue<T>& epilogue, int64_t outputs,
                       T* buffer) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const bool pool = epilogue.pool;
  bool same_taps = !pool;
  for (int64_t r = 1; r < all_pixels.rows; ++r) {
    same_taps = same_taps && row_taps[2 * r] == row_taps[0] && row_taps[2 * r + 1] == row_taps[1];
  }
  const ConvPixels pixels = same_taps ? join_rows(all_pixels) : all_pixels;
  const int vectors = outputs > lanes ? 2 : 1;
  const int tail = static_cast<int>(outputs - (vectors - 1) * lanes);
  const int64_t width = vectors * lanes, least_rows = pool ? 2 : 1, run_columns = kRun / least_rows;
  const int64_t y_columns = pixels.columns / least_rows;
  const bool rows_are_neighbours = pixels.row_step == y_columns && pixels.column_step == 1;
  const bool whole_rows = pixels.columns <= run_columns;
  // Rows that are written one by one gain by the second vector alone.
  const bool short_rows = vectors == 2 && pixels.columns <= most_pixels_of_two_rows<T>;
  const int64_t run_rows = whole_rows && (rows_are_neighbours || short_rows)
                               ? kRun / (pixels.columns * least_rows) * least_rows
                               : least_rows;
  T* maxima = buffer + (kRun + lanes) * width;
  T* taps_of_maxima = epilogue.indices != nullptr ? maxima + (kRun / 4 + lanes) * width : nullptr;
  for (int64_t row = 0; row < pixels.rows; row += run_rows) {
    const int64_t rows = pixels.rows - row < run_rows ? pixels.rows - row : run_rows;
    for (int64_t first = 0; first < pixels.columns; first += run_columns) {
      const int64_t columns = pixels.columns - first < run_columns ? pixels.columns - first : run_columns;
      const int64_t blocks = (columns + most_pixels<T> - 1) / most_pixels<T>;
      for (int64_t r = 0, count = 1; r < rows; r += count) {
        const int64_t* of_row = row_taps + 2 * (row + r);
        const int64_t k = of_row[0], taps = of_row[1] - k;
        const bool two = outputs_in_two_rows<T> && (vectors == 1 || columns <= most_pixels_of_two_rows<T>) &&
                         r + 1 < rows && of_row[2] == k && of_row[3] == of_row[1];
        count = two ? 2 : 1;
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t begin = columns * b / blocks, end = columns * (b + 1) / blocks;
          const auto& kernels = outputs_micro_kernels<T>;
          (two ? kernels.two_rows : kernels.of)[end - begin - 1][vectors - 1](
              buffer + (r * columns + begin) * width, columns * width,
              source + (row + r) * pixels.source_row + first + begin, pixels.source_row, offsets + k,
              weight + k * width, epilogue.bias, tail, epilogue.relu, taps);
        }
      }
      const int64_t at = row / least_rows * pixels.row_step + first / least_rows * pixels.column_step;
      if (pool) {
        const int64_t windows = rows / 2 * (columns / 2);
        pool_outputs(maxima, taps_of_maxima, buffer, width, rows, columns);
        write_outputs(y + at, pixels.channel_step, 1, maxima, width, outputs, windows);
        if (epilogue.indices == nullptr) continue;
        write_indices(epilogue.indices + at, pixels.channel_step, pixels.rows / 2 * pixels.row_step - at,
                      taps_of_maxima, width, outputs, windows);
        continue;
      }
      const int64_t runs = rows_are_neighbours && whole_rows ? 1 : rows, of_run = rows * columns / runs;
      for (int64_t r = 0; r < runs; ++r) {
        write_outputs(y + at + r * pixels.row_step, pixels.channel_step, pixels.column_step,
                      buffer + r * of_run * width, width, outputs, of_run);
      }
    }
  }
}

// In multiply-adds of a vector; what it costs to pool, to write the outputs and to split was measured.
template <class T>
ConvLanes choose_lanes(const ConvPixels& all_pixels, int64_t outputs, int64_t taps, int64_t split_rows) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const auto vectors_of = [](int64_t n) { return (n + lanes - 1) / lanes; };
  const bool pool = split_rows > 0;
  const ConvPixels pixels = join_rows(all_pixels);
  const PixelVectors vectors(pixels, lanes, taps);
  const int64_t with_outputs = vectors_of(outputs) * pixels.rows * pixels.columns * (taps + 8);
  const int64_t with_pixels = vectors.count() * outputs * (taps + (vectors.by_rows ? 1 : 3) + (pool ? 7 : 0));
  if (pool) {
    const int64_t with_windows = vectors_of(all_pixels.rows * all_pixels.columns / 4) * 4 * outputs * (taps + 4) +
                                 split_rows * vectors_of(all_pixels.columns / 2) * 6;
    if (with_windows < with_outputs && with_windows < with_pixels) return ConvLanes::windows;
  }
  return with_outputs < with_pixels ? ConvLanes::outputs : ConvLanes::pixels;
}

// Whole vectors of zeros, so up to a vector more than n.
template <class T>
PYNN_INLINE void clear(T* p, int64_t n) {
  if (n <= 0) return;
  Vec<T>::zero().store(p);  // most often all; of the loop alone the compiler makes a call of memset
  for (int64_t i = Vec<T>::lanes; i < n; i += Vec<T>::lanes) Vec<T>::zero().store(p + i);
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

// n elements, read by load(i, n) whole vectors at a time, the last of them with zeros behind its elements.
template <class T, class Load>
PYNN_INLINE void copy_row(T* to, int64_t n, Load load_from) {
  constexpr int64_t lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) load_from(i, AllLanes{}).store(to + i);
  if (i < n) load_from(i, static_cast<int>(n - i)).store(to + i);
}

// N vectors for each row, loaded with the zeros around them by a mask that is the same for all rows: the columns of a
// plane are few, and a case for each of their ends takes longer than they do.
template <int N, int step, bool masked, class T>
void copy_rows_by_masks(T* plane, const Inside& row, int64_t columns, const T* x, const T* y,
                        const ConvWindow& window) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const int64_t end = window.width - window.left < columns * step ? window.width - window.left : columns * step;
  Mask<T> inside[N * step];
#pragma GCC unroll 6
  for (int v = 0; v < N * step; ++v) inside[v] = {Vec<T>::between(-window.left - v * lanes, end - v * lanes)};
  const int64_t row_distance = window.row_step * window.width;
  int64_t at = (window.top + row.begin * window.row_step) * window.width + window.left;
  T* to = plane + row.begin * columns;
  for (int64_t r = row.begin; r < row.end; ++r, to += columns, at += row_distance) {
#pragma GCC unroll 3
    for (int v = 0; v < N; ++v) {
      Vec<T> of_x = load(x + at + v * step * lanes, inside[v * step]);
      if constexpr (step == 2) of_x = even(of_x, load(x + at + (2 * v + 1) * lanes, inside[2 * v + 1]));
      if constexpr (masked) {
        const Vec<T> kept = load(y + at + v * lanes, inside[v]);
        of_x = select(kept <= Vec<T>::zero(), Vec<T>::zero(), of_x);
      }
      of_x.store(to + v * lanes);
    }
  }
}

// Whether the rows of a window were copied that way.
template <class T>
bool copy_few_columns(T* plane, const Inside& row, int64_t columns, const T* x, const T* y, const ConvWindow& window) {
  if constexpr (loads_by_mask && sizeof(T) == 4) {
    constexpr int64_t lanes = Vec<T>::lanes;
    const int64_t step = window.column_step;
    if (columns > 3 * lanes || step > 2 || (y != nullptr && step > 1)) return false;
    const auto copy = [&](auto vectors) {
      constexpr int n = decltype(vectors)::value;
      (y != nullptr ? copy_rows_by_masks<n, 1, true, T>
       : step == 1  ? copy_rows_by_masks<n, 1, false, T>
                    : copy_rows_by_masks<n, 2, false, T>)(plane, row, columns, x, y, window);
    };
    if (columns <= lanes) {
      copy(std::integral_constant<int, 1>());
    } else if (columns <= 2 * lanes) {
      copy(std::integral_constant<int, 2>());
    } else {
      copy(std::integral_constant<int, 3>());
    }
    return true;
  }
  return false;
}

// Rows are written one after the other, in whole vectors: what is behind a row's elements is zeros, or overwritten.
template <class T>
void copy_window(T* plane, int64_t rows, int64_t columns, const T* x, const T* y, const ConvWindow& window) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const Inside row(window.top, window.row_step, window.height, rows);
  const Inside column(window.left, window.column_step, window.width, columns);
  const int64_t n = column.end - column.begin, zeros = (n + lanes - 1) / lanes * lanes;
  const int64_t first = window.left + column.begin * window.column_step;
  // There may be nothing beside the last element.
  const int64_t pairs = n == 0 || first + 2 * n <= window.width ? n : n - 1;
  clear(plane, row.begin * columns + (row.begin < row.end ? column.begin : 0));
  if (copy_few_columns(plane, row, columns, x, y, window)) {
    clear(plane + row.end * columns, (rows - row.end) * columns);
    return;
  }
  for (int64_t r = row.begin; r < row.end; ++r) {
    const int64_t start = (window.top + r * window.row_step) * window.width + first;
    const T* from = x + start;
    T* to = plane + r * columns + column.begin;
    if (y != nullptr) {
      copy_row(to, n, [&](int64_t i, auto count) {
        const Vec<T> kept = load(y + start + i, count);
        return select(kept <= Vec<T>::zero(), Vec<T>::zero(), load(from + i, count));
      });
    } else if (window.column_step == 1) {
      copy_row(to, n, [&](int64_t i, auto count) { return load(from + i, count); });
    } else if (window.column_step == 2) {
      copy_row(to, pairs, [&](int64_t i, auto count) { return Pairs<T>(from + 2 * i, count).left; });
      if (pairs < n) to[n - 1] = from[2 * (n - 1)];
    } else {
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * window.column_step];
    }
    const int64_t copied = window.column_step == 1 ? zeros : n;
    // Up to the next row's first element.
    clear(to + copied, (r + 1 < row.end ? columns : columns - column.begin) - copied);
  }
  clear(plane + row.end * columns, (rows - row.end) * columns);
}

template <class T>
void pack_weight(T* packed, const T* weight, const int64_t* tap_offsets, int64_t output_step, int64_t outputs,
                 int64_t width, int64_t taps) {
  for (int64_t k = 0; k < taps; ++k, packed += width) {
    for (int64_t i = 0; i < outputs; ++i) packed[i] = weight[tap_offsets[k] + i * output_step];
    for (int64_t i = outputs; i < width; ++i) packed[i] = T(0);
  }
}

// -- gradient of the weights ------------------------------------------------------------------------------------------

template <class T>
void dweight(T* dweight, const T* dy, int64_t dy_plane, int64_t dy_image, const T* source, int64_t source_image,
             const int64_t* offsets, int64_t outputs, int64_t taps, int64_t pixels, int64_t images) {
  const int64_t output_blocks = (outputs + dweight_most_outputs<T> - 1) / dweight_most_outputs<T>;
  for (int64_t b = 0; b < output_blocks; ++b) {
    const int64_t o = outputs * b / output_blocks, os = outputs * (b + 1) / output_blocks - o;
    const int64_t most_taps = dweight_most_taps<T>(static_cast<int>(os));
    const int64_t tap_blocks = (taps + most_taps - 1) / most_taps;
    for (int64_t t = 0; t < tap_blocks; ++t) {
      const int64_t k = taps * t / tap_blocks, ks = taps * (t + 1) / tap_blocks - k;
      dweight_micro_kernels<T>.of[os - 1][ks - 1](dweight + o * taps + k, taps, dy + o * dy_plane, dy_plane, dy_image,
                                                  source, source_image, offsets + k, pixels, images);
    }
  }
}

template <class T>
void dweight_outputs(T* dweight, const T* dy, int64_t dy_step, int64_t dy_image, const T* source, int64_t source_image,
                     const int64_t* offsets, const ConvPixels& all_pixels, int64_t outputs, int64_t taps,
                     int64_t images) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const ConvPixels pixels = join_rows(all_pixels);
  const int64_t blocks = (taps + most_pixels<T> - 1) / most_pixels<T>;
  for (int64_t o = 0; o < outputs; o += 2 * lanes) {
    const int64_t left = outputs - o;
    const int vectors = left > lanes ? 2 : 1;
    const int tail = static_cast<int>(left >= vectors * lanes ? lanes : left - (vectors - 1) * lanes);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = taps * b / blocks, end = taps * (b + 1) / blocks;
      outputs_dweight_micro_kernels<T>.of[end - begin - 1][vectors - 1](
          {dweight + begin * outputs + o, dy + o, source, offsets + begin, outputs, dy_step, dy_image, source_image,
           pixels.source_row, pixels.rows, pixels.columns, images},
          tail);
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
  return {Vec<T>::lanes,        most_outputs<T>,  most_window_outputs<T>, outputs_buffer(Vec<T>::lanes),
          copy_window<T>,       pack_weight<T>,   choose_lanes<T>,        correlate<T>,
          correlate_outputs<T>, split_windows<T>, correlate_windows<T>,   dweight<T>,
          dweight_outputs<T>,   add_row_sums<T>};
}

}  // namespace

void register_conv(KernelSet& set) {
  set.f32.conv = table<float>();
  set.f64.conv = table<double>();
}

}  // namespace pynn::PYNN_ISA
