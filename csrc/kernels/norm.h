// Batch and layer normalisation. Batch normalisation sees x [N, C, L] in one of two ways: a channel at a time as rows
// [n, l], `stride` apart, whose parameters are one number each; or, for L = 1, as rows of `l` channels, whose
// parameters are arrays [l].
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct NormKernels {
  // sum = sum of x - shift, product = sum of (x - shift)^2
  void (*channel_moments)(double* sum, double* product, const T* x, const T* shift, int64_t stride, int64_t n,
                          int64_t l);
  void (*columns_moments)(double* sum, double* product, const T* x, const T* shift, int64_t stride, int64_t n,
                          int64_t l);
  // sum = sum of dy, product = sum of dy (x - mean)
  void (*channel_backward_sums)(double* sum, double* product, const T* dy, const T* x, const T* mean, int64_t stride,
                                int64_t n, int64_t l);
  void (*columns_backward_sums)(double* sum, double* product, const T* dy, const T* x, const T* mean, int64_t stride,
                                int64_t n, int64_t l);
  // y = (x - mean) scale + bias
  void (*channel_apply)(T* y, const T* x, const T* mean, const T* scale, const T* bias, int64_t stride, int64_t n,
                        int64_t l);
  void (*columns_apply)(T* y, const T* x, const T* mean, const T* scale, const T* bias, int64_t stride, int64_t n,
                        int64_t l);
  // dx = dy scale + (x - mean) slope + bias
  void (*channel_backward)(T* dx, const T* dy, const T* x, const T* mean, const T* scale, const T* slope, const T* bias,
                           int64_t stride, int64_t n, int64_t l);
  void (*columns_backward)(T* dx, const T* dy, const T* x, const T* mean, const T* scale, const T* slope, const T* bias,
                           int64_t stride, int64_t n, int64_t l);

  // x, y, dy, dx [rows, cols]; mean, rstd [rows]; weight, bias [cols] or null
  void (*layer_norm)(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, double eps, int64_t rows,
                     int64_t cols);
  // adds to dweight, dbias [cols]
  void (*layer_norm_backward)(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                              const T* rstd, int64_t rows, int64_t cols);
};

}  // namespace pynn
