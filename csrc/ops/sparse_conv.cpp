#include "ops/sparse_conv.h"

#include <algorithm>
#include <vector>

#include "ops/conv_source.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kMostChunks = 16;
constexpr int64_t kPartialBytes = int64_t(1) << 24;
constexpr int64_t kMostElements = INT32_MAX / 2;  // of an image, so that positions fit into integers of 32 bits
constexpr int64_t kStripBytes = 36 << 10;         // of an image, to stay in the L1 cache, or nearly so
constexpr int64_t kFilterBytes = 40 << 10;        // of a group of outputs, likewise
constexpr int64_t kListBytes = 256 << 10;         // of the lists of several strips, to stay in the L2 cache

// An image with its channels last, zeros around it, and of its rows and columns those that windows read.
struct Image {
  int64_t pooled_rows, pooled_columns;  // windows
  int64_t rows, columns, channels;

  Image(const ConvShape& s, int64_t with_channels)
      : pooled_rows(s.rows.out / 2),
        pooled_columns(s.columns.out / 2),
        rows(2 * pooled_rows + s.rows.kernel - 1),
        columns(2 * pooled_columns + s.columns.kernel - 1),
        channels(with_channels) {}

  int64_t windows() const { return pooled_rows * pooled_columns; }
  int64_t row_size() const { return columns * channels; }
  int64_t corner(int64_t row, int64_t column) const { return 2 * (row * columns + column) * channels; }
};

// What is worked on at a time: some rows of windows of one image, or several images.
struct Strips {
  int64_t pooled_rows, count, images;
  int64_t rows;  // of each image
};

template <class T>
Strips choose_strips(const Image& image, int64_t images, int64_t kernel_rows) {
  const int64_t row_bytes = image.row_size() * static_cast<int64_t>(sizeof(T));
  const int64_t most = std::max<int64_t>(1, (kStripBytes / row_bytes - kernel_rows + 1) / 2);
  const int64_t count = ceil_div(image.pooled_rows, std::min(most, image.pooled_rows));
  const int64_t pooled_rows = ceil_div(image.pooled_rows, count), rows = 2 * pooled_rows + kernel_rows - 1;
  const int64_t fit = count > 1 ? 1 : std::max<int64_t>(1, kStripBytes / (rows * row_bytes));
  return {pooled_rows, ceil_div(image.pooled_rows, pooled_rows), ceil_div(images, ceil_div(images, fit)), rows};
}

}  // namespace

// Where all windows are live the dense way does four times the products, in fuller vectors and without lists. Measured
// over 1 to 64 channels, 6 and 32 outputs, kernels of 1 to 7 and images of 12 to 28: at 8 products for an output and
// window it begins to lose.
template <class T>
bool sparse_dweight_pays(const ConvShape& s) {
  if (s.groups != 1 || s.rows.stride != 1 || s.columns.stride != 1 || s.rows.dilation != 1 || s.columns.dilation != 1) {
    return false;
  }
  if (s.images == 0 || s.outputs == 0 || s.rows.out < 2 || s.columns.out < 2) return false;
  const Image image(s, s.channels);
  if (image.rows > kMostElements || image.columns > kMostElements || image.row_size() > kMostElements ||
      image.rows * image.row_size() > kMostElements) {
    return false;
  }
  return s.channels * s.rows.kernel * s.columns.kernel > 8;
}

// For the gradient of the data each window reads and writes its patch as well.
template <class T>
bool sparse_dx_pays(const ConvShape& s) {
  return sparse_dweight_pays<T>(s) && s.columns.kernel > 1 &&
         s.outputs * s.channels * s.rows.kernel * s.columns.kernel >= 800;
}

