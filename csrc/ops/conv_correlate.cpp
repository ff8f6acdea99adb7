#include "ops/conv_correlate.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "ops/conv_source.h"
#include "ops/conv_tiles.h"
#include "ops/conv_winograd.h"
#include "runtime/arena.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kMostShifts = 32;  // of windows in the lanes, each a copy of half of what is read: dilation adds them
constexpr int64_t kMostAhead = int64_t(1) << 14;   // bytes of an image that are fetched during the one before
constexpr int64_t kSerialPack = int64_t(1) << 13;  // elements of weights that one thread packs as quickly

// One correlation per pair of output phases of the axes.
struct Correlation {
  const AxisOutputs *rows, *columns;
  std::vector<int64_t> offsets;    // [taps] into the source; row tap by row tap
  std::vector<int64_t> in_weight;  // [taps] into the weights of an output
  std::vector<int64_t> row_taps;   // [rows, 2]: begin and end of the taps that fall on rows of the images
  int64_t packed;                  // its place in the packed weights

  int64_t taps() const { return static_cast<int64_t>(offsets.size()); }
};

// The output channels of a group in blocks: whole vectors of them, or of nearly equal size.
struct Blocks {
  ConvLanes lanes_hold;
  int64_t outputs, count, packed_outputs;
  int64_t lanes;

  bool outputs_in_lanes() const { return lanes_hold == ConvLanes::outputs; }
  int64_t begin(int64_t b) const { return outputs_in_lanes() ? std::min(outputs, b * 2 * lanes) : outputs * b / count; }
  int64_t packed_size(int64_t b) const {
    const int64_t size = begin(b + 1) - begin(b);
    return outputs_in_lanes() ? round_up(size, lanes) : size;
  }
};

template <class T>
Blocks choose_blocks(const Job& job, int64_t row_length, int64_t taps, bool pool) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  const AxisOutputs& row = job.rows.outputs[0];
  const AxisOutputs& column = job.columns.outputs[0];
  const ConvPixels pixels{row.count,  column.count, row_length, job.y_height * job.y_width, row.step * job.y_width,
                          column.step};
  // Taps are spread over the phases of a strided gradient.
  const int64_t taps_of_one = taps / (static_cast<int64_t>(job.rows.outputs.size() * job.columns.outputs.size()));
  const int64_t planes = job.channels * job.rows.planes() * job.columns.planes();
  const int64_t shifts = job.columns.halo + 2;
  const int64_t split_rows = pool && shifts <= kMostShifts ? planes * job.rows.length() * shifts : 0;
  const ConvLanes lanes_hold = kernel.choose_lanes(pixels, job.outputs, taps_of_one, split_rows);
  if (lanes_hold == ConvLanes::outputs) {
    return {lanes_hold, job.outputs, ceil_div(job.outputs, 2 * kernel.lanes), round_up(job.outputs, kernel.lanes),
            kernel.lanes};
  }
  const int64_t most = lanes_hold == ConvLanes::windows ? kernel.window_outputs : kernel.outputs;
  return {lanes_hold, job.outputs, ceil_div(job.outputs, most), job.outputs, kernel.lanes};
}

std::vector<Correlation> plan_correlations(const Job& job, const Source& source, const Blocks& blocks) {
  std::vector<Correlation> correlations;
  correlations.reserve(job.rows.outputs.size() * job.columns.outputs.size());
  int64_t place = 0;
  for (const AxisOutputs& row : job.rows.outputs) {
    for (const AxisOutputs& column : job.columns.outputs) {
      Correlation correlation{&row, &column, {}, {}, {}, place};
      const size_t taps = row.taps.size() * column.taps.size() * static_cast<size_t>(job.channels);
      correlation.offsets.resize(taps);
      correlation.in_weight.resize(taps);
      correlation.row_taps.reserve(2 * static_cast<size_t>(row.count));
      size_t k = 0;
      for (const AxisTap& i : row.taps) {
        for (int64_t c = 0; c < job.channels; ++c) {
          const int64_t offset = source.offset(c, i, {0, 0, 0});
          const int64_t in_weight = c * job.weight.channel_step + i.index * job.weight.row_step;
          for (size_t j = 0; j < column.taps.size(); ++j, ++k) {
            const AxisTap& tap = column.taps[j];
            correlation.offsets[k] = offset + tap.plane * source.plane() + tap.shift;
            correlation.in_weight[k] = in_weight + tap.index;
          }
        }
      }
      const int64_t taps_of_row = job.channels * static_cast<int64_t>(column.taps.size());
      for (int64_t u = 0; u < row.count; ++u) {
        const auto [begin, end] = taps_inside(job.rows, row, u, job.height);
        correlation.row_taps.push_back(begin * taps_of_row);
        correlation.row_taps.push_back(end * taps_of_row);
      }
      place += job.groups * blocks.packed_outputs * static_cast<int64_t>(taps);
      correlations.push_back(std::move(correlation));
    }
  }
  return correlations;
}

