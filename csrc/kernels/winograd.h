// The transforms of convolution by Winograd's minimal filtering F(2 x 2, 3 x 3): Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2015. A tile of 2 x 2 outputs reads 4 x 4 pixels d, and with the filter g is
// A^T [(G g G^T) * (B^T d B)] A: 16 multiplications in place of 36. Summed over channels, each of the 16 positions is
// a matrix product of its own, [outputs, channels] by [channels, tiles].
#pragma once

#include <cstdint>

#include "kernels/conv.h"

namespace pynn {

template <class T>
struct WinogradKernels {
  int64_t lanes;          // elements that `input` writes, and `output` reads, behind the last tile at most
  int64_t bias_position;  // A^T e A is 1 everywhere for the e that is 1 here: the sums of this position hold the bias

  // u[position, channels, outputs] = G g G^T of the filters g [channels, 9, outputs]; tap (i, j) is g[taps[3 i + j]]
  void (*filters)(T* u, int64_t position_step, const T* g, const int64_t* taps, int64_t channels, int64_t outputs);

  // v[position, rows * columns] = B^T d B of one channel; tile (r, c) reads x from row 2 r and column 2 c on
  void (*input)(T* v, int64_t position_step, const T* x, int64_t row_length, int64_t rows, int64_t columns);

  // y = A^T m A of one channel from m[position, tiles]. The last row or column of y, if odd, is half of a tile. Of
  // `pixels` rows, columns and row_step count; of the epilogue all but the bias.
  void (*output)(T* y, const ConvPixels& pixels, const T* m, int64_t position_step, const ConvEpilogue<T>& epilogue);
};

}  // namespace pynn
