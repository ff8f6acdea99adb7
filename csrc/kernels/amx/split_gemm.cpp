#include "kernels/split_gemm.h"

#include "kernels/amx/parts.h"
#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int64_t kHalf = kSplitDepth / 2;  // numbers k and k + kHalf of a tile lie side by side

// The rows of a tile in each plane, row r from 16 numbers at x + r * stride and 16 at `second` behind them, zeros from
// `rows` on.
PYNN_INLINE void split_rows(Part* to, const float* x, int64_t stride, int64_t second, int64_t rows) {
  for (int64_t r = rows; r < kSplitTile; ++r) {
#pragma GCC unroll 3
    for (int part = 0; part < kSplitParts; ++part) {
      _mm512_storeu_si512(to + part * kPlane + r * kSplitDepth, _mm512_setzero_si512());
    }
  }
  for (int64_t r = 0; r < rows; ++r, x += stride, to += kSplitDepth) {
    split_pairs(_mm512_loadu_ps(x), _mm512_loadu_ps(x + second),
                [&](int part, __m512i numbers)
                    __attribute__((always_inline)) { _mm512_storeu_si512(to + part * kPlane, numbers); });
  }
}

// A tile of A has rows of k, one of B rows of pairs of k: an operand stored the other way is turned first.
template <bool DepthOutside, bool DepthInRows>
PYNN_INLINE void split_tile(Part* to, const float* x, int64_t ldx, int64_t rows = kSplitTile) {
  if constexpr (DepthOutside != DepthInRows) {
    split_rows(to, x, ldx, DepthOutside ? kHalf * ldx : kHalf, rows);
  } else {
    alignas(kRowBytes) float turned[kPlane];
    constexpr int64_t stride = DepthOutside ? kSplitDepth : kSplitTile;
    constexpr int64_t second = DepthOutside ? kHalf : kHalf * stride;
    transpose_block(turned, stride, x, ldx);
    transpose_block(turned + second, stride, x + (DepthOutside ? kHalf * ldx : kHalf), ldx);
    split_rows(to, turned, stride, second, kSplitTile);
  }
}

// DepthInRows: the tiles are A's. Memory is read along its rows: of what lies [k, outer], all of a step before the
// next.
template <bool DepthOutside, bool DepthInRows>
PYNN_INLINE void split(Part* parts, const float* x, int64_t ldx, int64_t outer, int64_t k) {
  const int64_t tiles = (outer + kSplitTile - 1) / kSplitTile, steps = (k + kSplitDepth - 1) / kSplitDepth;
  for (int64_t next = 0; next < tiles * steps; ++next) {
    const int64_t tile = DepthOutside ? next % tiles : next / steps, step = DepthOutside ? next / tiles : next % steps;
    const int64_t i = tile * kSplitTile, p = step * kSplitDepth;
    Part* to = parts + (tile * steps + step) * kSplitTileSize;
    const float* from = x + (DepthOutside ? p * ldx + i : i * ldx + p);
    const int64_t outer_left = outer - i, k_left = k - p;
    // Of a tile with rows of k, rows may be missing: it is as quick as it has rows.
    constexpr bool rows_outer = DepthInRows && !DepthOutside;
    if ((rows_outer || outer_left >= kSplitTile) && k_left >= kSplitDepth) {
      split_tile<DepthOutside, DepthInRows>(to, from, ldx, outer_left < kSplitTile ? outer_left : kSplitTile);
      continue;
    }
    alignas(kRowBytes) float padded[kPlane];
    constexpr int64_t width = DepthOutside ? kSplitTile : kSplitDepth;
    const int64_t rows = DepthOutside ? k_left : outer_left, columns = DepthOutside ? outer_left : k_left;
    for (int64_t q = 0; q < kPlane; q += 16) {
      const int64_t row = q / width, left = row < rows ? columns - q % width : 0;
      const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xffff : left > 0 ? (1 << left) - 1 : 0);
      _mm512_store_ps(padded + q, _mm512_maskz_loadu_ps(mask, from + row * ldx + q % width));
    }
    split_tile<DepthOutside, DepthInRows>(to, padded, width);
  }
}

