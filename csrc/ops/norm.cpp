#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "ops/ceil_div.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kChunk = 16384;  // elements, so that a second thread pays
constexpr int64_t kMostParts = 32;

// A task has some channels of some images; the shape alone decides.
struct BatchCut {
  int64_t images, parts;     // images of a part, and how many parts
  int64_t channels, groups;  // the same of channels, where the images alone make too few tasks

  explicit BatchCut(BatchNormSizes s) {
    if (s.length >= kLongRow && s.channels >= kLeastTasks && s.count() <= kCached) {
      images = s.batch;
      parts = 1;
      channels = ceil_div(kChunk, std::max<int64_t>(1, s.count()));
      groups = ceil_div(s.channels, channels);
      return;
    }
    const int64_t image = std::max<int64_t>(1, s.channels * s.length);
    const int64_t least = std::max(ceil_div(kChunk, image), ceil_div(kLeastValues, std::max<int64_t>(1, s.length)));
    images = std::max<int64_t>(1, std::min(s.batch, std::max(least, ceil_div(s.batch, kMostParts))));
    parts = ceil_div(s.batch, images);
    const double chunks = static_cast<double>(s.batch) * static_cast<double>(image) / kChunk;
    const double wanted = std::min(chunks, double{kLeastTasks}) / static_cast<double>(std::max<int64_t>(1, parts));
    channels = ceil_div(s.channels, std::max<int64_t>(1, static_cast<int64_t>(wanted)));
    if (s.length == 1) channels = round_up(channels, kColumns);
    groups = channels == 0 ? 0 : ceil_div(s.channels, channels);
  }

  static constexpr int64_t kLeastValues = 64;  // of a channel in a part, beside which its sums are few
  static constexpr int64_t kLeastTasks = 8;
  static constexpr int64_t kColumns = 64;
  // Long rows of channels that stay in the L2 cache from the sums to the output are taken channel by channel.
  static constexpr int64_t kLongRow = 256, kCached = 65536;
};

// What a task sees of an array [N, C, L], and how its kernels take it: rows of columns where L = 1, so that vectors
// fill; else a channel at a time, in as many images as the processor follows at once.
struct BatchPart {
  int64_t begin, end, first, channels;  // images, channels
  int64_t stride, length;

  BatchPart(BatchNormSizes s, const BatchCut& cut, int64_t task)
      : begin(task / cut.groups * cut.images),
        end(std::min(s.batch, begin + cut.images)),
        first(task % cut.groups * cut.channels),
        channels(std::min(cut.channels, s.channels - first)),
        stride(s.channels * s.length),
        length(s.length) {}

  bool columns() const { return length == 1; }

  // Calls fn(channel, offset, images, row length).
  void for_rows(const std::function<void(int64_t, int64_t, int64_t, int64_t)>& fn) const {
    if (columns()) return fn(first, begin * stride + first, end - begin, channels);
    const int64_t together = std::clamp<int64_t>(kTogether / std::max<int64_t>(1, length), 1, kMostTogether);
    for (int64_t i = begin; length > 0 && i < end; i += together) {
      for (int64_t c = first; c < first + channels; ++c) {
        fn(c, i * stride + c * length, std::min(together, end - i), length);
      }
    }
  }

  // Adds what kernel(sum, product, channel, offset, images, row length) sets to the sums of this part, [2, C].
  void add_sums(double* sum, double* product,
                const std::function<void(double*, double*, int64_t, int64_t, int64_t, int64_t)>& kernel) const {
    std::fill(sum + first, sum + first + channels, 0.0);
    std::fill(product + first, product + first + channels, 0.0);
    for_rows([&](int64_t c, int64_t at, int64_t images, int64_t l) {
      if (columns()) return kernel(sum + c, product + c, c, at, images, l);
      double s, p;
      kernel(&s, &p, c, at, images, l);
      sum[c] += s;
      product[c] += p;
    });
  }

  static constexpr int64_t kTogether = 2048, kMostTogether = 8;  // elements, images
};

using Sums = std::function<void(const BatchPart&, double* sum, double* product)>;
using Finish = std::function<void(const double* sum, const double* product, int64_t first, int64_t channels)>;

// Runs `sums` for all parts, unless there is none, `finish` for all channels, with the sums of all parts, and `apply`
// for all parts. Where no channel is in two parts, a task does all three.
void in_two_passes(BatchNormSizes sizes, const Sums& sums, const Finish& finish,
                   const std::function<void(const BatchPart&)>& apply) {
  const BatchCut cut(sizes);
  const int64_t c = sizes.channels;
  const arena::Buffer<double> buffer(std::max<int64_t>(1, cut.parts) * 2 * c);
  double* const partial = buffer.get();  // [parts, 2, C]
  if (cut.parts <= 1) {
    parallel_for(cut.groups, [&](int64_t task) {
      const BatchPart part(sizes, cut, task);
      if (sums) sums(part, partial, partial + c);
      finish(partial, partial + c, part.first, part.channels);
      apply(part);
    });
    return;
  }
  parallel_for(sums ? cut.parts * cut.groups : 0, [&](int64_t task) {
    double* const own = partial + task / cut.groups * 2 * c;
    sums(BatchPart(sizes, cut, task), own, own + c);
  });
  for (int64_t p = 1; sums && p < cut.parts; ++p) {
    for (int64_t j = 0; j < 2 * c; ++j) partial[j] += partial[p * 2 * c + j];
  }
  finish(partial, partial + c, 0, c);
  parallel_for(cut.parts * cut.groups, [&](int64_t task) { apply(BatchPart(sizes, cut, task)); });
}

