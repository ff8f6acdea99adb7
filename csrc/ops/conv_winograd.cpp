#include "ops/conv_winograd.h"

#include <algorithm>

#include "ops/conv_source.h"
#include "ops/own_filters.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kPositions = 16, kTaps = 9;
constexpr int64_t kTaskBytes = int64_t(5) << 17;     // of the tiles of a task, which should stay in the L2 cache
constexpr int64_t kOwnTaskBytes = int64_t(1) << 18;  // the same where threads have outputs of their own
constexpr int64_t kLeastTiles = 64;                  // of a task all the same: each reads all filters
constexpr int64_t kPackedBytes = int64_t(1) << 14;   // of filters between packing and transform: the L1 cache
constexpr int64_t kLeastPacked = 4;                  // channels all the same
constexpr int64_t kOwnFilters = int64_t(1) << 16;    // elements that every thread transforms for itself
constexpr int64_t kSerialFilters = int64_t(1) << 9;  // filters that one thread transforms as quickly
constexpr int64_t kLeastOutputs = 8;                 // of a thread that has its own

// Cycles as measured: of a filter; of a vector of tiles of one channel, and of one output; of a tile of either, which
// memory takes; and what a product takes beside its channels.
constexpr double kFilterCycles = 12, kInputCycles = 60, kOutputCycles = 35, kReadCycles = 2.5, kWriteCycles = 1;
constexpr double kProductChannels = 5;

bool is_plain(const AxisPlan& plan) {
  return plan.taps == 3 && plan.step == 1 && plan.planes() == 1 && plan.outputs.size() == 1 && plan.halo == 2;
}

// What rows of tiles take in their transforms.
double transform_cycles(double rows, int64_t columns, int64_t lanes, double channels, double outputs) {
  return rows * static_cast<double>(ceil_div(columns, lanes)) * (kInputCycles * channels + kOutputCycles * outputs) +
         rows * static_cast<double>(columns) * (kReadCycles * channels + kWriteCycles * outputs);
}

// Whether each thread has all tiles for its own outputs, rather than its own rows of tiles for all outputs: it then
// transforms all pixels, but its own filters only.
bool cut_by_outputs(const Job& job, int64_t all_rows, int64_t columns, int64_t lanes, int64_t threads) {
  if (threads == 1 || job.groups > 1 || job.outputs < kLeastOutputs * threads) return false;
  const double channels = static_cast<double>(job.channels);
  const auto cycles = [&](int64_t rows, int64_t part_outputs) {
    const double outputs = static_cast<double>(part_outputs);
    return kFilterCycles * channels * outputs +
           transform_cycles(static_cast<double>(rows), columns, lanes, channels, outputs) +
           kPositions * (channels + kProductChannels) * outputs * static_cast<double>(ceil_div(rows * columns, lanes));
  };
  return cycles(all_rows, ceil_div(job.outputs, threads)) < cycles(ceil_div(all_rows, threads), job.outputs);
}

// Rows of tiles that a task works on: as many as fit into the cache, in whole vectors of tiles where that is possible,
// or as many tasks as divide among the threads where there are few.
int64_t choose_band(int64_t all_rows, int64_t columns, int64_t tiles, int64_t lanes, int64_t threads) {
  const int64_t most = std::min({all_rows, std::max<int64_t>(1, tiles / columns), ceil_div(all_rows, threads)});
  if (all_rows < 4 * threads * most) return ceil_div(all_rows, round_up(ceil_div(all_rows, most), threads));
  int64_t best = most;
  for (int64_t band = most - 1; 2 * band >= most; --band) {
    // Tiles / lanes used, of the best so far and of this one.
    if (band * round_up(best * columns, lanes) > best * round_up(band * columns, lanes)) best = band;
  }
  return best;
}

