#include "ops/conv_weight.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/conv_source.h"
#include "runtime/arena.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kPartialBytes = int64_t(1) << 24;
constexpr int64_t kMostChunks = 16;
constexpr int64_t kLeastPixels = 128;             // of a group of images, beside which its accumulators weigh little,
constexpr int64_t kNearBytes = int64_t(1) << 18;  // if they take no more than this

}  // namespace

// dweight and dbias: sums over all pixels of all images, taken in chunks whose number the shape alone decides.
template <class T>
void conv2d_backward_weight(T* dweight, T* dbias, const T* dy, const T* mask, const T* x, const ConvShape& s) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  const AxisPlan rows = forward_plan(s.rows), columns = forward_plan(s.columns);
  const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
  const int64_t taps = channels * s.rows.kernel * s.columns.kernel;
  const int64_t bytes_per_row =
      s.channels * rows.planes() * columns.planes() * columns.length() * static_cast<int64_t>(sizeof(T));
  const Bands bands = choose_bands(s.rows.out, 1, rows.halo, bytes_per_row, 1);
  const int64_t row_length = columns.length(), pixels = s.rows.out * s.columns.out;
  // Output channels in the lanes, or pixels, with zeros up to the length of the source's rows: what fills vectors
  // better, where the second takes a tenth more for the sums over its lanes.
  const bool in_lanes = 10 * round_up(outputs, kernel.lanes) * s.columns.out < 11 * outputs * row_length;
  // Pixels in the lanes are read behind the last one too.
  const bool in_place = in_lanes && is_source(rows, s.rows.size) && is_source(columns, s.columns.size);
  const Source source = in_place ? source_in_place(rows, columns, s.channels, s.rows.size, s.columns.size)
                                 : make_source(rows, columns, s.channels, s.rows.size, s.columns.size, bands);
  const int64_t source_image =
      in_place ? s.channels * source.channel() : round_up(s.channels * source.channel() + kernel.lanes, kernel.lanes);
  const int64_t dy_plane = in_lanes ? bands.rows * s.columns.out : round_up(bands.rows * row_length, kernel.lanes);
  const int64_t dy_image = s.outputs * dy_plane;

  const int64_t size = s.outputs * taps + s.outputs;  // dweight, dbias
  const int64_t least_pixels = kLeastPixels * ceil_div(size * static_cast<int64_t>(sizeof(T)), kNearBytes);
  // Small images go in groups, so that the accumulators are rarely loaded and stored beside what they add up.
  const int64_t image_bytes = (source_image + dy_image) * static_cast<int64_t>(sizeof(T));
  const int64_t group_images =
      bands.count > 1
          ? 1
          : std::max<int64_t>(
                1, std::min({std::max(ceil_div(s.images, kMostChunks), ceil_div(least_pixels, dy_plane)), s.images,
                             1024 / dy_plane, 2 * kSourceBytes / std::max<int64_t>(1, image_bytes)}));
  const int64_t units = ceil_div(s.images, group_images) * bands.count;
  const int64_t chunks = std::max<int64_t>(
      1, std::min({units, kMostChunks, kPartialBytes / std::max<int64_t>(1, size * static_cast<int64_t>(sizeof(T)))}));
  const int64_t work = s.images * s.outputs * s.rows.out * s.columns.out * (taps + 1);
  const int64_t threads = work < kConvSerialWork ? 1 : num_threads();
  const int64_t parts = threads == 1 ? 1 : std::min(s.outputs, ceil_div(threads, chunks));
  const arena::Buffer<T> partial(chunks * size);

  std::vector<int64_t> offsets;
  for (int64_t c = 0; c < channels; ++c) {
    for (const AxisTap& i : rows.outputs[0].taps) {
      for (const AxisTap& j : columns.outputs[0].taps) offsets.push_back(source.offset(c, i, j));
    }
  }

  const auto task = [&](int64_t t) {
    const int64_t chunk = t / parts, part = t % parts;
    const int64_t first = s.outputs * part / parts, end = s.outputs * (part + 1) / parts;
    if (first == end) return;
    T* sums = partial.get() + chunk * size;
    T* bias_sums = sums + s.outputs * taps;
    const int64_t first_group = first / outputs, end_group = (end - 1) / outputs + 1;
    const auto part_of_group = [&](int64_t group) {  // its outputs in this part
      return std::pair(std::max(first, group * outputs), std::min(end, (group + 1) * outputs));
    };
    std::fill(sums + first * taps, sums + end * taps, T(0));
    std::fill(bias_sums + first, bias_sums + end, T(0));
    const int64_t first_channel = first_group * channels, end_channel = end_group * channels;
    T* copy = arena::scratch<T>(arena::Slot::tile, in_place ? 0 : group_images * source_image);
    T* gradients = arena::scratch<T>(arena::Slot::columns, group_images * dy_image + 2 * kernel.lanes);
    for (int64_t unit = units * chunk / chunks; unit < units * (chunk + 1) / chunks; ++unit) {
      const int64_t image = unit / bands.count * group_images, first_row = unit % bands.count * bands.rows;
      const int64_t images = std::min(group_images, s.images - image);
      const int64_t row_count = std::min(bands.rows, s.rows.out - first_row);
      for (int64_t n = 0; n < images; ++n) {
        const int64_t band = ((image + n) * s.outputs * s.rows.out + first_row) * s.columns.out;
        const T* band_dy = dy + band;
        if (mask != nullptr) {  // once into the cache, since it is read there twice
          T* masked = arena::scratch<T>(arena::Slot::partial, end * pixels);
          for (int64_t o = first; o < end; ++o) {
            kernels<T>().elementwise.relu_backward(masked + o * pixels, band_dy + o * pixels, mask + band + o * pixels,
                                                   row_count * s.columns.out);
          }
          band_dy = masked;
        }
        if (dbias != nullptr) {
          for (int64_t o = first; o < end; ++o)
            kernel.add_row_sums(bias_sums + o, band_dy + o * pixels, 1, row_count * s.columns.out);
        }
        if (dweight == nullptr) continue;
        if (!in_place)
          fill_source(copy + n * source_image, source, x + (image + n) * s.channels * s.rows.size * s.columns.size,
                      static_cast<const T*>(nullptr), first_channel, end_channel - first_channel, first_row);
        T* to = gradients + n * dy_image;
        if (in_lanes) {
          kernels<T>().gemm.pack_rows(to, band_dy + first * pixels, pixels, end - first, row_count * s.columns.out);
          continue;
        }
        for (int64_t o = first; o < end; ++o, to += dy_plane) {
          kernel.copy_window(to, row_count, row_length, band_dy + o * pixels, nullptr,
                             {row_count, s.columns.out, 0, 0, 1, 1});
          std::fill(to + row_count * row_length, to + dy_plane, T(0));
        }
      }
      if (dweight == nullptr) continue;
      const int64_t run = round_up((row_count - 1) * row_length + s.columns.out, kernel.lanes);
      for (int64_t group = first_group; group < end_group; ++group) {
        const auto [o, o_end] = part_of_group(group);
        const T* planes =
            in_place ? x + image * source_image + first_row * source.row_length + first_channel * source.channel()
                     : copy;
        const T* from = planes + (group * channels - first_channel) * source.channel();
        if (in_lanes) {
          kernel.dweight_outputs(sums + o * taps, gradients + o - first, end - first, dy_image, from, source_image,
                                 offsets.data(), {row_count, s.columns.out, source.row_length, 0, s.columns.out, 1},
                                 o_end - o, taps, images);
        } else {
          kernel.dweight(sums + o * taps, gradients + (o - first) * dy_plane, dy_plane, dy_image, from, source_image,
                         offsets.data(), o_end - o, taps, run, images);
        }
      }
    }
    if (!in_lanes || dweight == nullptr) return;
    // [taps, outputs] of each group back to [outputs, taps]
    T* turned = arena::scratch<T>(arena::Slot::tile, outputs * taps);
    for (int64_t group = first_group; group < end_group; ++group) {
      const auto [o, o_end] = part_of_group(group);
      kernels<T>().gemm.pack_rows(turned, sums + o * taps, o_end - o, taps, o_end - o);
      std::copy(turned, turned + (o_end - o) * taps, sums + o * taps);
    }
  };
  parallel_for_if(threads > 1, chunks * parts, task);
  const auto add_chunks = [&](T* sum, const T* first_chunk, int64_t count) {
    if (sum == nullptr) return;
    parallel_ranges(count, 4096, [&](int64_t begin, int64_t end) {
      kernels<T>().gemm.column_sums(sum + begin, first_chunk + begin, size, chunks, end - begin);
    });
  };
  add_chunks(dweight, partial.get(), s.outputs * taps);
  add_chunks(dbias, partial.get() + s.outputs * taps, s.outputs);
}

template void conv2d_backward_weight(float*, float*, const float*, const float*, const float*, const ConvShape&);
template void conv2d_backward_weight(double*, double*, const double*, const double*, const double*, const ConvShape&);

}  // namespace pynn::ops
