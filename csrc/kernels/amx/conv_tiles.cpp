#include "kernels/conv_tiles.h"

#include "kernels/amx/parts.h"
#include "kernels/conv_write.h"
#include "kernels/table.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int64_t kLanes = Vec<float>::lanes;

PYNN_INLINE __m512i without_sign(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

// x at `inside`, 0 where it is outside or the mask is 0 or less.
PYNN_INLINE __m512 load(const float* x, const float* mask, __mmask16 inside) {
  if (mask != nullptr) {
    const __m512 of_mask = _mm512_maskz_loadu_ps(inside, mask);
    inside = _mm512_mask_cmp_ps_mask(inside, of_mask, _mm512_setzero_ps(), _CMP_NLE_UQ);
  }
  return _mm512_maskz_loadu_ps(inside, x);
}

// Up to four pairs of 16 pixels, turned: pixels of 16 bytes, each over the end of the one before.
PYNN_INLINE void store_pairs(uint32_t* to, int64_t pairs, const __m512i* of_pair) {
  const __m512i low01 = _mm512_unpacklo_epi32(of_pair[0], of_pair[1]),
                high01 = _mm512_unpackhi_epi32(of_pair[0], of_pair[1]),
                low23 = _mm512_unpacklo_epi32(of_pair[2], of_pair[3]),
                high23 = _mm512_unpackhi_epi32(of_pair[2], of_pair[3]);
  const __m512i pixels[] = {_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
                            _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)};
  const auto store_four = [&](auto quarter) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i, to += pairs) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_extracti32x4_epi32(pixels[i], decltype(quarter)::value));
    }
  };
  store_four(Index<0>());
  store_four(Index<1>());
  store_four(Index<2>());
  store_four(Index<3>());
}

uint32_t split_row(uint32_t* to, const float* x, const float* mask, const ConvTileRow& row) {
  const int64_t pairs = (row.channels + 1) / 2;
  __m512i largest = _mm512_setzero_si512();
  for (int64_t pixel = 0; pixel < row.pixels; pixel += kLanes) {
    const int64_t place = row.first + pixel, behind = row.end - place;
    __mmask16 inside = static_cast<__mmask16>(behind >= kLanes ? 0xffff : behind > 0 ? (1 << behind) - 1 : 0);
    if (place < 0) inside &= static_cast<__mmask16>(place <= -kLanes ? 0 : 0xffff << -place);
    const auto split_pair = [&](int64_t pair, const auto& put) __attribute__((always_inline)) {
      const int64_t of_pair = 2 * pair * row.plane + place;
      // Rows of many channels are too many places for processors to fetch ahead by themselves.
      __builtin_prefetch(x + of_pair + row.ahead);
      __builtin_prefetch(x + of_pair + row.plane + row.ahead);
      const __m512 u = load(x + of_pair, mask == nullptr ? nullptr : mask + of_pair, inside);
      __m512 v = _mm512_setzero_ps();
      if (2 * pair + 1 < row.channels) {
        v = load(x + of_pair + row.plane, mask == nullptr ? nullptr : mask + of_pair + row.plane, inside);
      }
      largest = _mm512_max_epu32(largest, _mm512_max_epu32(without_sign(u), without_sign(v)));
      split_pairs(u, v, put);
    };
    uint32_t* to_pixel = to + pixel * pairs;
    if (pairs <= 4) {
      __m512i parts[kSplitParts][4];
#pragma GCC unroll 4
      for (int64_t pair = 0; pair < 4; ++pair) {
        if (pair < pairs) {
          split_pair(pair,
                     [&](int part, __m512i numbers) __attribute__((always_inline)) { parts[part][pair] = numbers; });
        } else {
          for (int part = 0; part < kSplitParts; ++part) parts[part][pair] = _mm512_setzero_si512();
        }
      }
#pragma GCC unroll 3
      for (int part = 0; part < kSplitParts; ++part) store_pairs(to_pixel + part * row.part_step, pairs, parts[part]);
      continue;
    }
    for (int64_t first = 0; first < pairs; first += kSplitTile) {
      alignas(kRowBytes) uint32_t parts[kSplitParts][kSplitTile * kLanes];
      const int64_t count = pairs - first < kSplitTile ? pairs - first : kSplitTile;
      for (int64_t pair = 0; pair < count; ++pair) {
        split_pair(first + pair, [&](int part, __m512i numbers) __attribute__((always_inline)) {
          _mm512_store_si512(parts[part] + pair * kLanes, numbers);
        });
      }
      for (int part = 0; part < kSplitParts; ++part) {
        float* turned = reinterpret_cast<float*>(to_pixel + part * row.part_step + first);
        const float* from = reinterpret_cast<const float*>(parts[part]);
        if (count == kSplitTile) {
          transpose_block(turned, pairs, from, kLanes);
        } else {
          transpose_block(turned, pairs, from, kLanes, static_cast<int>(count), kLanes);
        }
      }
    }
  }
  return _mm512_reduce_max_epu32(largest);
}