// The offsets [taps, 2] of the upper and the lower pixels of windows, in the halves of the source.
std::vector<int64_t> window_offsets(const Job& job, const WindowPlanes& windows) {
  std::vector<int64_t> offsets;
  offsets.reserve(static_cast<size_t>(2 * job.channels * job.rows.taps * job.columns.taps));
  for (const AxisTap& i : job.rows.outputs[0].taps) {
    const int64_t upper = windows.row_offset(i.shift), lower = windows.row_offset(i.shift + 1);
    for (int64_t c = 0; c < job.channels; ++c) {
      const int64_t row_plane = (c * job.rows.planes() + i.plane) * job.columns.planes();
      for (const AxisTap& j : job.columns.outputs[0].taps) {
        const int64_t place = (row_plane + j.plane) * windows.plane() + j.shift * windows.half;
        offsets.push_back(place + upper);
        offsets.push_back(place + lower);
      }
    }
  }
  return offsets;
}

// The weights of block b, counted through all groups, for each correlation.
template <class T>
void pack_block(T* packed, const T* weight, const std::vector<Correlation>& correlations, const Job& job,
                const Blocks& blocks, int64_t b) {
  const int64_t group = b / blocks.count, begin = blocks.begin(b % blocks.count);
  const int64_t size = blocks.begin(b % blocks.count + 1) - begin;
  for (const Correlation& correlation : correlations) {
    const int64_t taps = correlation.taps();
    kernels<T>().conv.pack_weight(packed + correlation.packed + (group * blocks.packed_outputs + begin) * taps,
                                  weight + group * job.weight.group_step + begin * job.weight.output_step,
                                  correlation.in_weight.data(), job.weight.output_step, size,
                                  blocks.packed_size(b % blocks.count), taps);
  }
}

}  // namespace

Job forward_job(const AxisPlan& rows, const AxisPlan& columns, const ConvShape& s) {
  const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
  const int64_t taps = s.rows.kernel * s.columns.kernel;
  return {rows,
          columns,
          s.images,
          s.groups,
          channels,
          outputs,
          s.rows.size,
          s.columns.size,
          s.rows.out,
          s.columns.out,
          {channels * taps, taps, s.columns.kernel, outputs * channels * taps}};
}

Job backward_job(const AxisPlan& rows, const AxisPlan& columns, const ConvShape& s) {
  Job job = forward_job(rows, columns, s);  // which reads what this one writes, and the other way round
  std::swap(job.channels, job.outputs);
  std::swap(job.height, job.y_height);
  std::swap(job.width, job.y_width);
  std::swap(job.weight.channel_step, job.weight.output_step);
  return job;
}

template <class T>
void correlate(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job) {
  if (job.images * job.groups * job.outputs * job.rows.most_outputs() * job.columns.most_outputs() == 0) return;
  const bool winograd = winograd_pays<T>(job);
  if constexpr (std::is_same_v<T, float>) {
    if (winograd ? conv_tiles_beat_winograd(job) : conv_tiles_pay(job)) {
      correlate_tiles(out, x, mask, weight, job);
      return;
    }
  }
  if (winograd) {
    correlate_winograd(out, x, mask, weight, job);
    return;
  }
  correlate_vectors(out, x, mask, weight, job);
}

