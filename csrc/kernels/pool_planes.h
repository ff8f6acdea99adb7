// Pooling with windows of any size. A plane is first laid out anew, so that a tap of a whole row of windows is one
// plain load: its sides are padded, and the columns of a row are sorted by their remainder modulo the column stride
// (phases). The gradient is gathered: each element of dx looks up the windows that see it, so that nothing is written
// twice.
#pragma once

#include "kernels/max_pool_2x2.h"
#include "kernels/pool.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// The taps begin..end-1 of window `out` that fall on the input; tap t lies at start + t * dilation.
struct Taps {
  int64_t start, begin, end;

  PYNN_INLINE Taps(const PoolAxis& axis, int64_t out) {
    const auto ceil_div = [&](int64_t a) { return axis.dilation == 1 ? a : (a + axis.dilation - 1) / axis.dilation; };
    start = out * axis.stride - axis.padding;
    begin = start < 0 ? ceil_div(-start) : 0;
    end = start < axis.size ? ceil_div(axis.size - start) : 0;
    if (end > axis.kernel) end = axis.kernel;
  }
};

// How many elements a window averages: its part inside the input, or inside the padded input.
PYNN_INLINE int64_t averaged(const PoolAxis& axis, const Taps& taps, bool count_include_pad) {
  if (!count_include_pad) return taps.end - taps.begin;
  const int64_t inside = axis.size + axis.padding - taps.start;
  return inside < axis.kernel ? inside : axis.kernel;
}

constexpr int kMostTaps = 256, kMostStride = 4;  // along an axis, as ops chooses

PYNN_INLINE int64_t ceil_div(int64_t a, int64_t b) { return b == 1 ? a : (a + b - 1) / b; }

// Columns of a phase that hold elements of the input: column q of phase f is element q * stride + f - padding.
struct PhaseRange {
  int64_t begin, end;

  PYNN_INLINE PhaseRange(const PoolAxis& axis, int64_t f) {
    begin = axis.padding > f ? ceil_div(axis.padding - f, axis.stride) : 0;
    end = axis.size + axis.padding > f ? ceil_div(axis.size + axis.padding - f, axis.stride) : 0;
  }
};

template <class T>
PYNN_INLINE void fill(T* p, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// The elements of a plane [rows, phases, width]; its padding stays as it is.
template <class T>
PYNN_INLINE void lay_out(T* plane, const T* x, const PoolShape& shape, int64_t width) {
  const PoolAxis& columns = shape.columns;
  for (int64_t f = 0; f < columns.stride; ++f) {
    const PhaseRange range(columns, f);
    const int64_t first = range.begin * columns.stride + f - columns.padding, count = range.end - range.begin;
    const T* from = x + first;
    T* to = plane + f * width + range.begin;
    for (int64_t row = 0; row < shape.rows.size; ++row, from += columns.size, to += columns.stride * width) {
      if (columns.stride == 1) {
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
      } else if (columns.stride == 2) {
        for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
      } else {
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * columns.stride];
      }
    }
  }
}

// Where the taps of a row of windows begin in a row of a plane.
struct TapOffsets {
  int64_t at[kMostTaps];

  PYNN_INLINE TapOffsets(const PoolAxis& columns, int64_t width) {
    for (int64_t j = 0; j < columns.kernel; ++j) {
      const int64_t column = j * columns.dilation;
      at[j] = column % columns.stride * width + column / columns.stride;
    }
  }
};

// Calls body(out, column, lanes, rows of taps, address of the first tap row) for each group of windows.
template <class T, class Body>
PYNN_INLINE void for_window_rows(const PoolShape& shape, const T* plane, int64_t pitch, Body body) {
  for (int64_t row = 0; row < shape.rows.out; ++row) {
    const Taps taps(shape.rows, row);
    const T* first = plane + (taps.start + taps.begin * shape.rows.dilation) * pitch;
    for_lanes<T>(shape.columns.out, [&](int64_t column, auto lanes) {
      body(row * shape.columns.out + column, column, lanes, taps, first + column);
    });
  }
}

template <class T>
void max_pool2d_planes(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes, T* scratch) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t width = pool_width(columns), pitch = columns.stride * width, step = rows.dilation * pitch;
  const TapOffsets offsets(columns, width);
  T *inside = scratch, *first_tap = inside + width, *plane = first_tap + width;
  fill(inside, 2 * width, T(0));
  for (int64_t column = 0; column < columns.out; ++column) {
    const Taps taps(columns, column);
    inside[column] = T(taps.begin < taps.end);
    first_tap[column] = taps.begin < taps.end ? T(taps.begin) : T(0);
  }
  fill(plane, rows.size * pitch, -T(__builtin_inf()));
  const int64_t plane_out = rows.out * columns.out;
  int64_t room = planes * plane_out;
  for (; planes > 0; --planes, x += rows.size * columns.size, y += plane_out, indices += plane_out, room -= plane_out) {
    lay_out(plane, x, shape, width);
    for_window_rows(shape, plane, pitch, [&](int64_t out, int64_t column, auto lanes, const Taps& taps, const T* row) {
      Vec<T> best(-T(__builtin_inf())), index = Vec<T>::zero(), tap(static_cast<T>(taps.begin * columns.kernel));
      const Vec<T> one(T(1));
      // Where nothing beats -inf, the first tap inside the input.
      if (taps.begin < taps.end) index = fma(Vec<T>::load(inside + column), tap, Vec<T>::load(first_tap + column));
      for (int64_t i = taps.begin; i < taps.end; ++i, row += step) {
        for (int64_t j = 0; j < columns.kernel; ++j, tap = tap + one) {
          const Vec<T> value = Vec<T>::load(row + offsets.at[j]);
          const Mask<T> better = (!(value <= best)) & (best == best);
          best = select(better, value, best);
          index = select(better, tap, index);
        }
      }
      store(y + out, best, lanes);
      store_indices(indices + out, index, count<T>(lanes), room - out);
    });
  }
}

