// Batch and layer normalisation, split over the threads.
#pragma once

#include <cstdint>

namespace pynn::ops {

// x [N, C, L]
struct BatchNormSizes {
  int64_t batch, channels, length;

  int64_t count() const { return batch * length; }  // values of a channel
};

// y like x, mean and rstd [C]. weight and bias, running_mean and running_var [C]: both or neither null. Training, the
// statistics are those of the batch (count() > 1), and the running ones, if any, move towards them.
template <class T>
void batch_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T* running_mean, T* running_var,
                bool training, double momentum, double eps, BatchNormSizes sizes);

// dx like x, dweight and dbias [C]
template <class T>
void batch_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, bool training, BatchNormSizes sizes);

// x, y, dy, dx [rows, cols]; mean, rstd [rows]; weight, bias, dweight, dbias [cols]
template <class T>
void layer_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, double eps, int64_t rows,
                int64_t cols);
template <class T>
void layer_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, int64_t rows, int64_t cols);

}  // namespace pynn::ops
