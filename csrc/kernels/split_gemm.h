// Matrix product of float32 on units that multiply bfloat16: each number is split into three that add up to it.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace pynn {

constexpr int64_t kSplitTile = 16;   // rows of A or columns of B in a tile of parts
constexpr int64_t kSplitDepth = 32;  // k of a tile
constexpr int64_t kSplitParts = 3;   // bfloat16 numbers of a float
constexpr int64_t kSplitBlock = 32;  // rows and columns of C that stay in registers
constexpr int64_t kSplitTileSize = kSplitParts * kSplitTile * kSplitDepth;

// All null where the processor has no such unit, and for float64.
template <class T>
struct SplitGemmKernels {
  // The parts of A[m, k] or B[k, n], of which `outer` is m or n: tiles, those of one outer range one behind the other,
  // padded with zeros. An operand is stored as [outer, k], or as [k, outer] if depth_outside.
  void (*split_a)(uint16_t* parts, const T* a, int64_t lda, bool depth_outside, int64_t outer, int64_t k);
  void (*split_b)(uint16_t* parts, const T* b, int64_t ldb, bool depth_outside, int64_t outer, int64_t k);

  // Takes the tile registers of this thread for blocks of up to `rows` rows, and gives them back.
  void (*begin)(int64_t rows);
  void (*end)();

  // C[m, n] = epilogue(A[m, k] * B[k, n]) for m and n up to kSplitBlock, no row_bias. A row's bits do not depend on the
  // other rows, nor on m. Returns a bit for each row that is left as it was because its product is not finite: parts of
  // an infinity are not numbers, and a number near the largest rounds to infinity.
  uint32_t (*block)(T* c, int64_t ldc, const uint16_t* a, const uint16_t* b, const GemmEpilogue<T>& epilogue, int64_t m,
                    int64_t n, int64_t k);
};

}  // namespace pynn