// u [groups][16, channels, outputs] of the channels begin..end-1, counted through all groups, a few at a time.
template <class T>
void transform_filters(T* u, const T* weight, const Job& job, int64_t begin, int64_t end) {
  const KernelTable<T>& table = kernels<T>();
  const int64_t channels = job.channels, outputs = job.outputs;
  int64_t taps[kTaps], places[kTaps];
  for (int64_t k = 0; k < kTaps; ++k) places[k] = k / 3 * job.weight.row_step + k % 3;
  for (const AxisTap& row : job.rows.outputs[0].taps) {
    for (const AxisTap& column : job.columns.outputs[0].taps) {
      taps[3 * row.shift + column.shift] = 3 * row.index + column.index;
    }
  }
  const int64_t bytes_of_channel = kTaps * outputs * static_cast<int64_t>(sizeof(T));
  const int64_t most = std::max(kLeastPacked, kPackedBytes / bytes_of_channel);
  T* packed = arena::scratch<T>(arena::Slot::partial, std::min(most, channels) * kTaps * outputs);
  for (int64_t at = begin; at < end;) {
    const int64_t group = at / channels, c = at % channels, count = std::min({end - at, channels - c, most});
    const T* from = weight + group * job.weight.group_step + c * job.weight.channel_step;
    if (job.weight.channel_step == kTaps) {  // the taps of all channels lie one after the other
      table.gemm.pack_rows(packed, from, job.weight.output_step, outputs, kTaps * count);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        table.conv.pack_weight(packed + i * kTaps * outputs, from + i * job.weight.channel_step, places,
                               job.weight.output_step, outputs, outputs, kTaps);
      }
    }
    table.winograd.filters(u + (group * kPositions * channels + c) * outputs, channels * outputs, packed, taps, count,
                           outputs);
    at += count;
  }
}

}  // namespace

// Decided without an odd last row or column, so that pooling, which leaves them out, comes to the same decision.
template <class T>
bool winograd_pays(const Job& job) {
  if (!is_plain(job.rows) || !is_plain(job.columns)) return false;
  const int64_t lanes = kernels<T>().winograd.lanes;
  const double channels = static_cast<double>(job.channels), outputs = static_cast<double>(job.outputs);
  const double rows = static_cast<double>(job.y_height / 2);
  const double vectors = rows * static_cast<double>(job.y_width / 2) / static_cast<double>(lanes);
  const double direct = 4 * kTaps * channels * outputs * vectors;
  const double products = kPositions * (channels + kProductChannels) * outputs * vectors;
  const double of_tiles = transform_cycles(rows, job.y_width / 2, lanes, channels, outputs);
  const double of_filters = kFilterCycles * channels * outputs / static_cast<double>(job.images);
  return 1.1 * (products + of_tiles + of_filters) < direct;
}