template <class T>
void sparse_conv2d_backward_weight(T* dweight, T* dbias, const PooledGradient<T>& gradient, const T* x,
                                   const ConvShape& s) {
  using Int = typename SparsePosition<T>::Int;
  const SparseConvKernels<T>& kernel = kernels<T>().sparse_conv;
  // Channels in blocks of a vector each: of fewer channels more rows fit into the L1 cache, and the sums of a block
  // of channels into the registers.
  const bool in_blocks = s.channels % kernel.lanes == 0 && s.rows.kernel > 2 && s.columns.kernel > 2;
  const Image image(s, in_blocks ? kernel.lanes : s.channels);
  const int64_t blocks = s.channels / image.channels;
  const int64_t row = kernel.dweight_row(s.columns.kernel * image.channels), block_filter = s.rows.kernel * row;
  const int64_t filter = blocks * block_filter;
  const int64_t size = s.outputs * (filter + kernel.lanes);  // sums of dweight, and of dbias lane by lane
  const int64_t chunks =
      std::max<int64_t>(1, std::min({s.images, kMostChunks, kPartialBytes / (size * static_cast<int64_t>(sizeof(T)))}));
  const Strips strips = choose_strips<T>(image, ceil_div(s.images, chunks), s.rows.kernel);
  const arena::Buffer<T> partial(chunks * size);

  // Positions in a strip, or in several images.
  const int64_t image_size = image.rows * image.row_size();
  std::vector<Int> corners;
  for (int64_t n = 0; n < strips.images; ++n) {
    for (int64_t r = 0; r < strips.pooled_rows; ++r) {
      for (int64_t c = 0; c < image.pooled_columns; ++c) {
        corners.push_back(static_cast<Int>(n * image_size + image.corner(r, c)));
      }
    }
  }
  // The lists of all outputs are made first, as many strips of them as stay in the L2 cache.
  const int64_t list = round_up(static_cast<int64_t>(corners.size()), kernel.lanes) + kernel.lanes;
  const int64_t list_bytes = s.outputs * list * static_cast<int64_t>(sizeof(T) + sizeof(Int));
  const int64_t list_strips = std::min(strips.count, std::max<int64_t>(1, kListBytes / list_bytes));
  corners.resize(static_cast<size_t>(list));

  const auto chunk_task = [&](int64_t chunk) {
    T* sums = partial.get() + chunk * size;
    T* bias_sums = sums + s.outputs * filter;
    std::fill(sums, sums + size, T(0));
    T* images = arena::scratch<T>(arena::Slot::tile, blocks * strips.images * image_size + kernel.lanes);
    T* g = arena::scratch<T>(arena::Slot::columns, list_strips * s.outputs * list);
    Int* at = arena::scratch<Int>(arena::Slot::pack_a, list_strips * s.outputs * list);
    int64_t* lengths = arena::scratch<int64_t>(arena::Slot::pack_b, list_strips * s.outputs);
    const int64_t end = s.images * (chunk + 1) / chunks;
    for (int64_t first = s.images * chunk / chunks; first < end; first += strips.images) {
      const int64_t count = std::min(strips.images, end - first);
      for (int64_t n = 0; n < blocks * count && dweight != nullptr; ++n) {
        const int64_t block = n % blocks, of_block = n / blocks, plane = s.rows.size * s.columns.size;
        kernel.pack_image(images + (block * strips.images + of_block) * image_size, image.rows, image.columns,
                          image.channels, x + ((first + of_block) * s.channels + block * image.channels) * plane,
                          {s.rows.size, s.columns.size, -s.rows.padding, -s.columns.padding, 1, 1});
      }
      for (int64_t first_strip = 0; first_strip < strips.count; first_strip += list_strips) {
        const int64_t strip_count = std::min(list_strips, strips.count - first_strip);
        std::fill(lengths, lengths + strip_count * s.outputs, int64_t(0));
        for (int64_t n = 0; n < count; ++n) {
          for (int64_t o = 0; o < s.outputs; ++o) {
            const PooledGradient<T> plane = gradient.from(((first + n) * s.outputs + o) * image.windows());
            for (int64_t strip = 0; strip < strip_count; ++strip) {
              const int64_t row = (first_strip + strip) * strips.pooled_rows;
              const int64_t rows = std::min(strips.pooled_rows, image.pooled_rows - row);
              int64_t& length = lengths[strip * s.outputs + o];
              const int64_t to = (strip * s.outputs + o) * list + length;
              length += kernel.list_live(g + to, at + to, bias_sums + o * kernel.lanes,
                                         plane.from(row * image.pooled_columns), corners.data() + n * image.windows(),
                                         static_cast<Int>(image.row_size()), static_cast<Int>(image.channels),
                                         rows * image.pooled_columns);
            }
          }
        }
        if (dweight == nullptr) continue;
        for (int64_t part = 0; part < strip_count * blocks; ++part) {
          const int64_t strip = part / blocks, block = part % blocks;
          const T* from = images + block * strips.images * image_size +
                          2 * (first_strip + strip) * strips.pooled_rows * image.row_size();
          for (int64_t o = 0; o < s.outputs; ++o) {
            const int64_t i = strip * s.outputs + o;
            kernel.dweight(sums + o * filter + block * block_filter, s.rows.kernel, row, from, image.row_size(),
                           g + i * list, at + i * list, lengths[i]);
          }
        }
      }
    }
  };
  const int64_t work = s.images * s.outputs * image.windows() * filter;
  parallel_for_if(work >= kConvSerialWork, chunks, chunk_task);

  for (int64_t o = 0; o < s.outputs && dbias != nullptr; ++o) {
    dbias[o] = T(0);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const T* lanes = partial.get() + chunk * size + s.outputs * filter + o * kernel.lanes;
      for (int64_t i = 0; i < kernel.lanes; ++i) dbias[o] += lanes[i];
    }
  }
  if (dweight == nullptr) return;
  parallel_ranges(s.outputs, ceil_div(4096, filter), [&](int64_t begin, int64_t end) {
    // The sum of the chunks, [block, row tap, column tap, channel], then turned to [channel, row tap, column tap].
    T* sum = arena::scratch<T>(arena::Slot::tile, (end - begin) * filter);
    kernels<T>().gemm.column_sums(sum, partial.get() + begin * filter, size, chunks, (end - begin) * filter);
    T* to = dweight + begin * s.channels * s.rows.kernel * s.columns.kernel;
    for (int64_t o = begin; o < end; ++o, sum += filter) {
      for (int64_t c = 0; c < s.channels; ++c) {
        const T* from = sum + c / image.channels * block_filter + c % image.channels;
        for (int64_t i = 0; i < s.rows.kernel; ++i) {
          for (int64_t j = 0; j < s.columns.kernel; ++j) *to++ = from[i * row + j * image.channels];
        }
      }
    }
  });
}

