#include "ops/conv.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/conv_plan.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kSerialWork = int64_t(1) << 19;  // multiply-adds below which a second thread costs more than it gives
constexpr int64_t kSourceBytes = int64_t(1) << 19;  // of a band's source, which should stay in the second cache
constexpr int64_t kPartialBytes = int64_t(1) << 24;
constexpr int64_t kMostChunks = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Images are worked on in bands of output rows, so that what a band reads stays in the cache.
struct Bands {
  int64_t rows, count;
};

Bands choose_bands(int64_t rows, int64_t halo, int64_t bytes_per_row, int64_t least_count) {
  const int64_t fits = kSourceBytes / std::max<int64_t>(1, bytes_per_row) - halo;
  const int64_t least_rows = std::min(rows, std::max<int64_t>(4, 2 * halo));  // or most of a band is its halo
  const int64_t most_rows = std::max(least_rows, std::min(fits, ceil_div(rows, std::max<int64_t>(1, least_count))));
  const int64_t count = ceil_div(rows, most_rows);
  const int64_t even = ceil_div(rows, count);
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

Source make_source(const AxisPlan& rows, const AxisPlan& columns, int64_t channels, int64_t height, int64_t width,
                   const Bands& bands) {
  return {&rows, &columns, channels, height, width, bands.rows + rows.halo, columns.length()};
}

// Channels first .. first + count - 1 of x [channels, height, width], for the output rows from `row` on.
template <class T>
void fill_source(T* source, const Source& s, const T* x, int64_t first, int64_t count, int64_t row) {
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
        kernel.copy_window(source, s.band_rows, s.row_length, x + c * s.height * s.width, window);
      }
    }
  }
  std::fill(source, source + kernel.lanes, T(0));
}

// How a weight is indexed by the outputs of a group and by the taps (channel, row tap, column tap) that they sum.
struct WeightIndex {
  int64_t output_step, channel_step, row_step;  // in elements; neighbouring columns are neighbours
  int64_t group_step;
};

// One correlation per pair of output phases of the axes.
struct Correlation {
  const AxisOutputs *rows, *columns;
  std::vector<int64_t> offsets;  // [taps] into the source
  int64_t packed;                // its place in the packed weights
};

// y [images, groups * outputs, y_height, y_width] from x [images, groups * channels, height, width]
struct Job {
  const AxisPlan &rows, &columns;
  int64_t images, groups, channels, outputs;  // of one group
  int64_t height, width, y_height, y_width;
  WeightIndex weight;
};