void place_row(uint32_t* to, const uint32_t* from, int64_t to_step, int64_t from_step, int64_t step, int64_t positions,
               int64_t vectors) {
  for (int part = 0; part < kSplitParts; ++part, to += to_step, from += from_step) {
    uint32_t* position = to;
    for (int64_t i = 0; i < positions; ++i) {
      for (int64_t j = 0; j < vectors; ++j, position += kLanes) {
        _mm512_store_si512(position, _mm512_loadu_si512(from + i * step + j * kLanes));
      }
    }
  }
}

// Rows of a tile are pairs of k.
uint32_t pack_filters(Part* parts, const float* weight, const int32_t* places, int64_t output_step, int64_t outputs,
                      int64_t steps) {
  __m512i largest = _mm512_setzero_si512();
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i places_of = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(output_step)));
  for (int64_t first = 0; first < outputs; first += kSplitTile, weight += kSplitTile * output_step) {
    const __mmask16 has = static_cast<__mmask16>(outputs - first >= kLanes ? 0xffff : (1 << (outputs - first)) - 1);
    for (int64_t step = 0; step < steps; ++step, parts += kSplitTileSize) {
      const auto gather = [&](int64_t k) __attribute__((always_inline)) {
        const int32_t place = places[step * kSplitDepth + k];
        const __m512 zero = _mm512_setzero_ps();
        return place < 0 ? zero : _mm512_mask_i32gather_ps(zero, has, places_of, weight + place, sizeof(float));
      };
      for (int64_t r = 0; r < kSplitTile; ++r) {
        const __m512 u = gather(2 * r), v = gather(2 * r + 1);
        largest = _mm512_max_epu32(largest, _mm512_max_epu32(without_sign(u), without_sign(v)));
        split_pairs(u, v, [&](int part, __m512i numbers) __attribute__((always_inline)) {
          _mm512_storeu_si512(parts + part * kPlane + r * kSplitDepth, numbers);
        });
      }
    }
  }
  return _mm512_reduce_max_epu32(largest);
}

void begin(int64_t positions) {
  const int64_t rows[] = {positions, positions, positions, positions, positions, kSplitTile, kSplitTile, kSplitTile};
  take_registers(rows);
}

// Loads part `part` of tile I of positions and multiplies it with all of the filters' that are large enough.
template <int I, int Part>
PYNN_INLINE void add_products(const uint32_t* image, int64_t part_step, int64_t row_bytes) {
  _tile_loadd(4, image + Part * part_step, row_bytes);
  add_product<I, 4, 5>();
  if constexpr (Part < 2) add_product<I, 4, 6>();
  if constexpr (Part < 1) add_product<I, 4, 7>();
}

