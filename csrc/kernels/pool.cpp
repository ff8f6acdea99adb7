#include "kernels/pool.h"

#include "kernels/max_pool_2x2.h"
#include "kernels/pool_planes.h"
#include "kernels/table.h"
#include "simd/pairs.h"

namespace pynn::PYNN_ISA {
namespace {

template <class Body>
PYNN_INLINE void for_windows(const PoolShape& shape, int64_t planes, Body body) {
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t row = 0; row < shape.rows.out; ++row) {
      const Taps rows(shape.rows, row);
      for (int64_t column = 0; column < shape.columns.out; ++column) {
        body(plane * shape.rows.size * shape.columns.size, (plane * shape.rows.out + row) * shape.columns.out + column,
             rows, Taps(shape.columns, column));
      }
    }
  }
}

// The first of ties wins, and the first NaN over all: PyTorch's rule. -inf and 0 where a window sees padding alone.
template <class T, class Index>
void max_pool2d(T* y, Index* indices, const T* x, const PoolShape& shape, int64_t planes) {
  for_windows(shape, planes, [&](int64_t plane, int64_t out, const Taps& rows, const Taps& columns) {
    T best = -T(__builtin_inf());
    int64_t index = rows.begin * shape.columns.kernel + columns.begin;
    if (rows.begin >= rows.end || columns.begin >= columns.end) index = 0;
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const T* row = x + plane + (rows.start + i * shape.rows.dilation) * shape.columns.size + columns.start;
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        const T value = row[j * shape.columns.dilation];
        const bool better = (!(value <= best)) & (best == best);
        best = better ? value : best;
        index = better ? i * shape.columns.kernel + j : index;
      }
    }
    y[out] = best;
    indices[out] = static_cast<Index>(index);
  });
}

// Where the taps of a window lie, as offsets from its first one.
struct TapTable {
  int64_t row[256], column[256], offset[256];

  PYNN_INLINE TapTable(const PoolShape& shape) {
    int tap = 0;
    for (int64_t i = 0; i < shape.rows.kernel; ++i) {
      for (int64_t j = 0; j < shape.columns.kernel; ++j, ++tap) {
        row[tap] = i * shape.rows.dilation;
        column[tap] = j * shape.columns.dilation;
        offset[tap] = row[tap] * shape.columns.size + column[tap];
      }
    }
  }
};

// Windows begin..end-1 of an axis lie inside the input with all their taps.
struct Inside {
  int64_t begin, end;

  PYNN_INLINE Inside(const PoolAxis& axis) {
    const int64_t room = axis.size + axis.padding - 1 - (axis.kernel - 1) * axis.dilation;
    begin = (axis.padding + axis.stride - 1) / axis.stride;
    end = room < 0 ? 0 : room / axis.stride + 1;
    if (begin > axis.out) begin = axis.out;
    if (end > axis.out) end = axis.out;
    if (end < begin) end = begin;
  }
};

constexpr int64_t kSmallPlane = 1024;  // elements, which the L1 cache holds beside what is read

// Of an axis with its padding, and as far as the last window reaches.
PYNN_INLINE int64_t padded_size(const PoolAxis& axis) {
  const int64_t reach = (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
  const int64_t held = axis.padding + axis.size;
  return reach > held ? reach : held;
}

// In a padded plane no window is at the border.
template <class T>
void scatter_small(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes, int64_t height,
                   int64_t width) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  int64_t offset[256];
  for (int64_t tap = 0; tap < rows.kernel * columns.kernel; ++tap) {
    offset[tap] = tap / columns.kernel * rows.dilation * width + tap % columns.kernel * columns.dilation;
  }
  T padded[kSmallPlane];
  for (int64_t plane = 0; plane < planes; ++plane) {
    std::memset(padded, 0, static_cast<size_t>(height * width) * sizeof(T));
    for (int64_t row = 0; row < rows.out; ++row) {
      T* window = padded + row * rows.stride * width;
      for (int64_t column = 0; column < columns.out; ++column, window += columns.stride) {
        window[offset[*indices++]] += *dy++;
      }
    }
    const T* from = padded + rows.padding * width + columns.padding;
    for (int64_t row = 0; row < rows.size; ++row, from += width) {
      for (int64_t column = 0; column < columns.size; ++column) *dx++ = from[column];
    }
  }
}