template <class T>
void correlate(T* y, const T* x, const T* weight, const T* bias, const Job& job) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  const int64_t most_rows = job.rows.most_outputs();
  if (job.images * job.groups * job.outputs * most_rows * job.columns.most_outputs() == 0) return;

  const int64_t taps = job.channels * job.rows.taps * job.columns.taps;
  const int64_t work = job.images * job.groups * job.outputs * job.y_height * job.y_width * (taps + 1);
  const int64_t threads = work < kSerialWork ? 1 : num_threads();
  const int64_t all_channels = job.groups * job.channels;
  const int64_t bytes_per_row =
      all_channels * job.rows.planes() * job.columns.planes() * job.columns.length() * static_cast<int64_t>(sizeof(T));
  const int64_t least_bands = threads == 1 ? 1 : ceil_div(4 * threads, job.images);
  const Bands bands = choose_bands(most_rows, job.rows.halo, bytes_per_row, least_bands);
  const Source source = make_source(job.rows, job.columns, all_channels, job.height, job.width, bands);

  const int64_t blocks = ceil_div(job.outputs, kernel.outputs);
  const arena::Buffer<T> packed(job.groups * job.outputs * taps);
  std::vector<Correlation> correlations;
  int64_t place = 0;
  for (const AxisOutputs& row : job.rows.outputs) {
    for (const AxisOutputs& column : job.columns.outputs) {
      Correlation correlation{&row, &column, {}, place};
      std::vector<int64_t> in_weight;
      for (int64_t c = 0; c < job.channels; ++c) {
        for (const AxisTap& i : row.taps) {
          for (const AxisTap& j : column.taps) {
            correlation.offsets.push_back(source.offset(c, i, j));
            in_weight.push_back(c * job.weight.channel_step + i.index * job.weight.row_step + j.index);
          }
        }
      }
      const int64_t count = static_cast<int64_t>(in_weight.size());
      for (int64_t b = 0; b < job.groups * blocks; ++b) {
        const int64_t group = b / blocks, begin = job.outputs * (b % blocks) / blocks;
        const int64_t end = job.outputs * (b % blocks + 1) / blocks;
        kernel.pack_weight(packed.get() + place + (group * job.outputs + begin) * count,
                           weight + group * job.weight.group_step + begin * job.weight.output_step, in_weight.data(),
                           job.weight.output_step, end - begin, count);
      }
      place += job.groups * job.outputs * count;
      correlations.push_back(std::move(correlation));
    }
  }

  // Few images: the threads share the blocks of outputs of a band as well.
  const int64_t parts =
      threads == 1 ? 1 : std::min(job.groups * blocks, std::max<int64_t>(1, 2 * threads / (job.images * bands.count)));
  const auto task = [&](int64_t t) {
    const int64_t part = t % parts, band = t / parts % bands.count, image = t / parts / bands.count;
    const int64_t first_block = job.groups * blocks * part / parts;
    const int64_t end_block = job.groups * blocks * (part + 1) / parts;
    const int64_t first_channel = first_block / blocks * job.channels;
    const int64_t end_channel = ceil_div(end_block, blocks) * job.channels;
    const int64_t first_row = band * bands.rows;
    T* planes = arena::scratch<T>(arena::Slot::tile, (end_channel - first_channel) * source.channel() + kernel.lanes);
    T* buffer = arena::scratch<T>(arena::Slot::columns, kernel.outputs * (source.plane() + kernel.lanes));
    fill_source(planes, source, x + image * all_channels * job.height * job.width, first_channel,
                end_channel - first_channel, first_row);
    for (const Correlation& correlation : correlations) {
      const int64_t row_count = std::min(bands.rows, correlation.rows->count - first_row);
      if (row_count <= 0 || correlation.columns->count == 0) continue;
      const int64_t count = static_cast<int64_t>(correlation.offsets.size());
      for (int64_t b = first_block; b < end_block; ++b) {
        const int64_t group = b / blocks, begin = job.outputs * (b % blocks) / blocks;
        const int64_t end = job.outputs * (b % blocks + 1) / blocks;
        const int64_t output = group * job.outputs + begin;
        T* to = y +
                ((image * job.groups * job.outputs + output) * job.y_height + correlation.rows->first +
                 first_row * correlation.rows->step) *
                    job.y_width +
                correlation.columns->first;
        kernel.correlate(to,
                         {row_count, correlation.columns->count, source.row_length, job.y_height * job.y_width,
                          correlation.rows->step * job.y_width, correlation.columns->step},
                         planes + group * job.channels * source.channel() - first_channel * source.channel(),
                         correlation.offsets.data(), packed.get() + correlation.packed + output * count,
                         bias != nullptr ? bias + output : nullptr, end - begin, count, buffer);
      }
    }
  };
  const int64_t tasks = job.images * bands.count * parts;
  if (threads == 1) {
    for (int64_t t = 0; t < tasks; ++t) task(t);
  } else {
    parallel_for(tasks, task);
  }
}

