// Convolution of float32 in tiles of bfloat16 parts (see kernels/split_gemm.h). Images are A: they lie in scratch with
// the channels of a pixel side by side and zeros around them, so that a tile of A is a load of neighbouring positions
// there; a step of it is 32 numbers of a row of the filter, (column, channel). Filters are B.
#pragma once

#include <cstdint>

namespace pynn {

constexpr uint32_t kConvTileLimit = 0x5d800000;  // bits of 2^60: sums of products of less are finite

// A row of an image, taken apart: parts [3][pixel][pairs of channels], part_step apart.
struct ConvTileRow {
  int64_t part_step;
  int64_t plane, channels;     // of x
  int64_t first, end, pixels;  // pixel 0 is x's column `first`; those outside of 0..end-1 are zeros
  int64_t ahead;               // distance in x to what is fetched into the cache
};

// `rows` rows of `columns` positions for up to kSplitTile outputs; with pool both are even, and `positions`, too.
template <class T>
struct ConvTileBlock {
  const uint32_t* image;
  int64_t part_step, row_step, position_step;  // of parts, of rows of outputs and of positions in the image
  const int64_t* offsets;                      // [steps]: of tiles of A
  int64_t steps;
  const uint16_t* filters;  // [steps], tiles of parts
  int64_t outputs, rows, columns;
  int64_t positions;  // of a tile, at most `columns`
  const T* bias;
  bool relu, pool;
};

template <class T>
struct ConvTilesKernels {
  // Up to 16 pixels and 16 numbers more are written behind the row. Returns the largest bits of x without their signs.
  // x reads as 0 where `mask`, if not null, is 0 or less.
  uint32_t (*split_row)(uint32_t* to, const T* x, const T* mask, const ConvTileRow& row);

  // The parts of `positions` neighbours, `step` apart in `from`, so many vectors of 16 pairs each, as lines of their
  // own: to load a tile whose rows are no whole lines takes six times as long.
  void (*place_row)(uint32_t* to, const uint32_t* from, int64_t to_step, int64_t from_step, int64_t step,
                    int64_t positions, int64_t vectors);

  // places [steps][32]: of the numbers k of a tile in the weights of an output, negative: 0. Returns the largest bits.
  uint32_t (*pack_filters)(uint16_t* parts, const T* weight, const int32_t* places, int64_t output_step,
                           int64_t outputs, int64_t steps);

  // Takes the tile registers of this thread for tiles of so many positions; split_gemm.end() gives them back.
  void (*begin)(int64_t positions);

  // values [rows][columns][kSplitTile], with pool of windows, and the winners' taps unless null.
  void (*block)(T* values, T* taps, const ConvTileBlock<T>& block);

  // y[output, pixel] = values[pixel, output]; indices, unless null, of the taps. They have `room` elements left.
  void (*write)(T* y, uint8_t* indices, const T* values, const T* taps, int64_t channel_step, int64_t room,
                int64_t outputs, int64_t pixels);
};

}  // namespace pynn
