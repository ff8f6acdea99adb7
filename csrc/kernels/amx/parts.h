// What the kernels for tiles share: how a float becomes three bfloat16 numbers, and the product of tile registers.
#pragma once

#include "kernels/split_gemm.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

using Part = uint16_t;  // a bfloat16: the upper half of a float

constexpr int64_t kPlane = kSplitTile * kSplitDepth;  // one part of each number of a tile
constexpr int64_t kRowBytes = 64;

// x, whose last 16 bits are rounded away; half of the last place goes away from 0.
PYNN_INLINE __m512i rounded(__m512 x) {
  const __m512i half = _mm512_set1_epi32(0x8000), kept = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  return _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), kept);
}

PYNN_INLINE __m512i side_by_side(__m512i first, __m512i second) {
  return _mm512_or_si512(second, _mm512_srli_epi32(first, 16));
}

// Calls put(part, numbers) for each of the three parts of u and v, side by side. What rounding leaves of 24 bits is
// exact: 16 bits, then 8.
template <class Put>
PYNN_INLINE void split_pairs(__m512 u, __m512 v, const Put& put) {
#pragma GCC unroll 2
  for (int part = 0; part < 2; ++part) {
    const __m512i of_u = rounded(u), of_v = rounded(v);
    put(part, side_by_side(of_u, of_v));
    u = _mm512_sub_ps(u, _mm512_castsi512_ps(of_u));
    v = _mm512_sub_ps(v, _mm512_castsi512_ps(of_v));
  }
  put(2, side_by_side(_mm512_castps_si512(u), _mm512_castps_si512(v)));
}

// A number that the compiler knows.
template <int I>
struct Index {
  static constexpr int value = I;
};

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Takes the tile registers, with so many rows each.
PYNN_INLINE void take_registers(const int64_t* rows) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.rows[tile] = static_cast<uint8_t>(rows[tile]);
  asm volatile("ldtilecfg %0" : : "m"(config));  // of GCC's own function the first 8 bytes are an input
}

// C += A * B in tile registers; GCC's function wants numerals.
template <int C, int A, int B>
PYNN_INLINE void add_product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(C), "n"(A), "n"(B));
}

// A store of a tile behind more than about 130 products takes 800 cycles, in which no product begins, unless a tile was
// stored in between. So loops over steps of up to 24 products store one that nobody reads now and then.
constexpr int64_t kStepsPerStore = 3;

PYNN_INLINE void store_in_between(float* scratch, int64_t step) {
  if (step % kStepsPerStore == kStepsPerStore - 1) _tile_stored(0, scratch, kRowBytes);
}

}  // namespace
}  // namespace pynn::PYNN_ISA