void split_a(Part* parts, const float* a, int64_t lda, bool depth_outside, int64_t outer, int64_t k) {
  (depth_outside ? split<true, true> : split<false, true>)(parts, a, lda, outer, k);
}

void split_b(Part* parts, const float* b, int64_t ldb, bool depth_outside, int64_t outer, int64_t k) {
  (depth_outside ? split<true, false> : split<false, false>)(parts, b, ldb, outer, k);
}

// Registers 0 and 1 hold the first row of tiles of C, 2 and 3 the second, 4 and 5 those of A, 6 and 7 tiles of B. A
// product takes as long as A's tile has rows.
void begin(int64_t rows) {
  const int64_t first = rows < kSplitTile ? rows : kSplitTile, second = rows > kSplitTile ? rows - kSplitTile : 1;
  const int64_t rows_of[] = {first, first, second, second, first, second, kSplitTile, kSplitTile};
  take_registers(rows_of);
}

void end() { _tile_release(); }

// M x N tiles of C; sums[2 * kSplitTile, 2 * kSplitTile]. Tile registers 0 to 3 hold sums, 4 and 5 parts of A, 6 and 7
// parts of B. A product waits for the sum that it adds to as long as three others take: a single column of tiles has
// two sums for each. A single row of two has one, as two rows have: the order of additions does not depend on m.
template <int M, int N>
PYNN_INLINE void sum_tiles(float* sums, const Part* a, const Part* b, int64_t steps) {
  const Part *a1 = a + steps * kSplitTileSize, *b1 = b + steps * kSplitTileSize;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto load_a = [&](int part) __attribute__((always_inline)) {
    _tile_loadd(4, a + part * kPlane, kRowBytes);
    if constexpr (M > 1) _tile_loadd(5, a1 + part * kPlane, kRowBytes);
  };
  const auto load_b = [&](int part) __attribute__((always_inline)) {
    _tile_loadd(6, b + part * kPlane, kRowBytes);
    if constexpr (N > 1) _tile_loadd(7, b1 + part * kPlane, kRowBytes);
  };
  const auto multiply = [](auto product) __attribute__((always_inline)) {
    constexpr int c = N == 1 ? decltype(product)::value % 2 : 0;
    add_product<c, 4, 6>();
    if constexpr (N > 1) add_product<1, 4, 7>();
    if constexpr (M > 1) add_product<c + 2, 5, 6>();
    if constexpr (M > 1 && N > 1) add_product<3, 5, 7>();
  };
  // The parts of the next step: they come from the L2 cache.
  const auto fetch = [](const Part* tile) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int row = 0; row < kSplitTile; ++row) __builtin_prefetch(tile + row * kSplitDepth);
  };
  const auto fetch_a = [&](int part) __attribute__((always_inline)) {
    fetch(a + kSplitTileSize + part * kPlane);
    if constexpr (M > 1) fetch(a1 + kSplitTileSize + part * kPlane);
  };
  const auto fetch_b = [&](int part) __attribute__((always_inline)) {
    fetch(b + kSplitTileSize + part * kPlane);
    if constexpr (N > 1) fetch(b1 + kSplitTileSize + part * kPlane);
  };
  for (int64_t step = 0; step < steps; ++step) {
    load_a(0);
    load_b(2);
    multiply(Index<0>());
    fetch_a(0);
    load_b(1);
    multiply(Index<1>());
    fetch_b(2);
    load_a(1);
    multiply(Index<2>());
    fetch_b(1);
    load_b(0);
    multiply(Index<3>());
    fetch_a(1);
    load_a(2);
    multiply(Index<4>());
    fetch_b(0);
    load_a(0);
    multiply(Index<5>());
    fetch_a(2);
    store_in_between(sums, step);
    a += kSplitTileSize;
    a1 += kSplitTileSize;
    b += kSplitTileSize;
    b1 += kSplitTileSize;
  }
  constexpr int64_t row_bytes = kSplitBlock * sizeof(float), below = kSplitTile * kSplitBlock;
  _tile_stored(0, sums, row_bytes);
  _tile_stored(1, sums + kSplitTile, row_bytes);
  if constexpr (M > 1) {
    _tile_stored(2, sums + below, row_bytes);
    _tile_stored(3, sums + below + kSplitTile, row_bytes);
  }
  if constexpr (N > 1) return;
  for (int64_t i = 0; i < M * kSplitTile; ++i, sums += kSplitBlock) {
    (Vec<float>::load(sums) + Vec<float>::load(sums + kSplitTile)).store(sums);
  }
}

