// What products in tiles of bfloat16 parts share, see kernels/split_gemm.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/split_gemm.h"
#include "ops/ceil_div.h"
#include "runtime/dispatch.h"

namespace pynn::ops {

// The tile registers of this thread, for blocks of so many rows, until the end of the scope, however it ends.
class TileRegisters {
 public:
  TileRegisters(bool needed, int64_t rows) : needed_(needed) {
    if (needed_) kernels<float>().split_gemm.begin(std::min(rows, kSplitBlock));
  }
  explicit TileRegisters(int64_t positions) : needed_(true) { kernels<float>().conv_tiles.begin(positions); }
  ~TileRegisters() {
    if (needed_) kernels<float>().split_gemm.end();
  }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;

 private:
  bool needed_;
};

// Of an operand with `outer` rows of op(A), or columns of op(B).
inline int64_t parts_size(int64_t outer, int64_t k) {
  return round_up(outer, kSplitTile) * round_up(k, kSplitDepth) * kSplitParts;
}

// Calls run(first, rows) for each run of bits that are set.
template <class Run>
void for_each_run(uint32_t bits, const Run& run) {
  for (int64_t row = 0; row < 32; ++row) {
    const int64_t first = row;
    while (row < 32 && (bits >> row & 1) != 0) ++row;
    if (row > first) run(first, row - first);
  }
}

}  // namespace pynn::ops