// dweight and dbias: sums over all pixels of all images, taken in chunks whose number the shape alone decides.
template <class T>
void backward_weight(T* dweight, T* dbias, const T* dy, const T* x, const ConvShape& s) {
  const ConvKernels<T>& kernel = kernels<T>().conv;
  const AxisPlan rows = forward_plan(s.rows), columns = forward_plan(s.columns);
  const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
  const int64_t taps = channels * s.rows.kernel * s.columns.kernel;
  const int64_t bytes_per_row =
      s.channels * rows.planes() * columns.planes() * columns.length() * static_cast<int64_t>(sizeof(T));
  const Bands bands = choose_bands(s.rows.out, rows.halo, bytes_per_row, 1);
  const Source source = make_source(rows, columns, s.channels, s.rows.size, s.columns.size, bands);
  const int64_t row_length = source.row_length;
  const int64_t source_image = round_up(s.channels * source.channel() + kernel.lanes, kernel.lanes);
  const int64_t dy_plane = round_up(bands.rows * row_length, kernel.lanes), dy_image = s.outputs * dy_plane;

  // Small images go in groups, so that the sum over the lanes is rare beside the sum over the pixels.
  const int64_t group_images = bands.count > 1 ? 1 : std::max<int64_t>(1, std::min(s.images, 1024 / dy_plane));
  const int64_t units = ceil_div(s.images, group_images) * bands.count;
  const int64_t size = s.outputs * taps + s.outputs;  // dweight, dbias
  const int64_t chunks = std::max<int64_t>(
      1, std::min({units, kMostChunks, kPartialBytes / std::max<int64_t>(1, size * static_cast<int64_t>(sizeof(T)))}));
  const int64_t work = s.images * s.outputs * s.rows.out * s.columns.out * (taps + 1);
  const int64_t threads = work < kSerialWork ? 1 : num_threads();
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
    std::fill(sums + first * taps, sums + end * taps, T(0));
    std::fill(bias_sums + first, bias_sums + end, T(0));
    const int64_t first_channel = first / outputs * channels, end_channel = ((end - 1) / outputs + 1) * channels;
    T* planes = arena::scratch<T>(arena::Slot::tile, group_images * source_image);
    T* gradients = arena::scratch<T>(arena::Slot::columns, group_images * dy_image);
    for (int64_t unit = units * chunk / chunks; unit < units * (chunk + 1) / chunks; ++unit) {
      const int64_t image = unit / bands.count * group_images, first_row = unit % bands.count * bands.rows;
      const int64_t images = std::min(group_images, s.images - image);
      const int64_t row_count = std::min(bands.rows, s.rows.out - first_row);
      for (int64_t n = 0; n < images; ++n) {
        const T* image_dy = dy + (image + n) * s.outputs * s.rows.out * s.columns.out;
        for (int64_t o = first; o < end; ++o) {
          const T* plane = image_dy + o * s.rows.out * s.columns.out;
          if (dbias != nullptr) {
            kernel.add_row_sums(bias_sums + o, plane + first_row * s.columns.out, 1, row_count * s.columns.out);
          }
          if (dweight == nullptr) continue;
          // The columns behind an image's are 0, so that the pixels that stand there in the source add nothing.
          T* to = gradients + n * dy_image + o * dy_plane;
          kernel.copy_window(to, bands.rows, row_length, plane, {s.rows.out, s.columns.out, first_row, 0, 1, 1});
          std::fill(to + bands.rows * row_length, to + dy_plane, T(0));
        }
        if (dweight == nullptr) continue;
        fill_source(planes + n * source_image, source, x + (image + n) * s.channels * s.rows.size * s.columns.size,
                    first_channel, end_channel - first_channel, first_row);
      }
      if (dweight == nullptr) continue;
      const int64_t pixels = round_up((row_count - 1) * row_length + s.columns.out, kernel.lanes);
      for (int64_t o = first; o < end;) {
        const int64_t group = o / outputs, count = std::min(end, (group + 1) * outputs) - o;
        kernel.dweight(sums + o * taps, gradients + o * dy_plane, dy_plane, dy_image,
                       planes + (group * channels - first_channel) * source.channel(), source_image, offsets.data(),
                       count, taps, pixels, images);
        o += count;
      }
    }
  };
  if (threads == 1) {
    for (int64_t t = 0; t < chunks * parts; ++t) task(t);
  } else {
    parallel_for(chunks * parts, task);
  }
  const auto add_chunks = [&](T* sum, const T* first_chunk, int64_t count) {
    if (sum == nullptr) return;
    parallel_ranges(count, 4096, [&](int64_t begin, int64_t end) {
      kernels<T>().gemm.column_sums(sum + begin, first_chunk + begin, size, chunks, end - begin);
    });
  };
  add_chunks(dweight, partial.get(), s.outputs * taps);
  add_chunks(dbias, partial.get() + s.outputs * taps, s.outputs);
}

}  // namespace

template <class T>
void conv2d(T* y, const T* x, const T* weight, const T* bias, const ConvShape& s) {
  static Counter path("conv2d.direct");
  path.add();
  const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
  const int64_t kernel_size = s.rows.kernel * s.columns.kernel;
  const AxisPlan rows = forward_plan(s.rows), columns = forward_plan(s.columns);
  correlate(y, x, weight, bias,
            Job{rows,
                columns,
                s.images,
                s.groups,
                channels,
                outputs,
                s.rows.size,
                s.columns.size,
                s.rows.out,
                s.columns.out,
                {channels * kernel_size, kernel_size, s.columns.kernel, outputs * channels * kernel_size}});
}

template <class T>
void conv2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const ConvShape& s) {
  static Counter data_path("conv2d_backward.data"), weight_path("conv2d_backward.weight");
  if (dx != nullptr) {
    data_path.add();
    const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
    const int64_t kernel_size = s.rows.kernel * s.columns.kernel;
    const AxisPlan rows = backward_plan(s.rows), columns = backward_plan(s.columns);
    correlate(dx, dy, weight, static_cast<const T*>(nullptr),
              Job{rows,
                  columns,
                  s.images,
                  s.groups,
                  outputs,
                  channels,
                  s.rows.out,
                  s.columns.out,
                  s.rows.size,
                  s.columns.size,
                  {kernel_size, channels * kernel_size, s.columns.kernel, outputs * channels * kernel_size}});
  }
  if (dweight != nullptr || dbias != nullptr) {
    weight_path.add();
    backward_weight(dweight, dbias, dy, x, s);
  }
}

#define PYNN_INSTANTIATE(T)                                                 \
  template void conv2d(T*, const T*, const T*, const T*, const ConvShape&); \
  template void conv2d_backward(T*, T*, T*, const T*, const T*, const T*, const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