template <class T>
void correlate_winograd(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job) {
  static Counter path("conv2d.winograd");
  path.add();
  const KernelTable<T>& table = kernels<T>();
  const int64_t lanes = table.winograd.lanes, channels = job.channels, outputs = job.outputs;
  const int64_t tile_rows = ceil_div(job.y_height, 2), tile_columns = ceil_div(job.y_width, 2);
  const int64_t all_channels = job.groups * channels, all_rows = job.images * tile_rows,
                filter_size = channels * outputs;
  const int64_t work = job.groups * all_rows * tile_columns * 4 * filter_size * kTaps;  // of the convolution as such
  const int64_t threads = work < kConvSerialWork ? 1 : num_threads();
  const int64_t window = out.pool ? 2 : 1;  // rows and columns of the convolution in one of y
  const int64_t y_height = job.y_height / window, y_width = job.y_width / window;
  const bool in_place = mask == nullptr && is_source(job.rows, job.height) && is_source(job.columns, job.width) &&
                        job.y_height % 2 == 0 && job.y_width % 2 == 0;

  const bool by_outputs = cut_by_outputs(job, all_rows, tile_columns, lanes, threads);
  const int64_t parts = by_outputs ? threads : 1, part_outputs = ceil_div(outputs, parts);
  const int64_t bytes_per_tile = kPositions * (channels + part_outputs) * static_cast<int64_t>(sizeof(T));
  const int64_t most_tiles = std::max(kLeastTiles, (by_outputs ? kOwnTaskBytes : kTaskBytes) / bytes_per_tile);
  const int64_t band = choose_band(all_rows, tile_columns, most_tiles, lanes, by_outputs ? 1 : threads);
  const int64_t bands = ceil_div(all_rows, band);
  // Of the tiles of a task, [position][channel][tile], positions a vector more apart than they need: 16 places to write
  // to whose distance is a power of two would fall on one set of the L1 cache.
  const int64_t row = round_up(band * tile_columns, lanes) + lanes;
  const int64_t in_position = channels * row + lanes, out_position = part_outputs * row + lanes;
  const int64_t plane_columns = 2 * tile_columns + 2;

  // A thread's own outputs, or small filters, are transformed by each thread for itself, before its first task: to
  // fetch them from another core's cache takes several times as long.
  const bool own_filters = threads > 1 && (by_outputs || job.groups * kPositions * filter_size <= kOwnFilters);
  const OwnFilters own(arena::Slot::columns);
  const arena::Buffer<T> shared_filters(own_filters ? 0 : job.groups * kPositions * filter_size);
  if (!own_filters) {
    const int64_t filter_parts = all_channels * outputs < kSerialFilters ? 1 : std::min(all_channels, threads);
    parallel_for(filter_parts, [&](int64_t part) {
      const int64_t begin = all_channels * part / filter_parts, end = all_channels * (part + 1) / filter_parts;
      transform_filters(shared_filters.get(), weight, job, begin, end);
    });
  }
  const auto filters_of_this_thread = [&](int64_t first_output, int64_t count) {
    return own.get<T>(first_output, job.groups * kPositions * channels * count, [&](T* filters) {
      Job slice = job;
      slice.outputs = count;
      transform_filters(filters, weight + first_output * job.weight.output_step, slice, int64_t(0), all_channels);
    });
  };

  const auto task = [&](int64_t t) {
    const int64_t begin = t % bands * band, end = std::min(all_rows, begin + band);
    const int64_t part = t / bands % parts, group = t / bands / parts;
    const int64_t first_output = outputs * part / parts, count = outputs * (part + 1) / parts - first_output;
    T* in = arena::scratch<T>(arena::Slot::pack_a, kPositions * in_position);
    T* sums = arena::scratch<T>(arena::Slot::pack_b, kPositions * out_position);
    T* plane = arena::scratch<T>(arena::Slot::tile, (2 * band + 2) * plane_columns + lanes);
    const T* filters = (own_filters ? filters_of_this_thread(first_output, count) : shared_filters.get()) +
                       group * kPositions * channels * count;
    // What the task has of each image: fn(image, its first row of tiles, rows, first tile of the task)
    const auto for_images = [&](auto fn) {
      for (int64_t r = begin; r < end;) {
        const int64_t first = r % tile_rows, rows = std::min(end - r, tile_rows - first);
        fn(r / tile_rows, first, rows, (r - begin) * tile_columns);
        r += rows;
      }
    };
    for_images([&](int64_t image, int64_t first, int64_t rows, int64_t tile) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = ((image * job.groups + group) * channels + c) * job.height * job.width;
        const T* from = x + at + 2 * first * job.width;
        if (!in_place) {
          const ConvWindow window_of_x{job.height,           job.width, job.rows.first[0] + 2 * first,
                                       job.columns.first[0], 1,         1};
          table.conv.copy_window(plane, 2 * rows + 2, plane_columns, x + at, mask != nullptr ? mask + at : nullptr,
                                 window_of_x);
          from = plane;
        }
        table.winograd.input(in + c * row + tile, in_position, from, in_place ? job.width : plane_columns, rows,
                             tile_columns);
      }
    });
    const int64_t of_group = group * outputs + first_output;
    for (int64_t p = 0; p < kPositions; ++p) {
      GemmEpilogue<T> epilogue;
      if (p == table.winograd.bias_position && out.bias != nullptr) epilogue.row_bias = out.bias + of_group;
      table.gemm.block(sums + p * out_position, row, filters + p * channels * count, count, true,
                       {in + p * in_position, row, table.gemm.nr}, epilogue, count, (end - begin) * tile_columns,
                       channels);
    }
    for_images([&](int64_t image, int64_t first, int64_t rows, int64_t tile) {
      const int64_t height = std::min(2 * rows, job.y_height - 2 * first);
      // Windows lie one behind the other, as tiles do: all rows are one.
      const ConvPixels pixels = out.pool ? ConvPixels{2, 2 * rows * tile_columns, 0, 0, rows * tile_columns, 1}
                                         : ConvPixels{height, job.y_width, 0, 0, y_width, 1};
      for (int64_t o = 0; o < count; ++o) {
        const int64_t to = ((image * job.groups * outputs + of_group + o) * y_height + 2 * first / window) * y_width;
        table.winograd.output(out.y + to, pixels, sums + o * row + tile, out_position,
                              {nullptr, out.relu, out.pool, out.indices != nullptr ? out.indices + to : nullptr});
      }
    });
  };
  parallel_for_if(threads > 1, bands * parts * job.groups, task);
}

#define PYNN_INSTANTIATE(T)                   \
  template bool winograd_pays<T>(const Job&); \
  template void correlate_winograd(const CorrelateOut<T>&, const T*, const T*, const T*, const Job&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
