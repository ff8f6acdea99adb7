// The naive twin of the transforms of Winograd's F(2 x 2, 3 x 3), in double: products with the matrices as published.
#pragma once

#include <cstdint>

namespace pynn::reference {

constexpr double kFilterTransform[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};   // G
constexpr double kInputTransform[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};  // B^T
constexpr double kOutputTransform[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};                              // A^T

// to[Rows, Rows] = M from M^T; from(i, j) is an element of a square
template <int Rows, int Columns, class From>
void winograd_transform(double* to, const double (&matrix)[Rows][Columns], From from) {
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c < Rows; ++c) {
      to[Rows * r + c] = 0;
      for (int i = 0; i < Columns; ++i) {
        for (int j = 0; j < Columns; ++j) to[Rows * r + c] += matrix[r][i] * matrix[c][j] * from(i, j);
      }
    }
  }
}

}  // namespace pynn::reference