template <class T>
bool max_pool2d_backward(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  const TapTable table(shape);
  const Inside inside_rows(rows), inside_columns(columns);
  const int64_t taps = rows.kernel * columns.kernel, size = rows.size * columns.size;
  uint8_t largest = 0;
  for (int64_t i = 0; i < planes * rows.out * columns.out; ++i) largest = indices[i] > largest ? indices[i] : largest;
  if (largest >= taps) return false;
  const int64_t height = padded_size(rows), width = padded_size(columns);
  const bool overlap = rows.stride == 1 && columns.stride == 1;  // or copying the plane costs more than it gives
  if (overlap && height <= kSmallPlane && width <= kSmallPlane && height * width <= kSmallPlane) {
    scatter_small(dx, dy, indices, shape, planes, height, width);
    return true;
  }
  for (int64_t plane = 0; plane < planes; ++plane, dx += size) {
    std::memset(dx, 0, static_cast<size_t>(size) * sizeof(T));
    for (int64_t row = 0; row < rows.out; ++row, dy += columns.out, indices += columns.out) {
      const int64_t top = row * rows.stride - rows.padding;
      const auto at_the_border = [&](int64_t begin, int64_t end) {
        for (int64_t column = begin; column < end; ++column) {
          const uint8_t index = indices[column];
          const int64_t left = column * columns.stride - columns.padding;
          // Compared as unsigned numbers, of which negative ones are large: one comparison for both ends.
          if (static_cast<uint64_t>(top + table.row[index]) < static_cast<uint64_t>(rows.size) &&
              static_cast<uint64_t>(left + table.column[index]) < static_cast<uint64_t>(columns.size)) {
            dx[top * columns.size + left + table.offset[index]] += dy[column];
          }
        }
      };
      if (row < inside_rows.begin || row >= inside_rows.end) {
        at_the_border(0, columns.out);
        continue;
      }
      at_the_border(0, inside_columns.begin);
      T* window = dx + top * columns.size + inside_columns.begin * columns.stride - columns.padding;
      for (int64_t column = inside_columns.begin; column < inside_columns.end; ++column, window += columns.stride) {
        window[table.offset[indices[column]]] += dy[column];
      }
      at_the_border(inside_columns.end, columns.out);
    }
  }
  return true;
}

template <class T>
bool max_pool2d_large_backward(T* dx, const T* dy, const int32_t* indices, const PoolShape& shape, int64_t planes) {
  const PoolAxis &rows = shape.rows, &columns = shape.columns;
  const uint32_t row_taps = static_cast<uint32_t>(columns.kernel);
  const uint32_t taps = static_cast<uint32_t>(rows.kernel) * row_taps;
  std::memset(dx, 0, static_cast<size_t>(planes * rows.size * columns.size) * sizeof(T));
  for (int64_t plane = 0; plane < planes; ++plane, dx += rows.size * columns.size) {
    for (int64_t row = 0; row < rows.out; ++row) {
      for (int64_t column = 0; column < columns.out; ++column, ++dy, ++indices) {
        const uint32_t index = static_cast<uint32_t>(*indices);  // a negative one becomes a large one
        if (index >= taps) return false;
        const int64_t h = row * rows.stride - rows.padding + index / row_taps * rows.dilation;
        const int64_t w = column * columns.stride - columns.padding + index % row_taps * columns.dilation;
        if (h < 0 || h >= rows.size || w < 0 || w >= columns.size) continue;  // of a window of padding
        dx[h * columns.size + w] += *dy;
      }
    }
  }
  return true;
}

template <class T>
void avg_pool2d(T* y, const T* x, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  for_windows(shape, planes, [&](int64_t plane, int64_t out, const Taps& rows, const Taps& columns) {
    T sum = T(0);
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      const T* row = x + plane + (rows.start + i) * shape.columns.size + columns.start;
      for (int64_t j = columns.begin; j < columns.end; ++j) sum += row[j];
    }
    y[out] = sum / static_cast<T>(averaged(shape.rows, rows, count_include_pad) *
                                  averaged(shape.columns, columns, count_include_pad));
  });
}

template <class T>
void avg_pool2d_backward(T* dx, const T* dy, const PoolShape& shape, bool count_include_pad, int64_t planes) {
  std::memset(dx, 0, static_cast<size_t>(planes * shape.rows.size * shape.columns.size) * sizeof(T));
  for_windows(shape, planes, [&](int64_t plane, int64_t out, const Taps& rows, const Taps& columns) {
    const T share = dy[out] / static_cast<T>(averaged(shape.rows, rows, count_include_pad) *
                                             averaged(shape.columns, columns, count_include_pad));
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      T* row = dx + plane + (rows.start + i) * shape.columns.size + columns.start;
      for (int64_t j = columns.begin; j < columns.end; ++j) row[j] += share;
    }
  });
}

// -- 2 x 2: neighbours in memory are taken apart into even and odd ones, and put together again ----------------------

template <class T>
PYNN_INLINE Vec<T> load_indices(const uint8_t* p, int n, int64_t room) {
  constexpr int lanes = Vec<T>::lanes;
  uint8_t bytes[lanes] = {};
  if (room >= lanes) {
    std::memcpy(bytes, p, lanes);
  } else {
    for (int i = 0; i < n; ++i) bytes[i] = p[i];
  }
  const auto index = (typename Integers<T>::Lanes)widen(bytes, Vec<T>());
  return __builtin_convertvector(index, decltype(Vec<T>::v));
}

