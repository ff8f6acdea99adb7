#include "kernels/sparse_conv.h"

#include "kernels/sparse_conv_dweight.h"
#include "kernels/sparse_conv_dx.h"
#include "kernels/table.h"
#include "simd/transpose.h"

namespace pynn::PYNN_ISA {
namespace {

template <class T>
using Int = typename SparsePosition<T>::Int;

PYNN_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x < high ? x : high; }

template <class T>
PYNN_INLINE void clear(T* p, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(p + i, Vec<T>::zero(), lanes); });
}

// The rows and columns of an image that lie on x.
struct OnImage {
  int64_t row, row_end, column, column_end;

  PYNN_INLINE OnImage(int64_t rows, int64_t columns, const ConvWindow& window)
      : row(clamp(-window.top, 0, rows)),
        row_end(clamp(window.height - window.top, row, rows)),
        column(clamp(-window.left, 0, columns)),
        column_end(clamp(window.width - window.left, column, columns)) {}
};

template <class T>
void pack_image(T* image, int64_t rows, int64_t columns, int64_t channels, const T* x, const ConvWindow& window) {
  const OnImage on(rows, columns, window);
  const int64_t row_size = columns * channels, plane = window.height * window.width;
  clear(image, on.row * row_size);
  clear(image + on.row_end * row_size, (rows - on.row_end) * row_size);
  if (channels > 1 && window.left == 0 && window.width == columns) {  // rows without anything between them
    transpose(image + on.row * row_size, channels, x + (window.top + on.row) * columns, plane, channels,
              (on.row_end - on.row) * columns);
    return;
  }
  for (int64_t r = on.row; r < on.row_end; ++r) {
    T* to = image + r * row_size;
    const T* from = x + (window.top + r) * window.width + window.left + on.column;
    clear(to, on.column * channels);
    if (channels == 1) {
      for_lanes<T>(on.column_end - on.column,
                   [&](int64_t i, auto lanes) { store(to + on.column + i, load(from + i, lanes), lanes); });
    } else {
      transpose(to + on.column * channels, channels, from, plane, channels, on.column_end - on.column);
    }
    clear(to + on.column_end * channels, (columns - on.column_end) * channels);
  }
}

template <class T>
void unpack_image(T* dx, const ConvWindow& window, int64_t channels, const T* image, int64_t rows, int64_t columns) {
  const OnImage on(rows, columns, window);
  const int64_t width = window.width, plane = window.height * width;
  const int64_t top = on.row + window.top, bottom = on.row_end + window.top;
  const int64_t left = on.column + window.left, right = on.column_end + window.left;
  const bool whole_rows = left == 0 && right == width;
  for (int64_t c = 0; c < channels; ++c) {
    T* to = dx + c * plane;
    clear(to, top * width);
    for (int64_t h = top; h < bottom && !whole_rows; ++h) {
      clear(to + h * width, left);
      clear(to + h * width + right, width - right);
    }
    clear(to + bottom * width, plane - bottom * width);
  }
  if (whole_rows && columns == width) {  // without anything between them
    transpose(dx + top * width, plane, image + on.row * columns * channels, channels, (bottom - top) * width, channels);
    return;
  }
  for (int64_t r = on.row; r < on.row_end; ++r) {
    transpose(dx + (window.top + r) * width + left, plane, image + (r * columns + on.column) * channels, channels,
              right - left, channels);
  }
}

// 0..3, whatever the memory holds; 0 in the lanes that are not loaded.
template <class T>
PYNN_INLINE typename Integers<T>::Lanes load_indices(const uint8_t* p, AllLanes) {
  return (typename Integers<T>::Lanes)widen(p, Vec<T>()) & 3;
}
template <class T>
PYNN_INLINE typename Integers<T>::Lanes load_indices(const uint8_t* p, int n) {
  uint8_t bytes[Vec<T>::lanes] = {};
  for (int i = 0; i < n; ++i) bytes[i] = p[i];
  return load_indices<T>(bytes, AllLanes{});
}

template <class T, class Lanes>
PYNN_INLINE Vec<T> load_gradient(const PooledGradient<T>& gradient, int64_t i, Lanes lanes) {
  const Vec<T> dy = load(gradient.dy + i, lanes);
  if (gradient.y == nullptr) return dy;
  return select(load(gradient.y + i, lanes) <= Vec<T>::zero(), Vec<T>::zero(), dy);
}

template <class T>
int64_t list_live(T* g, Int<T>* at, T* sum, const PooledGradient<T>& gradient, const Int<T>* corners, Int<T> row_step,
                  Int<T> column_step, int64_t windows) {
  int64_t count = 0;
  Vec<T> all = Vec<T>::load(sum);
  for_lanes<T>(windows, [&](int64_t i, auto lanes) {
    const Vec<T> d = load_gradient(gradient, i, lanes);
    const typename Integers<T>::Lanes index = load_indices<T>(gradient.indices + i, lanes);
    typename Integers<T>::Lanes position;
    std::memcpy(&position, corners + i, sizeof(position));
    position += (index >> 1) * row_step + (index & 1) * column_step;
    all = all + d;
    const Mask<T> live = !(d == Vec<T>::zero());
    compress_store(reinterpret_cast<T*>(at) + count, live, Vec<T>((decltype(Vec<T>::v))position));
    count += compress_store(g + count, live, d);
  });
  all.store(sum);
  return count;
}

// -- gradient of the weights ------------------------------------------------------------------------------------------

template <class T>
int64_t dweight_row(int64_t run) {
  constexpr int64_t lanes = Vec<T>::lanes;
  if (has_half_vectors<T> && run <= HalfVec::lanes) return HalfVec::lanes;
  return (run + lanes - 1) / lanes * lanes;
}