template <class T>
void correlate_vectors(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  const int64_t most_rows = job.rows.most_outputs();
  const int64_t taps = job.channels * job.rows.taps * job.columns.taps;
  const int64_t work = job.images * job.groups * job.outputs * job.y_height * job.y_width * (taps + 1);
  const int64_t threads = work < kConvSerialWork ? 1 : num_threads();
  const int64_t all_channels = job.groups * job.channels;
  const int64_t bytes_per_row =
      all_channels * job.rows.planes() * job.columns.planes() * job.columns.length() * static_cast<int64_t>(sizeof(T));
  const int64_t window = out.pool ? 2 : 1;  // rows and columns of the convolution in one of y
  const int64_t y_height = job.y_height / window, y_width = job.y_width / window;
  const bool in_place = mask == nullptr && is_source(job.rows, job.height) && is_source(job.columns, job.width);
  const int64_t row_length = in_place ? job.width : job.columns.length();
  const Blocks blocks = choose_blocks<T>(job, row_length, taps, out.pool);
  const int64_t all_blocks = job.groups * blocks.count;
  const int64_t packed_size = job.groups * blocks.packed_outputs * taps;

  // Images fewer than threads are cut by outputs rather than by rows where weights are more than what is read: each
  // thread then packs its own weights, which stay in its cache.
  const int64_t source_size = in_place ? 0 : bytes_per_row * job.rows.length() / static_cast<int64_t>(sizeof(T));
  const bool by_outputs = job.images < threads && packed_size > source_size;
  const int64_t least_parts = by_outputs ? std::min(all_blocks, threads) : 1;
  const int64_t least_bands = threads == 1 ? 1 : ceil_div(4 * threads, job.images * least_parts);
  const Bands bands = choose_bands(most_rows, window, job.rows.halo, bytes_per_row, least_bands);
  const int64_t parts =
      threads == 1 ? 1 : std::min(all_blocks, std::max<int64_t>(least_parts, 2 * threads / (job.images * bands.count)));
  const Source source = in_place ? source_in_place(job.rows, job.columns, all_channels, job.height, job.width)
                                 : make_source(job.rows, job.columns, all_channels, job.height, job.width, bands);
  const bool in_windows = blocks.lanes_hold == ConvLanes::windows;
  const WindowPlanes windows(source, y_width, kernel.lanes);
  const int64_t source_planes = job.rows.planes() * job.columns.planes();  // of a channel
  // Elements behind the last one of a source, which vectors of pixels read too.
  const int64_t read_behind = blocks.outputs_in_lanes() ? 0 : in_windows ? 2 * kernel.lanes : kernel.lanes;
  const std::vector<Correlation> correlations = plan_correlations(job, source, blocks);
  const std::vector<int64_t> in_halves = in_windows ? window_offsets(job, windows) : std::vector<int64_t>();

  const arena::Buffer<T> packed(packed_size);
  const int64_t pack_parts = threads == 1 || packed_size < kSerialPack ? 1 : std::min(all_blocks, threads);
  parallel_for(pack_parts, [&](int64_t part) {
    for (int64_t b = all_blocks * part / pack_parts; b < all_blocks * (part + 1) / pack_parts; ++b) {
      pack_block(packed.get(), weight, correlations, job, blocks, b);
    }
  });

  // Small images: of longer ones the processor fetches most by itself.
  const int64_t image_size = all_channels * job.height * job.width;
  const bool fetch_ahead = bands.count * parts == 1 && image_size * static_cast<int64_t>(sizeof(T)) <= kMostAhead;
  const auto elements_behind = [&](int64_t image) { return (job.images - 1 - image) * image_size; };
  const auto task = [&](int64_t t) {
    const int64_t band = t % bands.count, part = t / bands.count % parts, image = t / bands.count / parts;
    const int64_t first_block = all_blocks * part / parts, end_block = all_blocks * (part + 1) / parts;
    const int64_t first_channel = first_block / blocks.count * job.channels;
    const int64_t end_channel = ceil_div(end_block, blocks.count) * job.channels;
    const int64_t first_row = band * bands.rows;
    const int64_t image_x = image * image_size;
    const int64_t part_size = (end_channel - first_channel) * source.channel();
    const T* planes = x + image_x + first_channel * source.channel() + first_row * source.row_length;
    if (!in_place) {
      T* copy = arena::scratch<T>(arena::Slot::tile, part_size + 2 * kernel.lanes);
      fill_source(copy, source, x + image_x, mask != nullptr ? mask + image_x : nullptr, first_channel,
                  end_channel - first_channel, first_row);
      planes = copy;
    } else if (elements_behind(image) < read_behind) {
      T* copy = arena::scratch<T>(arena::Slot::tile, part_size + read_behind);
      std::copy(planes, planes + part_size - first_row * source.row_length, copy);
      planes = copy;
    }
    const int64_t all_planes = (end_channel - first_channel) * source_planes;
    T* buffer = arena::scratch<T>(
        arena::Slot::columns,
        in_windows ? all_planes * windows.plane()
        : blocks.outputs_in_lanes()
            ? kernel.outputs_buffer
            : kernel.outputs * ((bands.rows + job.rows.halo) * (source.row_length + kernel.lanes) + kernel.lanes));
    if (in_windows) {
      const int64_t rows = std::min(bands.rows, most_rows - first_row) + job.rows.halo;
      for (int64_t p = 0; p < all_planes; ++p) {
        kernel.split_windows(buffer + p * windows.plane(), windows.half, planes + p * source.plane(), rows,
                             source.row_length, y_width, windows.shifts);
      }
    }
    for (const Correlation& correlation : correlations) {
      const int64_t row_count = std::min(bands.rows, correlation.rows->count - first_row);
      if (row_count <= 0 || correlation.columns->count == 0) continue;
      const int64_t count = correlation.taps();
      for (int64_t b = first_block; b < end_block; ++b) {
        const int64_t group = b / blocks.count, begin = blocks.begin(b % blocks.count);
        const int64_t size = blocks.begin(b % blocks.count + 1) - begin, output = group * job.outputs + begin;
        const int64_t to = ((image * job.groups * job.outputs + output) * y_height + correlation.rows->first +
                            first_row / window * correlation.rows->step) *
                               y_width +
                           correlation.columns->first;
        const ConvPixels pixels{row_count,          correlation.columns->count,       source.row_length,
                                y_height * y_width, correlation.rows->step * y_width, correlation.columns->step};
        const T* from = planes + (group * job.channels - first_channel) * source.channel();
        const T* block_weight = packed.get() + correlation.packed + (group * blocks.packed_outputs + begin) * count;
        const ConvEpilogue<T> epilogue{out.bias != nullptr ? out.bias + output : nullptr, out.relu, out.pool,
                                       out.indices != nullptr ? out.indices + to : nullptr};
        const int64_t* offsets = correlation.offsets.data();
        if (in_windows) {
          const T* halves = buffer + (group * job.channels - first_channel) * source_planes * windows.plane();
          const bool ahead = fetch_ahead && b == first_block && image + 1 < job.images;
          kernel.correlate_windows(out.y + to, y_height * y_width, row_count / 2 * y_width, halves, windows.half,
                                   in_halves.data(), block_weight, epilogue, size, count, x + image_x + image_size,
                                   ahead ? image_size : 0);
        } else if (blocks.outputs_in_lanes()) {
          kernel.correlate_outputs(out.y + to, pixels, from, offsets, correlation.row_taps.data() + 2 * first_row,
                                   block_weight, epilogue, size, buffer);
        } else {
          kernel.correlate(out.y + to, pixels, from, offsets, block_weight, epilogue, size, count, buffer);
        }
      }
    }
  };
  const int64_t tasks = job.images * bands.count * parts;
  parallel_for_if(threads > 1, tasks, task);
}

#define PYNN_INSTANTIATE(T)                                                                  \
  template void correlate(const CorrelateOut<T>&, const T*, const T*, const T*, const Job&); \
  template void correlate_vectors(const CorrelateOut<T>&, const T*, const T*, const T*, const Job&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