// body(in, out, lanes): element offsets of the upper left corner of a group of windows, and of their outputs.
template <class T, class Body>
PYNN_INLINE void for_2x2_windows(const PoolShape& shape, int64_t planes, Body body) {
  for (int64_t plane = 0; plane < planes; ++plane) {
    for (int64_t row = 0; row < shape.rows.out; ++row) {
      const int64_t in = (plane * shape.rows.size + 2 * row) * shape.columns.size;
      const int64_t out = (plane * shape.rows.out + row) * shape.columns.out;
      for_lanes<T>(shape.columns.out, [&](int64_t i, auto lanes) { body(in + 2 * i, out + i, lanes); });
    }
  }
}

// Zeros where no window of 2 x 2 reaches: the last row and column of odd sizes.
template <class T>
PYNN_INLINE void clear_uncovered(T* dx, const PoolShape& shape, int64_t planes) {
  const int64_t rows = 2 * shape.rows.out, columns = 2 * shape.columns.out;
  for (int64_t plane = 0; plane < planes; ++plane, dx += shape.rows.size * shape.columns.size) {
    for (int64_t i = 0; i < shape.rows.size; ++i) {
      for (int64_t j = i < rows ? columns : 0; j < shape.columns.size; ++j) dx[i * shape.columns.size + j] = T(0);
    }
  }
}

template <class T>
void max_pool2d_2x2(T* y, uint8_t* indices, const T* x, const PoolShape& shape, int64_t planes) {
  const int64_t outputs = planes * shape.rows.out * shape.columns.out;
  for_2x2_windows<T>(shape, planes, [&](int64_t in, int64_t out, auto lanes) {
    const Pairs<T> top(x + in, lanes), bottom(x + in + shape.columns.size, lanes);
    const WindowMax<T> window(top.left, top.right, bottom.left, bottom.right);
    store(y + out, window.best, lanes);
    store_indices(indices + out, window.index, count<T>(lanes), outputs - out);
  });
}

template <class T>
bool max_pool2d_2x2_backward(T* dx, const T* dy, const uint8_t* indices, const PoolShape& shape, int64_t planes) {
  const int64_t outputs = planes * shape.rows.out * shape.columns.out;
  uint8_t all = 0;
  for (int64_t i = 0; i < outputs; ++i) all |= indices[i];
  if (all > 3) return false;
  for_2x2_windows<T>(shape, planes, [&](int64_t in, int64_t out, auto lanes) {
    const Vec<T> index = load_indices<T>(indices + out, count<T>(lanes), outputs - out);
    const Vec<T> d = load(dy + out, lanes), zero = Vec<T>::zero();
    const auto part = [&](int tap) { return select(index == Vec<T>(T(tap)), d, zero); };
    Pairs<T>(part(0), part(1)).store(dx + in, lanes);
    Pairs<T>(part(2), part(3)).store(dx + in + shape.columns.size, lanes);
  });
  clear_uncovered(dx, shape, planes);
  return true;
}

template <class T>
void avg_pool2d_2x2(T* y, const T* x, const PoolShape& shape, int64_t planes) {
  for_2x2_windows<T>(shape, planes, [&](int64_t in, int64_t out, auto lanes) {
    const Pairs<T> top(x + in, lanes), bottom(x + in + shape.columns.size, lanes);
    store(y + out, (((top.left + top.right) + bottom.left) + bottom.right) * Vec<T>(T(0.25)), lanes);
  });
}

template <class T>
void avg_pool2d_2x2_backward(T* dx, const T* dy, const PoolShape& shape, int64_t planes) {
  for_2x2_windows<T>(shape, planes, [&](int64_t in, int64_t out, auto lanes) {
    const Vec<T> share = load(dy + out, lanes) * Vec<T>(T(0.25));
    Pairs<T>(share, share).store(dx + in, lanes);
    Pairs<T>(share, share).store(dx + in + shape.columns.size, lanes);
  });
  clear_uncovered(dx, shape, planes);
}

template <class T>
PoolKernels<T> table() {
  return {max_pool2d<T, uint8_t>,
          max_pool2d_backward<T>,
          max_pool2d<T, int32_t>,
          max_pool2d_large_backward<T>,
          avg_pool2d<T>,
          avg_pool2d_backward<T>,
          max_pool2d_planes<T>,
          avg_pool2d_planes<T>,
          avg_pool2d_planes_backward<T>,
          max_pool2d_2x2<T>,
          max_pool2d_2x2_backward<T>,
          avg_pool2d_2x2<T>,
          avg_pool2d_2x2_backward<T>};
}

}  // namespace

void register_pool(KernelSet& set) {
  set.f32.pool = table<float>();
  set.f64.pool = table<double>();
}

}  // namespace pynn::PYNN_ISA
