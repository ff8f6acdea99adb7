// The naive twin of convolution, in double.
#pragma once

#include <cstdint>

#include "ops/conv.h"

namespace pynn::reference {

// visit(y, x, weight): element offsets of an output, of an input that it reads, and of the weight between them
template <class Visit>
void for_products(const ops::ConvShape& s, Visit visit) {
  const int64_t channels = s.channels / s.groups, outputs = s.outputs / s.groups;
  for (int64_t n = 0; n < s.images; ++n) {
    for (int64_t o = 0; o < s.outputs; ++o) {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t row = 0; row < s.rows.out; ++row) {
          for (int64_t column = 0; column < s.columns.out; ++column) {
            for (int64_t i = 0; i < s.rows.kernel; ++i) {
              for (int64_t j = 0; j < s.columns.kernel; ++j) {
                const int64_t h = row * s.rows.stride + i * s.rows.dilation - s.rows.padding;
                const int64_t w = column * s.columns.stride + j * s.columns.dilation - s.columns.padding;
                if (h < 0 || h >= s.rows.size || w < 0 || w >= s.columns.size) continue;
                visit(((n * s.outputs + o) * s.rows.out + row) * s.columns.out + column,
                      ((n * s.channels + o / outputs * channels + c) * s.rows.size + h) * s.columns.size + w,
                      ((o * channels + c) * s.rows.kernel + i) * s.columns.kernel + j);
              }
            }
          }
        }
      }
    }
  }
}

template <class T>
void conv2d(double* y, const T* x, const T* weight, const T* bias, const ops::ConvShape& s) {
  const int64_t pixels = s.rows.out * s.columns.out;
  for (int64_t i = 0; i < s.images * s.outputs * pixels; ++i) {
    y[i] = bias != nullptr ? static_cast<double>(bias[i / pixels % s.outputs]) : 0.0;
  }
  for_products(s, [&](int64_t iy, int64_t ix, int64_t iw) {
    y[iy] += static_cast<double>(x[ix]) * static_cast<double>(weight[iw]);
  });
}

// dx, dweight, dbias: zeros before
template <class T>
void conv2d_backward(double* dx, double* dweight, double* dbias, const T* dy, const T* x, const T* weight,
                     const ops::ConvShape& s) {
  for_products(s, [&](int64_t iy, int64_t ix, int64_t iw) {
    dx[ix] += static_cast<double>(dy[iy]) * static_cast<double>(weight[iw]);
    dweight[iw] += static_cast<double>(dy[iy]) * static_cast<double>(x[ix]);
  });
  const int64_t pixels = s.rows.out * s.columns.out;
  for (int64_t i = 0; i < s.images * s.outputs * pixels; ++i)
    dbias[i / pixels % s.outputs] += static_cast<double>(dy[i]);
}

}  // namespace pynn::reference