template <class T>
void avg_pool2d_planes(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes, T* scratch) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t width = pool_width(columns), pitch = columns.stride * width, step = rows.dilation * pitch;
  const TapOffsets offsets(columns, width);
  T *counts = scratch, *plane = counts + width;
  fill(counts, width, T(1));
  for (int64_t column = 0; column < columns.out; ++column) {
    counts[column] = static_cast<T>(averaged(columns, Taps(columns, column), count_include_pad));
  }
  fill(plane, rows.size * pitch, T(0));
  for (; planes > 0; --planes, x += rows.size * columns.size, y += rows.out * columns.out) {
    lay_out(plane, x, shape, width);
    for_window_rows(shape, plane, pitch, [&](int64_t out, int64_t column, auto lanes, const Taps& taps, const T* row) {
      Vec<T> sum = Vec<T>::zero();
      for (int64_t i = taps.begin; i < taps.end; ++i, row += step) {
        for (int64_t j = 0; j < columns.kernel; ++j) sum = sum + Vec<T>::load(row + offsets.at[j]);
      }
      const Vec<T> row_count(static_cast<T>(averaged(rows, taps, count_include_pad)));
      store(y + out, sum / (Vec<T>::load(counts + column) * row_count), lanes);
    });
  }
}

// The taps along the columns by the phase of what they see: the tap `back` windows to the left of an element sees it.
struct PhaseTaps {
  int64_t begin[kMostStride + 1], back[kMostTaps];

  PYNN_INLINE PhaseTaps(const PoolAxis& columns) {
    int64_t count = 0;
    for (int64_t f = 0; f < columns.stride; ++f) {
      begin[f] = count;
      for (int64_t j = 0; j < columns.kernel; ++j) {
        const int64_t column = j * columns.dilation;
        if (column % columns.stride == f) back[count++] = column / columns.stride;
      }
    }
    begin[columns.stride] = count;
  }
};

// dx[h][w] = the sum of share over the windows that see the element; share [rows.out, width], from column `lead` on.
template <class T>
PYNN_INLINE void gather(T* dx, const T* share, const PoolShape& shape, const PhaseTaps& taps, int64_t width,
                        int64_t lead) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  constexpr int64_t lanes = Vec<T>::lanes;
  const auto row_stride = static_cast<uint32_t>(rows.stride);
  for (int64_t h = 0; h < rows.size; ++h, dx += columns.size) {
    const T* seen[kMostTaps];  // rows of windows that see this row
    int count = 0;
    for (int64_t i = 0; i < rows.kernel && i * rows.dilation <= h + rows.padding; ++i) {
      const auto start = static_cast<uint32_t>(h + rows.padding - i * rows.dilation);
      const uint32_t row = row_stride == 1 ? start : start / row_stride;
      if (row * row_stride == start && row < rows.out) seen[count++] = share + row * width + lead;
    }
    for (int64_t f = 0; f < columns.stride; ++f) {
      const PhaseRange range(columns, f);
      T* phase = dx + f - columns.padding;
      for (int64_t q = range.begin; q < range.end; q += lanes) {
        Vec<T> sum = Vec<T>::zero();
        for (int64_t j = taps.begin[f]; j < taps.begin[f + 1]; ++j) {
          for (int r = 0; r < count; ++r) sum = sum + Vec<T>::load(seen[r] + q - taps.back[j]);
        }
        const int n = static_cast<int>(range.end - q < lanes ? range.end - q : lanes);
        if (columns.stride > 1) {
          T lane[lanes];
          sum.store(lane);
          for (int k = 0; k < n; ++k) phase[(q + k) * columns.stride] = lane[k];
        } else if (n == lanes) {
          sum.store(phase + q);
        } else {
          sum.store(phase + q, n);
        }
      }
    }
  }
}

template <class T>
void avg_pool2d_planes_backward(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes,
                                T* scratch) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  const int64_t width = pool_width(columns), lead = (columns.kernel - 1) * columns.dilation / columns.stride;
  const PhaseTaps phase_taps(columns);
  T *counts = scratch, *share = counts + width;
  for (int64_t c = 0; c < columns.out; ++c) {
    counts[c] = static_cast<T>(averaged(columns, Taps(columns, c), count_include_pad));
  }
  fill(share, rows.out * width, T(0));
  for (; planes > 0; --planes, dx += rows.size * columns.size) {
    for (int64_t row = 0; row < rows.out; ++row, dy += columns.out) {
      const T row_count = static_cast<T>(averaged(rows, Taps(rows, row), count_include_pad));
      T* to = share + row * width + lead;
      for (int64_t c = 0; c < columns.out; ++c) to[c] = dy[c] / (counts[c] * row_count);
    }
    gather(dx, share, shape, phase_taps, width, lead);
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