struct Statistics {
  double mean, var;  // var with divisor count
};

// The mean of a few values: near enough to that of all for most channels.
template <class T>
T rough_mean(const T* x, BatchNormSizes s) {
  constexpr int64_t samples = 4;
  double sum = 0;
  for (int64_t i = 0; i < samples; ++i) {
    sum += static_cast<double>(x[s.batch * i / samples * s.channels * s.length + s.length * i / samples]);
  }
  return static_cast<T>(sum / samples);
}

// From the sums around a shift near the values, E[d^2] - E[d]^2 loses nothing. A channel whose mean lies far from it is
// summed again around the mean that this gave.
template <class T>
Statistics statistics(double sum, double product, const T* x, T shift, BatchNormSizes sizes) {
  const double count = static_cast<double>(sizes.count());
  const auto variance = [&] { return product / count - (sum / count) * (sum / count); };
  if ((sum / count) * (sum / count) > 4 * variance()) {
    shift = static_cast<T>(static_cast<double>(shift) + sum / count);
    kernels<T>().norm.channel_moments(&sum, &product, x, &shift, sizes.channels * sizes.length, sizes.batch,
                                      sizes.length);
  }
  const double var = variance();
  return {static_cast<double>(shift) + sum / count, var < 0 ? 0 : var};
}

// y = (x - mean) scale + bias, with parameters [C]
template <class T>
void apply_part(const BatchPart& part, T* y, const T* x, const T* mean, const T* scale, const T* bias) {
  const auto kernel = part.columns() ? kernels<T>().norm.columns_apply : kernels<T>().norm.channel_apply;
  part.for_rows([&](int64_t c, int64_t at, int64_t images, int64_t l) {
    kernel(y + at, x + at, mean + c, scale + c, bias + c, part.stride, images, l);
  });
}

}  // namespace

template <class T>
void batch_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, T* running_mean, T* running_var,
                bool training, double momentum, double eps, BatchNormSizes sizes) {
  const arena::Buffer<T> parameters(2 * sizes.channels);
  T *scale = parameters.get(), *offset = scale + sizes.channels;
  const double count = static_cast<double>(sizes.count());
  if (sizes.count() > 0) {
    for (int64_t c = 0; training && c < sizes.channels; ++c) mean[c] = rough_mean(x + c * sizes.length, sizes);
  }
  const auto sums = [&](const BatchPart& part, double* sum, double* product) {
    const auto kernel = part.columns() ? kernels<T>().norm.columns_moments : kernels<T>().norm.channel_moments;
    part.add_sums(sum, product, [&](double* s, double* p, int64_t c, int64_t at, int64_t images, int64_t l) {
      kernel(s, p, x + at, mean + c, part.stride, images, l);
    });
  };
  const auto finish = [&](const double* sum, const double* product, int64_t first, int64_t channels) {
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
  };
  const auto apply = [&](const BatchPart& part) { apply_part(part, y, x, mean, scale, offset); };
  in_two_passes(sizes, training ? Sums(std::cref(sums)) : Sums(), std::cref(finish), std::cref(apply));
}

// xhat = (x - mean) rstd, y = xhat weight + bias; training,
// dx = weight rstd (dy - mean(dy) - xhat mean(dy xhat)), else mean and rstd are constants: dx = weight rstd dy.
template <class T>
void batch_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, bool training, BatchNormSizes sizes) {
  const arena::Buffer<T> parameters(3 * sizes.channels);
  T *scale = parameters.get(), *slope = scale + sizes.channels, *offset = slope + sizes.channels;
  const double count = static_cast<double>(sizes.count());
  const NormKernels<T>& kernel = kernels<T>().norm;
  const auto sums = [&](const BatchPart& part, double* sum, double* product) {
    const auto add = part.columns() ? kernel.columns_backward_sums : kernel.channel_backward_sums;
    part.add_sums(sum, product, [&](double* s, double* p, int64_t c, int64_t at, int64_t images, int64_t l) {
      add(s, p, dy + at, x + at, mean + c, part.stride, images, l);
    });
  };
  const auto finish = [&](const double* sum, const double* product, int64_t first, int64_t channels) {
    for (int64_t c = first; c < first + channels; ++c) {
      const double inverse = static_cast<double>(rstd[c]);
      const double factor = weight != nullptr ? static_cast<double>(weight[c]) * inverse : inverse;
      dbias[c] = static_cast<T>(sum[c]);
      dweight[c] = static_cast<T>(product[c] * inverse);
      scale[c] = static_cast<T>(factor);
      slope[c] = training ? static_cast<T>(-factor * inverse * inverse * product[c] / count) : T(0);
      offset[c] = training ? static_cast<T>(-factor * sum[c] / count) : T(0);
    }
  };
  const auto apply = [&](const BatchPart& part) {
    // Not training, dy - 0 in the place of x - mean: x plays no part, not even an infinite one.
    if (!training) return apply_part(part, dx, dy, slope, scale, offset);
    const auto backward = part.columns() ? kernel.columns_backward : kernel.channel_backward;
    part.for_rows([&](int64_t c, int64_t at, int64_t images, int64_t l) {
      backward(dx + at, dy + at, x + at, mean + c, scale + c, slope + c, offset + c, part.stride, images, l);
    });
  };
  in_two_passes(sizes, std::cref(sums), std::cref(finish), std::cref(apply));
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
