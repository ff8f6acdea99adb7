#include "ops/norm.h"

#include <algorithm>
#include <cmath>

#include "ops/ceil_div.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kChunk = 16384;  // elements, so that a second thread pays
constexpr int64_t kMostParts = 32;

// Calls fn(first channel, how many) over all channels: one at a time, or a range of them as columns if they are single
// values in a row, so that vectors fill.
template <class Function>
void for_channels(BatchNormSizes sizes, const Function& fn) {
  const bool columns = sizes.length == 1;
  const int64_t enough = ceil_div(kChunk, std::max<int64_t>(1, sizes.count()));
  const int64_t grain = columns ? ceil_div(enough, 64) * 64 : enough;
  parallel_ranges(sizes.channels, grain, [&](int64_t begin, int64_t end) {
    if (columns) return fn(begin, end - begin);
    for (int64_t c = begin; c < end; ++c) fn(c, int64_t(1));
  });
}

struct Statistics {
  double mean, var;  // var with divisor count
};

// One or several channels as the kernels see them.
template <class T>
struct Channels {
  const NormKernels<T>& kernel = kernels<T>().norm;
  bool columns;
  int64_t stride, rows, length;

  Channels(BatchNormSizes sizes, int64_t channels)
      : columns(sizes.length == 1),
        stride(sizes.channels * sizes.length),
        rows(sizes.length == 0 ? 0 : sizes.batch),  // of nothing, there can be more than can be counted through
        length(columns ? channels : sizes.length) {}

  void moments(double* sum, double* product, const T* x, const T* shift) const {
    (columns ? kernel.columns_moments : kernel.channel_moments)(sum, product, x, shift, stride, rows, length);
  }
  void backward_sums(double* sum, double* product, const T* dy, const T* x, const T* mean) const {
    (columns ? kernel.columns_backward_sums : kernel.channel_backward_sums)(sum, product, dy, x, mean, stride, rows,
                                                                            length);
  }
  void apply(T* y, const T* x, const T* mean, const T* scale, const T* bias) const {
    (columns ? kernel.columns_apply : kernel.channel_apply)(y, x, mean, scale, bias, stride, rows, length);
  }
  void backward(T* dx, const T* dy, const T* x, const T* mean, const T* scale, const T* slope, const T* bias) const {
    (columns ? kernel.columns_backward : kernel.channel_backward)(dx, dy, x, mean, scale, slope, bias, stride, rows,
                                                                  length);
  }
};

// From the sums around a shift near the values, E[d^2] - E[d]^2 loses nothing. A channel whose first value lies far
// from its mean is summed again around the mean that this gave.
template <class T>
Statistics statistics(double sum, double product, const T* x, T shift, BatchNormSizes sizes) {
  const double count = static_cast<double>(sizes.count());
  const auto variance = [&] { return product / count - (sum / count) * (sum / count); };
  if ((sum / count) * (sum / count) > 4 * variance()) {
    shift = static_cast<T>(static_cast<double>(shift) + sum / count);
    Channels<T>(sizes, 1).moments(&sum, &product, x, &shift);
  }
  const double var = variance();
  return {static_cast<double>(shift) + sum / count, var < 0 ? 0 : var};
}

}  // namespace

template <class T>
void batch_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T* running_mean, T* running_var,
                bool training, double momentum, double eps, BatchNormSizes sizes) {
  const arena::Buffer<double> sums(2 * sizes.channels);
  const arena::Buffer<T> parameters(2 * sizes.channels);
  double *sum = sums.get(), *product = sum + sizes.channels;
  T *scale = parameters.get(), *offset = scale + sizes.channels;
  const double count = static_cast<double>(sizes.count());
  for_channels(sizes, [&](int64_t first, int64_t channels) {
    const Channels<T> these(sizes, channels);
    const T* x_first = x + first * sizes.length;
    if (training) {
      for (int64_t c = first; c < first + channels; ++c) mean[c] = x[c * sizes.length];  // the shifts
      these.moments(sum + first, product + first, x_first, mean + first);
    }
    for (int64_t c = first; c < first + channels; ++c) {
      Statistics s;
      if (training) {
        s = statistics(sum[c], product[c], x + c * sizes.length, mean[c], sizes);
      } else {
        s = {static_cast<double>(running_mean[c]), static_cast<double>(running_var[c])};
      }
      const double inverse = 1 / std::sqrt(s.var + eps);
      const double slope = weight != nullptr ? static_cast<double>(weight[c]) * inverse : inverse;
      mean[c] = static_cast<T>(s.mean);
      rstd[c] = static_cast<T>(inverse);
      scale[c] = static_cast<T>(slope);
      // The offset also takes what rounding the mean to T left.
      offset[c] = static_cast<T>((bias != nullptr ? static_cast<double>(bias[c]) : 0) +
                                 (static_cast<double>(mean[c]) - s.mean) * slope);
      if (training && running_mean != nullptr) {
        const auto move = [&](T& running, double batch) {
          running = static_cast<T>(static_cast<double>(running) + momentum * (batch - static_cast<double>(running)));
        };
        move(running_mean[c], s.mean);
        move(running_var[c], s.var * (count / (count - 1)));
      }
    }
    these.apply(y + first * sizes.length, x_first, mean + first, scale + first, offset + first);
  });
}

