// Products with rows that are stored without their zeros: for each block of 64 columns a word of bits, which say where
// the row is not 0, and behind the words of all blocks the values, in order.
#pragma once

#include <cstdint>

namespace pynn {

// What a product reads of some rows: bits [blocks, rows], and where the values of each row's first block are. Up to a
// vector behind the last value of a row is read.
template <class T>
struct PackedBlocks {
  const uint64_t* bits;
  const T* const* values;
  int64_t rows;
};

template <class T>
struct PackedRowsKernels {
  // bits and values of x[columns]; returns where the values end, null if one is NaN or infinite, or they and a vector
  // behind them would go beyond `end`.
  T* (*pack)(uint64_t* bits, T* values, const T* end, const T* x, int64_t columns);

  // Of `count` blocks from `first` on: their bits [count, rows], and values [rows] with the place of each row's first.
  // records[rows] point to the words of `blocks` blocks, behind which are the values. Fetches what it points to.
  void (*gather)(uint64_t* bits, const T** values, const uint64_t* const* records, int64_t rows, int64_t blocks,
                 int64_t first, int64_t count);

  // sums[rows, width] = (bias[width] or 0) + x[rows, blocks] * weight[, width]; width is a whole number of vectors,
  // `at` is scratch [rows].
  void (*multiply)(T* sums, const T* bias, PackedBlocks<T> x, const T** at, const T* weight, int64_t width,
                   int64_t blocks);

  // dweight[columns, width] = (its own content if accumulate) + x[rows, columns]^T * dz[rows, width]
  void (*dweight)(T* dweight, PackedBlocks<T> x, const T** at, const T* dz, int64_t width, int64_t columns,
                  bool accumulate);

  void (*add)(T* y, const T* a, const T* b, bool relu, int64_t n);  // y = a + b; b null: y = a
};

}  // namespace pynn