// sums [M][positions][16] of M tiles of positions by one of outputs: registers 0 to 3 hold the sums, 4 a part of the
// image, 5 to 7 the parts of the filters. So most loads are of the image, which is in the L1 cache, and filters of
// 16 outputs often are, too.
template <int M>
PYNN_INLINE void sum_tiles(float* sums, const uint32_t* const* tiles, const ConvTileBlock<float>& block) {
  const int64_t part_step = block.part_step, row_bytes = block.position_step * 4, steps = block.steps;
  const Part* b = block.filters;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto add = [&](auto i, int64_t offset) __attribute__((always_inline)) {
    constexpr int tile = decltype(i)::value;
    add_products<tile, 2>(tiles[tile] + offset, part_step, row_bytes);
    add_products<tile, 1>(tiles[tile] + offset, part_step, row_bytes);
    add_products<tile, 0>(tiles[tile] + offset, part_step, row_bytes);
  };
  for (int64_t step = 0; step < steps; ++step, b += kSplitTileSize) {
    const int64_t offset = block.offsets[step];
    _tile_loadd(5, b, kRowBytes);
    _tile_loadd(6, b + kPlane, kRowBytes);
    _tile_loadd(7, b + 2 * kPlane, kRowBytes);
    // The filters of the next step.
    const auto fetch = [&](int part) __attribute__((always_inline)) {
      const Part* next = step + 1 < steps ? b + kSplitTileSize : block.filters;
#pragma GCC unroll 16
      for (int row = 0; row < kSplitTile; ++row) __builtin_prefetch(next + part * kPlane + row * kSplitDepth);
    };
    add(Index<0>(), offset);
    fetch(0);
    add(Index<1>(), offset);
    fetch(1);
    if constexpr (M > 2) add(Index<2>(), offset);
    fetch(2);
    if constexpr (M > 2) add(Index<3>(), offset);
    store_in_between(sums, step);
  }
  const int64_t tile_size = block.positions * kSplitTile;
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + tile_size, kRowBytes);
  if constexpr (M > 2) {
    _tile_stored(2, sums + 2 * tile_size, kRowBytes);
    _tile_stored(3, sums + 3 * tile_size, kRowBytes);
  }
}

void block(float* values, float* taps, const ConvTileBlock<float>& b) {
  constexpr int64_t width = kSplitTile;
  const int64_t positions = b.positions, tiles = (b.columns + positions - 1) / positions;
  const Vec<float> least(b.relu ? 0.0f : -__builtin_inff());
  const Vec<float> bias =
      b.bias == nullptr ? Vec<float>::zero() : Vec<float>::load(b.bias, static_cast<int>(b.outputs));
  const int64_t all = (b.rows + 1) / 2 * tiles;  // tiles of two rows, one below the other
  for (int64_t first = 0; first < all; first += 2) {
    const int64_t pairs = first + 1 < all ? 2 : 1;
    alignas(kRowBytes) float sums[4 * kSplitTile * width];
    const uint32_t* images[4];
    int64_t row[2], column[2];
    for (int64_t p = 0; p < pairs; ++p) {
      row[p] = (first + p) / tiles * 2;
      // The last tile of a row begins earlier, rather than to end later.
      const int64_t at = (first + p) % tiles * positions;
      column[p] = at < b.columns - positions ? at : b.columns - positions;
      images[2 * p] = b.image + row[p] * b.row_step + column[p] * b.position_step;
      images[2 * p + 1] = images[2 * p] + (row[p] + 1 < b.rows ? b.row_step : 0);
    }
    if (pairs == 2) {
      sum_tiles<4>(sums, images, b);
    } else {
      sum_tiles<2>(sums, images, b);
    }
    for (int64_t p = 0; p < pairs; ++p) {
      float* from = sums + p * 2 * positions * width;
      if (b.pool) {
        for (int64_t i = 0; i < 2 * positions; ++i) {
          max(least, bias + Vec<float>::load(from + i * width)).store(from + i * width);
        }
        const int64_t at = (row[p] / 2 * b.columns + column[p]) / 2 * width;
        pool_outputs(values + at, taps == nullptr ? nullptr : taps + at, from, width, int64_t(2), positions);
        continue;
      }
      for (int64_t below = 0; below < 2 && row[p] + below < b.rows; ++below, from += positions * width) {
        float* to = values + ((row[p] + below) * b.columns + column[p]) * width;
        for (int64_t i = 0; i < positions; ++i) {
          max(least, bias + Vec<float>::load(from + i * width)).store(to + i * width);
        }
      }
    }
  }
}

void write(float* y, uint8_t* indices, const float* values, const float* taps, int64_t channel_step, int64_t room,
           int64_t outputs, int64_t pixels) {
  write_outputs(y, channel_step, 1, values, kSplitTile, outputs, pixels);
  if (indices != nullptr) write_indices(indices, channel_step, room, taps, kSplitTile, outputs, pixels);
}

}  // namespace

void register_conv_tiles(KernelSet& set) {
  set.f32.conv_tiles = {split_row, place_row, pack_filters, begin, block, write};
}

}  // namespace pynn::PYNN_ISA
