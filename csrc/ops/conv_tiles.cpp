#include "ops/conv_tiles.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <vector>

#include "ops/conv_source.h"
#include "ops/own_filters.h"
#include "ops/tiles.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/cpu.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kPairsOfTile = kSplitDepth / 2;
constexpr int64_t kVector = 16;
constexpr int64_t kWritten = 128;                  // pixels that are written to y at a time
constexpr int64_t kOwnFilters = int64_t(1) << 16;  // elements that every thread splits for itself
constexpr int64_t kMostFilters = std::numeric_limits<int32_t>::max() / 16;  // elements: places in them are 32 bits

// Cycles, fitted to 1,020 convolutions: of a product of tiles; of 16 numbers of two channels that are split and turned;
// of a line that is placed, and read from the L2 cache; of 16 sums that are written; of 16 pairs of a filter. Those
// of vectors: of a multiply-add, and of an element of a filter.
constexpr double kProductCycles = 16, kSplitCycles = 38, kPlaceCycles = 6, kWriteCycles = 20, kFilterCycles = 44,
                 kVectorMultiplyCycles = 1 / 22.5, kVectorFilterCycles = 2.9;
constexpr double kUsualThreads = 2;  // that share all but filters; not those that run, so that the shape alone decides
constexpr double kMargin = 1.15;     // by which tiles must be quicker
constexpr double kPlacedMargin = 1.4;   // and those that are placed, whose cost varies more
constexpr int64_t kLeastChannels = 8;   // fewer do not fill tiles
constexpr int64_t kLeastPositions = 4;  // of a tile, for fewer take nearly as long: where Winograd is the other way
// Of a part of a band, as `choose_cut` makes bands where the L2 cache has 2 MB; and of two rows of outputs, beyond
// which lines that are placed come from behind that cache, and take twice as long.
constexpr int64_t kBandSize = (int64_t(1) << 19) / (kSplitParts * int64_t(sizeof(uint32_t)));
constexpr int64_t kMostPlaced = 2 * kBandSize;

// Where the taps of an axis read that are neighbours: position u * step + i for output u and tap taps[i].
struct Neighbours {
  int64_t first = 0;
  std::vector<int64_t> taps;  // in the weight; none if they are no neighbours

  explicit Neighbours(const AxisPlan& plan) {
    if (plan.outputs.size() != 1) return;
    const std::vector<AxisTap>& of_plan = plan.outputs[0].taps;
    const auto place = [&](const AxisTap& tap) {
      return plan.first[static_cast<size_t>(tap.plane)] + tap.shift * plan.step;
    };
    for (const AxisTap& tap : of_plan) {
      const int64_t at = place(tap);
      if (taps.empty() || at < first) first = at;
      taps.push_back(tap.index);
    }
    const int64_t count = static_cast<int64_t>(of_plan.size());
    for (const AxisTap& tap : of_plan) {
      const int64_t at = place(tap) - first;
      if (at >= count) {
        taps.clear();
        return;
      }
      taps[static_cast<size_t>(at)] = tap.index;
    }
  }

  int64_t count() const { return static_cast<int64_t>(taps.size()); }
};

// How the work is cut: bands of rows of outputs, and parts of the blocks of outputs.
struct Cut {
  int64_t rows, parts;
};

struct Sizes {
  Neighbours rows, columns;
  int64_t pairs, row_steps, steps;  // of a row of the filter, of all
  int64_t pixels;                   // of a row that is read
  int64_t stride, odd_rows;
  int64_t tiles, positions;         // of a row of outputs, of a tile
  bool placed;                      // each position has lines of its own
  int64_t row_size, position_step;  // of what tiles are loaded from