template <class T>
void dweight(T* sums, int64_t kernel_rows, int64_t row, const T* image, int64_t image_row, const T* g, const Int<T>* at,
             int64_t count) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const int64_t row_blocks = (kernel_rows + dweight_most_rows - 1) / dweight_most_rows;
  for (int64_t b = 0; b < row_blocks; ++b) {
    const int64_t i = kernel_rows * b / row_blocks, rows = kernel_rows * (b + 1) / row_blocks - i;
    const auto& kernels = sparse_dweight_micro_kernels<T>;
    if (row < lanes) {
      kernels.half[rows - 1](sums + i * row, row, image + i * image_row, image_row, g, at, count);
      continue;
    }
    const int64_t vectors = row / lanes, most = dweight_most_vectors<T>(static_cast<int>(rows));
    const int64_t blocks = (vectors + most - 1) / most;
    for (int64_t c = 0; c < blocks; ++c) {
      const int64_t v = vectors * c / blocks, count_v = vectors * (c + 1) / blocks - v;
      kernels.of[rows - 1][count_v - 1](sums + i * row + v * lanes, row, image + i * image_row + v * lanes, image_row,
                                        g, at, count);
    }
  }
}

// -- gradient of the data ---------------------------------------------------------------------------------------------

constexpr int most_winners = 64;

template <class I>
constexpr I kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <class T>
void list_winners(T* g, Int<T>* winners, Int<T>* counts, const PooledGradient<T>& gradient, int64_t outputs,
                  int64_t windows) {
  constexpr int64_t lanes = Vec<T>::lanes;
  const int64_t width = (outputs + lanes - 1) / lanes * lanes;
  T index[lanes * most_winners];  // [windows, width]
  for (int64_t p = 0; p < windows; p += lanes, g += lanes * width) {
    const int n = static_cast<int>(windows - p < lanes ? windows - p : lanes);
    for (int64_t o = 0; o < width; o += lanes) {
      T tile[lanes * lanes], index_tile[lanes * lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        Vec<T> d = Vec<T>::zero();
        typename Integers<T>::Lanes at = {};
        const int64_t from = (o + i) * windows + p;
        if (o + i < outputs && n == lanes) {
          d = load_gradient(gradient, from, AllLanes{});
          at = load_indices<T>(gradient.indices + from, AllLanes{});
        } else if (o + i < outputs) {
          d = load_gradient(gradient, from, n);
          at = load_indices<T>(gradient.indices + from, n);
        }
        d.store(tile + i * lanes);
        Vec<T>(__builtin_convertvector(at, decltype(Vec<T>::v))).store(index_tile + i * lanes);
      }
      transpose_block(g + o, width, tile, lanes);
      transpose_block(index + o, width, index_tile, lanes);
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int k = 0; k < 4; ++k, ++counts) {
        int count = 0;
        for (int64_t o = 0; o < width; o += lanes) {
          typename Integers<T>::Lanes output;
          std::memcpy(&output, kLaneNumbers<Int<T>>, sizeof(output));
          output += static_cast<Int<T>>(o);
          const Mask<T> zero = Vec<T>::load(g + i * width + o) == Vec<T>::zero();
          const Mask<T> here = Vec<T>::load(index + i * width + o) == Vec<T>(T(k));
          count += compress_store(reinterpret_cast<T*>(winners) + count, (!zero) & here,
                                  Vec<T>((decltype(Vec<T>::v))output));
        }
        winners += count;
        *counts = static_cast<Int<T>>(count);
      }
    }
  }
}

template <class T>
bool dx_by_pixels(int64_t channels, int64_t kernel_columns) {
  return channels % Vec<T>::lanes == 0 && (kernel_columns == 3 || kernel_columns == 5 || kernel_columns == 7);
}

template <class T>
void dx(const SparsePatches<T>& patches, int64_t kernel_rows, int64_t vectors, bool by_pixels) {
  const auto& kernels = dx_micro_kernels<T>;
  // Wide patches rather than high ones, unless all rows fit at once.
  int64_t most_vectors = vectors;
  if (!by_pixels) {
    const int64_t rows = kernel_rows < dx_most_rows<T> ? kernel_rows : dx_most_rows<T>;
    most_vectors = clamp(dx_registers / (rows + 1), 1, dx_most_vectors<T>);
  }
  const int64_t column_blocks = (vectors + most_vectors - 1) / most_vectors;
  for (int64_t c = 0; c < column_blocks; ++c) {
    const int64_t v = vectors * c / column_blocks, count = vectors * (c + 1) / column_blocks - v;
    const int64_t most_rows = dx_rows<T>(static_cast<int>(count));
    const int64_t row_blocks = (kernel_rows + most_rows - 1) / most_rows;
    for (int64_t b = 0; b < row_blocks; ++b) {
      const int64_t i = kernel_rows * b / row_blocks, rows = kernel_rows * (b + 1) / row_blocks - i;
      SparsePatches<T> part = patches;
      part.dx += i * patches.row + v * patches.vector_step;
      part.weight += i * patches.weight_row + v * Vec<T>::lanes;
      (by_pixels ? kernels.by_pixels[rows - 1][count / 2 - 1] : kernels.of[rows - 1][count - 1])(part);
    }
  }
}

template <class T>
SparseConvKernels<T> table() {
  return {Vec<T>::lanes, pack_image<T>, unpack_image<T>, list_live<T>,    dweight_row<T>,
          dweight<T>,    most_winners,  list_winners<T>, dx_by_pixels<T>, dx<T>};
}

}  // namespace

void register_sparse_conv(KernelSet& set) {
  set.f32.sparse_conv = table<float>();
  set.f64.sparse_conv = table<double>();
}

}  // namespace pynn::PYNN_ISA