namespace {

// How the weights lie for the gradient of the data: blocks of channels, filters of all outputs in each.
template <class T>
struct Filters {
  bool by_pixels;
  int64_t blocks, variants, vectors;    // variants: for winners in the left and the right column
  int64_t row, filter, variant, block;  // elements
  int64_t patch_vectors;

  explicit Filters(const ConvShape& s) {
    const SparseConvKernels<T>& kernel = kernels<T>().sparse_conv;
    by_pixels = kernel.dx_by_pixels(s.channels, s.columns.kernel);
    blocks = by_pixels ? s.channels / kernel.lanes : 1;
    variants = by_pixels ? 1 : 2;
    patch_vectors = by_pixels ? s.columns.kernel + 1 : ceil_div((s.columns.kernel + 1) * s.channels, kernel.lanes);
    vectors = by_pixels ? s.columns.kernel : patch_vectors;
    row = vectors * kernel.lanes;
    filter = s.rows.kernel * row;
    variant = s.outputs * filter;
    block = variants * variant;
  }
};

template <class T>
void pack_filters(T* packed, const Filters<T>& f, const T* weight, const ConvShape& s) {
  std::fill(packed, packed + f.blocks * f.block, T(0));
  const int64_t lanes = kernels<T>().sparse_conv.lanes;
  for (int64_t o = 0; o < s.outputs; ++o) {
    for (int64_t c = 0; c < s.channels; ++c) {
      T* to = packed + o * f.filter + (f.by_pixels ? c / lanes * f.block + c % lanes : c);
      const int64_t tap_step = f.by_pixels ? lanes : s.channels;
      for (int64_t i = 0; i < s.rows.kernel; ++i) {
        for (int64_t j = 0; j < s.columns.kernel; ++j, ++weight) {
          for (int64_t v = 0; v < f.variants; ++v) to[v * f.variant + i * f.row + (j + v) * tap_step] = *weight;
        }
      }
    }
  }
}

}  // namespace