  explicit Sizes(const Job& job)
      : rows(job.rows),
        columns(job.columns),
        pairs(ceil_div(job.channels, 2)),
        row_steps(ceil_div(columns.count() * pairs, kPairsOfTile)),
        steps(rows.count() * row_steps),
        // With what pooling leaves out, so that it comes to the same decision about numbers that are not finite.
        pixels((job.y_width + job.odd_columns - 1) * job.columns.step + columns.count()),
        stride(job.rows.step),
        odd_rows(job.odd_rows),
        tiles(ceil_div(job.y_width, kSplitTile)),
        positions(ceil_div(job.y_width, tiles)) {
    if (job.y_width % 2 == 0) positions += positions % 2;
    placed = job.columns.step * pairs % kPairsOfTile != 0;
    position_step = placed ? row_steps * kPairsOfTile : job.columns.step * pairs;
    row_size = round_up(placed ? job.y_width * position_step : pixels * pairs, kPairsOfTile);
  }

  int64_t rows_read(int64_t rows_of_y) const { return (rows_of_y + odd_rows - 1) * stride + rows.count(); }
  int64_t part_step(int64_t rows_of_y) const {
    return rows_read(rows_of_y) * row_size + round_up((kVector + 1) * pairs, kPairsOfTile) + kPairsOfTile;
  }
  // Of parts of so many rows that are not placed yet.
  int64_t source_step(int64_t rows) const { return (rows * pixels + kVector + 1) * pairs + 2 * kPairsOfTile; }
};

// Of a task, whose filters are split already.
double task_cycles(const Job& job, const Sizes& size, const Cut& cut) {
  const double output_tiles = static_cast<double>(ceil_div(ceil_div(job.outputs, kSplitTile), cut.parts));
  const double products = static_cast<double>(round_up(cut.rows, 2) * size.tiles * size.steps * 6) * output_tiles;
  const double of_image = static_cast<double>(size.rows_read(cut.rows) * ceil_div(size.pixels, kVector) * size.pairs);
  const double placed =
      size.placed ? static_cast<double>(kSplitParts * size.rows_read(cut.rows) * job.y_width * size.row_steps) : 0;
  const double written = static_cast<double>(cut.rows * job.y_width) * output_tiles;
  return products * kProductCycles + of_image * kSplitCycles + placed * kPlaceCycles + written * kWriteCycles;
}

double filter_cycles(const Job& job, const Sizes& size, const Cut& cut) {
  return static_cast<double>(ceil_div(ceil_div(job.outputs, kSplitTile), cut.parts) * kSplitTile * size.steps) *
         kFilterCycles;
}

// What the thread with most to do takes.
double cycles(const Job& job, const Sizes& size, const Cut& cut, int64_t threads) {
  const int64_t tasks = job.images * ceil_div(job.y_height, cut.rows) * cut.parts;
  return static_cast<double>(ceil_div(tasks, threads)) * task_cycles(job, size, cut) + filter_cycles(job, size, cut);
}

Cut choose_cut(const Job& job, const Sizes& size, int64_t threads) {
  const int64_t most = l2_cache_bytes() / 4 / static_cast<int64_t>(kSplitParts * sizeof(uint32_t));
  const int64_t blocks = ceil_div(job.outputs, kSplitTile);
  const int64_t most_bands = ceil_div(job.y_height, 2);
  Cut best{std::min<int64_t>(2, job.y_height), 1};
  double least = std::numeric_limits<double>::infinity();
  for (int64_t bands = 1; bands <= most_bands; ++bands) {
    const int64_t rows = std::min(job.y_height, round_up(ceil_div(job.y_height, bands), 2));
    const bool fits = size.part_step(rows) <= most;
    if (!fits && bands < most_bands) continue;
    for (int64_t parts = 1; parts <= std::min(blocks, threads); ++parts) {
      const double these = cycles(job, size, {rows, parts}, threads);
      if (these < least) {
        least = these;
        best = {rows, parts};
      }
    }
    if (fits && job.images * bands >= 4 * threads) break;
  }
  return best;
}

// The bands of a processor with an L2 cache of 2 MB, so that the shape alone decides.
Cut usual_cut(const Job& job, const Sizes& size) {
  const int64_t rows_read = kBandSize / size.row_size;
  const int64_t most = std::max<int64_t>(2, (rows_read - size.rows.count()) / size.stride - size.odd_rows + 1);
  const int64_t bands = ceil_div(job.y_height, most);
  return {round_up(ceil_div(job.y_height, bands), 2), 1};
}