// A bit for each of m rows of sums, `Vectors` vectors each, that is not finite: 0 times another number is not 0.
template <int Vectors>
PYNN_INLINE uint32_t not_finite(const float* sums, int64_t m) {
  const auto add_zeros = [sums](int64_t row, Vec<float> zeros) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
      zeros = fma(Vec<float>::load(sums + row * kSplitBlock + j * Vec<float>::lanes), Vec<float>::zero(), zeros);
    }
    return zeros;
  };
  const auto is_finite = [](Vec<float> zeros)
                             __attribute__((always_inline)) { return bits_of(zeros == zeros) == 0xffff; };
  Vec<float> even = Vec<float>::zero(), odd = Vec<float>::zero();
  for (int64_t i = 0; i < m - 1; i += 2) {
    even = add_zeros(i, even);
    odd = add_zeros(i + 1, odd);
  }
  if (m % 2 != 0) even = add_zeros(m - 1, even);
  if (is_finite(even + odd)) return 0;
  uint32_t rows = 0;
  for (int64_t i = 0; i < m; ++i) rows |= static_cast<uint32_t>(!is_finite(add_zeros(i, Vec<float>::zero()))) << i;
  return rows;
}

template <int Vectors>
PYNN_INLINE void write(float* c, int64_t ldc, const float* sums, const GemmEpilogue<float>& epilogue, int64_t m,
                       int64_t n, uint32_t left) {
  constexpr int lanes = Vec<float>::lanes;
  const int tail = static_cast<int>(n - (Vectors - 1) * lanes);
  const Vec<float> least(epilogue.relu ? 0.0f : -__builtin_inff());
  const bool accumulate = epilogue.accumulate;
  Vec<float> start[Vectors];
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; ++j) {
    start[j] = epilogue.bias == nullptr ? Vec<float>::zero()
               : j < Vectors - 1        ? Vec<float>::load(epilogue.bias + j * lanes)
                                        : Vec<float>::load(epilogue.bias + j * lanes, tail);
  }
  for (int64_t i = 0; i < m; ++i, c += ldc, sums += kSplitBlock) {
    if (left >> i & 1) continue;
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
      const int count = j < Vectors - 1 ? lanes : tail;
      if (accumulate) start[j] = Vec<float>::load(c + j * lanes, count);
      max(least, start[j] + Vec<float>::load(sums + j * lanes)).store(c + j * lanes, count);
    }
  }
}

// M and N: the tiles that m and n fill.
template <int M, int N>
uint32_t block_of(float* c, int64_t ldc, const Part* a, const Part* b, const GemmEpilogue<float>& epilogue, int64_t m,
                  int64_t n, int64_t steps) {
  alignas(kRowBytes) float sums[kSplitBlock * kSplitBlock];
  for (int64_t i = 0; i < m; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < N; ++j) __builtin_prefetch(c + i * ldc + j * kSplitTile, 1);
  }
  sum_tiles<M, N>(sums, a, b, steps);
  const uint32_t left = not_finite<N>(sums, m);
  write<N>(c, ldc, sums, epilogue, m, n, left);
  return left;
}

uint32_t block(float* c, int64_t ldc, const Part* a, const Part* b, const GemmEpilogue<float>& epilogue, int64_t m,
               int64_t n, int64_t k) {
  const int64_t steps = (k + kSplitDepth - 1) / kSplitDepth;
  const bool two_rows = m > kSplitTile, two_columns = n > kSplitTile;
  return (two_rows      ? two_columns ? block_of<2, 2> : block_of<2, 1>
          : two_columns ? block_of<1, 2>
                        : block_of<1, 1>)(c, ldc, a, b, epilogue, m, n, steps);
}

}  // namespace

void register_split_gemm(KernelSet& set) { set.f32.split_gemm = {split_a, split_b, begin, end, block}; }

}  // namespace pynn::PYNN_ISA