// xhat = (x - mean) rstd, y = xhat weight + bias; training,
// dx = weight rstd (dy - mean(dy) - xhat mean(dy xhat)), else mean and rstd are constants: dx = weight rstd dy.
template <class T>
void batch_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, bool training, BatchNormSizes sizes) {
  const arena::Buffer<double> sums(2 * sizes.channels);
  const arena::Buffer<T> parameters(3 * sizes.channels);
  double *sum = sums.get(), *product = sum + sizes.channels;
  T *scale = parameters.get(), *slope = scale + sizes.channels, *offset = slope + sizes.channels;
  const double count = static_cast<double>(sizes.count());
  for_channels(sizes, [&](int64_t first, int64_t channels) {
    const Channels<T> these(sizes, channels);
    const int64_t at = first * sizes.length;
    these.backward_sums(sum + first, product + first, dy + at, x + at, mean + first);
    for (int64_t c = first; c < first + channels; ++c) {
      const double inverse = static_cast<double>(rstd[c]);
      const double factor = weight != nullptr ? static_cast<double>(weight[c]) * inverse : inverse;
      dbias[c] = static_cast<T>(sum[c]);
      dweight[c] = static_cast<T>(product[c] * inverse);
      scale[c] = static_cast<T>(factor);
      slope[c] = training ? static_cast<T>(-factor * inverse * inverse * product[c] / count) : T(0);
      offset[c] = training ? static_cast<T>(-factor * sum[c] / count) : T(0);
    }
    if (training) {
      these.backward(dx + at, dy + at, x + at, mean + first, scale + first, slope + first, offset + first);
    } else {  // dy - 0 in the place of x - mean: x plays no part, not even an infinite one
      these.apply(dx + at, dy + at, slope + first, scale + first, offset + first);
    }
  });
}

template <class T>
void layer_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, double eps, int64_t rows,
                int64_t cols) {
  parallel_ranges(rows, ceil_div(kChunk, std::max<int64_t>(1, cols)), [&](int64_t begin, int64_t end) {
    kernels<T>().norm.layer_norm(y + begin * cols, mean + begin, rstd + begin, x + begin * cols, weight, bias, eps,
                                 end - begin, cols);
  });
}

template <class T>
void layer_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, int64_t rows, int64_t cols) {
  // The shape alone decides the parts, each with sums of its own, which are added in their order.
  const int64_t part_rows = std::max(ceil_div(kChunk, std::max<int64_t>(1, cols)), ceil_div(rows, kMostParts));
  const int64_t parts = ceil_div(rows, part_rows);
  const arena::Buffer<T> partial(parts * 2 * cols);
  parallel_for(parts, [&](int64_t part) {
    const int64_t begin = part * part_rows, end = std::min(rows, begin + part_rows), at = begin * cols;
    T* sums = partial.get() + part * 2 * cols;
    std::fill(sums, sums + 2 * cols, T(0));
    kernels<T>().norm.layer_norm_backward(dx + at, sums, sums + cols, dy + at, x + at, weight, mean + begin,
                                          rstd + begin, end - begin, cols);
  });
  for (int64_t j = 0; j < cols; ++j) {
    double weight_sum = 0, bias_sum = 0;
    for (int64_t part = 0; part < parts; ++part) {
      weight_sum += static_cast<double>(partial.get()[part * 2 * cols + j]);
      bias_sum += static_cast<double>(partial.get()[part * 2 * cols + cols + j]);
    }
    dweight[j] = static_cast<T>(weight_sum);
    dbias[j] = static_cast<T>(bias_sum);
  }
}

#define PYNN_INSTANTIATE(T)                                                                                         \
  template void batch_norm(T*, T*, T*, const T*, const T*, const T*, T*, T*, bool, double, double, BatchNormSizes); \
  template void batch_norm_backward(T*, T*, T*, const T*, const T*, const T*, const T*, const T*, bool,             \
                                    BatchNormSizes);                                                                \
  template void layer_norm(T*, T*, T*, const T*, const T*, const T*, double, int64_t, int64_t);                     \
  template void layer_norm_backward(T*, T*, T*, const T*, const T*, const T*, const T*, const T*, int64_t, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