// [steps][32], see pack_filters
std::vector<int32_t> filter_places(const Job& job, const Sizes& size) {
  std::vector<int32_t> places(static_cast<size_t>(size.steps * kSplitDepth), -1);
  for (int64_t i = 0; i < size.rows.count(); ++i) {
    size_t at = static_cast<size_t>(i * size.row_steps * kSplitDepth);
    for (const int64_t column : size.columns.taps) {
      const int64_t tap = size.rows.taps[static_cast<size_t>(i)] * job.weight.row_step + column;
      for (int64_t c = 0; c < 2 * size.pairs; ++c, ++at) {
        if (c < job.channels) places[at] = static_cast<int32_t>(tap + c * job.weight.channel_step);
      }
    }
  }
  return places;
}

// Of tiles of A in the parts of an image.
std::vector<int64_t> step_offsets(const Sizes& size) {
  std::vector<int64_t> offsets;
  for (int64_t i = 0; i < size.rows.count(); ++i) {
    for (int64_t j = 0; j < size.row_steps; ++j) offsets.push_back(i * size.row_size + j * kPairsOfTile);
  }
  return offsets;
}

// What pooling leaves out of y is left out of decisions, so that it comes to the same ones.
Job without_odd(const Job& job) {
  Job even = job;
  even.odd_rows += job.y_height % 2;
  even.odd_columns += job.y_width % 2;
  even.y_height -= job.y_height % 2;
  even.y_width -= job.y_width % 2;
  return even;
}

void keep_largest(std::atomic<uint32_t>& largest, uint32_t value) {
  uint32_t before = largest.load(std::memory_order_relaxed);
  while (before < value && !largest.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
  }
}

}  // namespace

bool can_use_conv_tiles(const Job& job) {
  return job.groups == 1 && job.outputs * job.channels * job.rows.taps * job.columns.taps <= kMostFilters &&
         Neighbours(job.rows).count() > 0 && Neighbours(job.columns).count() > 0;
}

bool conv_tiles_pay(const Job& job) {
  if (kernels<float>().conv_tiles.block == nullptr || job.channels < kLeastChannels || !can_use_conv_tiles(job))
    return false;
  const Job even = without_odd(job);
  if (even.y_height == 0 || even.y_width == 0) return false;
  const Sizes size(even);
  if (size.placed && size.part_step(2) > kMostPlaced) return false;
  const Cut cut = usual_cut(even, size);
  const double of_tiles = static_cast<double>(even.images * even.y_height) / static_cast<double>(cut.rows) *
                              task_cycles(even, size, cut) / kUsualThreads +
                          filter_cycles(even, size, cut);
  int64_t rows = 0;  // of the filter, for all rows of y: vectors of outputs leave out those on padding
  for (int64_t u = 0; u < even.y_height; ++u) {
    const auto [begin, end] = taps_inside(job.rows, job.rows.outputs[0], u, job.height);
    rows += end - begin;
  }
  const double filter = static_cast<double>(job.outputs * job.channels * job.columns.taps);  // of a row
  const double of_vectors =
      static_cast<double>(even.images * rows * even.y_width) * filter * kVectorMultiplyCycles / kUsualThreads +
      static_cast<double>(job.rows.taps) * filter * kVectorFilterCycles;
  return (size.placed ? kPlacedMargin : kMargin) * of_tiles < of_vectors;
}

bool conv_tiles_beat_winograd(const Job& job) {
  if (kernels<float>().conv_tiles.block == nullptr || job.channels < kLeastChannels || !can_use_conv_tiles(job))
    return false;
  const Sizes size(without_odd(job));
  return !size.placed && size.part_step(2) <= kMostPlaced && size.positions >= kLeastPositions &&
         4 * job.outputs >= 3 * round_up(job.outputs, kSplitTile);
}