template <class T>
void sparse_conv2d_backward_data(T* dx, const PooledGradient<T>& gradient, const T* weight, const ConvShape& s) {
  using Int = typename SparsePosition<T>::Int;
  const SparseConvKernels<T>& kernel = kernels<T>().sparse_conv;
  const Image image(s, s.channels);
  const Filters<T> filters(s);
  const arena::Buffer<T> packed(filters.blocks * filters.block);
  pack_filters(packed.get(), filters, weight, s);

  // Outputs in groups whose filters stay in the L1 cache.
  const int64_t filter_bytes = filters.variants * filters.filter * static_cast<int64_t>(sizeof(T));
  const int64_t fit = std::max<int64_t>(1, kFilterBytes / filter_bytes / kernel.lanes) * kernel.lanes;
  const int64_t groups = ceil_div(s.outputs, std::min(fit, kernel.most_winners));
  const int64_t group = round_up(ceil_div(s.outputs, groups), kernel.lanes);

  const auto image_task = [&](int64_t n) {
    const int64_t windows = image.windows(), size = image.rows * image.row_size();
    T* to = arena::scratch<T>(arena::Slot::tile, size + kernel.lanes);
    T* g = arena::scratch<T>(arena::Slot::columns, round_up(windows, kernel.lanes) * group);
    Int* winners = arena::scratch<Int>(arena::Slot::pack_a, windows * group + kernel.lanes);
    Int* counts = arena::scratch<Int>(arena::Slot::pack_b, 4 * windows);
    std::fill(to, to + size + kernel.lanes, T(0));
    for (int64_t o = 0; o < s.outputs; o += group) {
      const int64_t outputs = std::min(group, s.outputs - o);
      kernel.list_winners(g, winners, counts, gradient.from((n * s.outputs + o) * windows), outputs, windows);
      for (int64_t b = 0; b < filters.blocks; ++b) {
        const SparsePatches<T> patches{to + b * kernel.lanes,
                                       image.row_size(),
                                       2 * s.channels,
                                       filters.by_pixels ? s.channels : kernel.lanes,
                                       packed.get() + b * filters.block + o * filters.filter,
                                       filters.filter,
                                       filters.row,
                                       filters.by_pixels ? 0 : filters.variant,
                                       g,
                                       round_up(outputs, kernel.lanes),
                                       winners,
                                       counts,
                                       image.pooled_rows,
                                       image.pooled_columns};
        kernel.dx(patches, s.rows.kernel, filters.patch_vectors, filters.by_pixels);
      }
    }
    kernel.unpack_image(dx + n * s.channels * s.rows.size * s.columns.size,
                        {s.rows.size, s.columns.size, -s.rows.padding, -s.columns.padding, 1, 1}, s.channels, to,
                        image.rows, image.columns);
  };
  const int64_t work = s.images * s.outputs * image.windows() * filters.blocks * filters.filter;
  parallel_for_if(work >= kConvSerialWork, s.images, image_task);
}

#define PYNN_INSTANTIATE(T)                                                                            \
  template bool sparse_dx_pays<T>(const ConvShape&);                                                   \
  template void sparse_conv2d_backward_data(T*, const PooledGradient<T>&, const T*, const ConvShape&); \
  template bool sparse_dweight_pays<T>(const ConvShape&);                                              \
  template void sparse_conv2d_backward_weight(T*, T*, const PooledGradient<T>&, const T*, const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