void correlate_tiles(const CorrelateOut<float>& out, const float* x, const float* mask, const float* weight,
                     const Job& job) {
  static Counter path("conv2d.tiles");
  path.add();
  const ConvTilesKernels<float>& kernel = kernels<float>().conv_tiles;
  const Sizes size(job);
  const int64_t window = out.pool ? 2 : 1;
  const int64_t y_width = job.y_width / window, y_plane = job.y_height / window * y_width;
  const int64_t filter_size = job.outputs * job.channels * size.rows.count() * size.columns.count();
  const int64_t threads = job.images * job.y_height * job.y_width * filter_size < kConvSerialWork ? 1 : num_threads();
  const Cut cut = choose_cut(job, size, threads);
  const int64_t bands = ceil_div(job.y_height, cut.rows), blocks = ceil_div(job.outputs, kSplitTile);
  const int64_t part_step = size.part_step(cut.rows), row_size = size.row_size;
  const int64_t tile_column = size.steps * kSplitTileSize;  // of filters
  const std::vector<int32_t> places = filter_places(job, size);
  const std::vector<int64_t> offsets = step_offsets(size);
  // Of x, what is read.
  const int64_t bottom = std::min(job.height, size.rows.first + size.rows_read(job.y_height));
  const int64_t right = std::min(job.width, size.columns.first + size.pixels);

  const std::unique_ptr<std::atomic<uint32_t>[]> largest(new std::atomic<uint32_t>[static_cast<size_t>(job.images)]());
  std::atomic<uint32_t> largest_weight{0};
  const auto pack = [&](uint16_t* to, int64_t first, int64_t count) {
    const float* from = weight + first * job.weight.output_step;
    keep_largest(largest_weight,
                 kernel.pack_filters(to, from, places.data(), job.weight.output_step, count, size.steps));
  };
  // To fetch what another core has written takes longer than to split few filters anew.
  const bool own_filters = threads == 1 || cut.parts > 1 || filter_size <= kOwnFilters;
  const OwnFilters own(arena::Slot::split_b);
  const arena::Buffer<uint16_t> shared(own_filters ? 0 : ceil_div(job.outputs, kSplitTile) * tile_column);
  if (!own_filters) {
    parallel_for(blocks, [&](int64_t b) {
      const int64_t first = b * kSplitTile;
      pack(shared.get() + first / kSplitTile * tile_column, first, std::min(kSplitTile, job.outputs - first));
    });
  }
  const auto filters_of = [&](int64_t first, int64_t end) -> const uint16_t* {
    if (!own_filters) return shared.get() + first / kSplitTile * tile_column;
    return own.get<uint16_t>(first, ceil_div(end - first, kSplitTile) * tile_column,
                             [&](uint16_t* filters) { pack(filters, first, end - first); });
  };

  // Images without padding are split in one run, others row by row.
  const bool one_run = size.columns.first == 0 && size.pixels == job.width && right == job.width &&
                       size.rows.first == 0 && bottom == size.rows_read(job.y_height) &&
                       (size.placed || row_size == size.pixels * size.pairs);
  const auto split_image = [&](uint32_t* to, int64_t image, int64_t first_row, int64_t rows) {
    const int64_t rows_read = size.rows_read(rows), first_read = size.rows.first + first_row * size.stride;
    const int64_t source_step = size.placed ? size.source_step(rows_read) : part_step;
    const int64_t source_row = size.placed ? size.pixels * size.pairs : row_size;
    uint32_t* const source = size.placed ? arena::scratch<uint32_t>(arena::Slot::tile, kSplitParts * source_step) : to;
    ConvTileRow row{source_step, job.height * job.width, job.channels, size.columns.first, right, size.pixels,
                    job.width};
    const float* const of_image = x + image * job.channels * job.height * job.width;
    const float* const of_mask = mask == nullptr ? nullptr : mask + (of_image - x);
    const auto split = [&](uint32_t* of_row, int64_t at) {
      return kernel.split_row(of_row, of_image + at * job.width, mask == nullptr ? nullptr : of_mask + at * job.width,
                              row);
    };
    uint32_t largest_bits = 0;
    if (one_run) {
      row.end = row.pixels = rows_read * job.width;
      largest_bits = split(source, first_read);
    } else {
      for (int64_t i = 0; i < rows_read; ++i) {
        uint32_t* const of_row = source + i * source_row;
        const int64_t at = first_read + i;
        if (at >= 0 && at < bottom) {
          largest_bits = std::max(largest_bits, split(of_row, at));
        } else {
          for (int64_t p = 0; p < kSplitParts; ++p) std::fill_n(of_row + p * source_step, source_row, 0u);
        }
      }
    }
    // What the last step reads behind the last pixel is multiplied by zeros.
    for (int64_t p = 0; p < kSplitParts; ++p) {
      std::fill_n(source + p * source_step + rows_read * source_row, kPairsOfTile, 0u);
    }
    keep_largest(largest[static_cast<size_t>(image)], largest_bits);
    if (!size.placed) return;
    for (int64_t i = 0; i < rows_read; ++i) {
      kernel.place_row(to + i * row_size, source + i * source_row, part_step, source_step,
                       job.columns.step * size.pairs, job.y_width, size.row_steps);
    }
  };

  const auto task = [&](int64_t t) {
    const int64_t part = t / (job.images * bands), band = t % bands, image = t / bands % job.images;
    const int64_t first_output = blocks * part / cut.parts * kSplitTile;
    const int64_t end_output = std::min(job.outputs, blocks * (part + 1) / cut.parts * kSplitTile);
    const uint16_t* filters = filters_of(first_output, end_output);
    const int64_t first_row = band * cut.rows, rows = std::min(cut.rows, job.y_height - first_row);
    uint32_t* parts = arena::scratch<uint32_t>(arena::Slot::split_a, kSplitParts * part_step);
    split_image(parts, image, first_row, rows);

    // Rows that are summed before they are written.
    const int64_t pixels_of_row = job.y_width / window;
    const int64_t written = std::min(rows, 2 * ceil_div(kWritten, (window == 2 ? 1 : 2) * pixels_of_row));
    const int64_t room_for = (written / window * pixels_of_row + kVector) * kSplitTile;
    float* values = arena::scratch<float>(arena::Slot::pack_b, 2 * room_for);
    float* taps = out.indices == nullptr ? nullptr : values + room_for;
    const TileRegisters registers(size.positions);
    ConvTileBlock<float> block{};
    block.part_step = part_step;
    block.row_step = size.stride * row_size;
    block.position_step = size.position_step;
    block.offsets = offsets.data();
    block.steps = size.steps;
    block.columns = job.y_width;
    block.positions = size.positions;
    block.relu = out.relu;
    block.pool = out.pool;
    for (int64_t o = first_output; o < end_output; o += kSplitTile) {
      block.outputs = std::min(kSplitTile, end_output - o);
      block.filters = filters + (o - first_output) / kSplitTile * tile_column;
      block.bias = out.bias == nullptr ? nullptr : out.bias + o;
      int64_t to = (image * job.outputs + o) * y_plane + first_row / window * y_width;
      int64_t room = rows / window * y_width;
      for (int64_t row = 0; row < rows; row += written) {
        block.rows = std::min(written, rows - row);
        block.image = parts + row * block.row_step;
        kernel.block(values, taps, block);
        const int64_t pixels = block.rows / window * pixels_of_row;
        kernel.write(out.y + to, out.indices == nullptr ? nullptr : out.indices + to, values, taps, y_plane, room,
                     block.outputs, pixels);
        to += pixels;
        room -= pixels;
      }
    }
  };
  parallel_for_if(threads > 1, job.images * bands * cut.parts, task);

  // What is not finite, or could become so on the way, is left to vectors.
  Job one = job;
  one.images = 1;
  for (int64_t i = 0; i < job.images; ++i) {
    const uint32_t of_image = largest[static_cast<size_t>(i)].load(std::memory_order_relaxed);
    if (std::max(of_image, largest_weight.load(std::memory_order_relaxed)) < kConvTileLimit) continue;
    const int64_t of_x = i * job.channels * job.height * job.width, of_y = i * job.outputs * y_plane;
    CorrelateOut<float> to = out;
    to.y += of_y;
    if (to.indices != nullptr) to.indices += of_y;
    correlate_vectors(to, x + of_x, mask == nullptr ? nullptr : mask + of_x, weight, one);
  }
}

}  // namespace pynn::ops
