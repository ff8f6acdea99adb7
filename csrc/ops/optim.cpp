#include "ops/optim.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/ceil_div.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kChunk = 16384;  // elements of a task
constexpr int64_t kLeastChunk = 4096;
constexpr int64_t kAlign = 64;  // arrays are cut at multiples of this, so that whole vectors stay whole

int64_t total_size(const std::vector<int64_t>& sizes) {
  int64_t total = 0;
  for (const int64_t size : sizes) total += size;
  return total;
}

int64_t chunks_of(const std::vector<int64_t>& sizes) { return ceil_div(total_size(sizes), kChunk); }

// Lays the arrays end to end and cuts the whole into chunks of this size; calls fn(chunk, array, begin, n) for each
// array's part in each chunk.
template <class Function>
void for_chunks(const std::vector<int64_t>& sizes, int64_t size, const Function& fn) {
  std::vector<int64_t> starts(sizes.size() + 1, 0);
  for (size_t a = 0; a < sizes.size(); ++a) starts[a + 1] = starts[a] + sizes[a];
  parallel_for(ceil_div(starts.back(), size), [&](int64_t chunk) {
    const int64_t begin = chunk * size, end = begin + size;
    const auto cut = [&](size_t a, int64_t position) {
      if (position >= starts[a + 1]) return sizes[a];
      return std::max<int64_t>(0, position - starts[a]) / kAlign * kAlign;
    };
    size_t a = static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin()) - 1;
    for (; a < sizes.size() && starts[a] < end; ++a) {
      const int64_t from = cut(a, begin), to = cut(a, end);
      if (from < to) fn(chunk, a, from, to - from);
    }
  });
}

// The same for work in which an element does not depend on the chunk that it falls in: threads have equal shares.
template <class Function>
void for_parts(const std::vector<int64_t>& sizes, const Function& fn) {
  const int64_t total = total_size(sizes), share = round_up(ceil_div(total, 4 * int64_t(num_threads())), kAlign);
  for_chunks(sizes, total <= kChunk ? kChunk : std::min(kChunk, std::max(share, kLeastChunk)),
             [&](int64_t, size_t a, int64_t begin, int64_t n) { fn(a, begin, n); });
}

// Calls update(array, begin, gradient, n) for parts that make up all arrays.
template <class T, class Update>
void for_gradients(const Gradients<T>& grads, const Update& update) {
  const auto update_parts = [&](const std::vector<int64_t>& sizes) {
    for_parts(sizes, [&](size_t a, int64_t begin, int64_t n) { update(a, begin, grads.arrays.data[a] + begin, n); });
  };
  if (grads.linear.empty()) {
    update_parts(grads.arrays.sizes);
    return;
  }
  std::vector<int64_t> others = grads.arrays.sizes;
  for (const auto& [array, gradient] : grads.linear) {
    for_gradient<T>(gradient, [&, a = array](int64_t begin, const T* g, int64_t n) { update(a, begin, g, n); });
    others[array] = 0;
  }
  update_parts(others);
}

// Where part `begin` of array a starts, null if the list is empty.
template <class T>
T* part(const ArrayList<T>& list, size_t a, int64_t begin) {
  return list.data.empty() ? nullptr : list.data[a] + begin;
}

}  // namespace

template <class T>
void sgd(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& momentum_buffers,
         const SgdOptions& options) {
  const SgdStep<T> step{static_cast<T>(options.lr),
                        static_cast<T>(options.momentum),
                        static_cast<T>(1 - options.dampening),
                        static_cast<T>(options.weight_decay),
                        options.nesterov,
                        options.first};
  for_gradients(grads, [&](size_t a, int64_t begin, const T* grad, int64_t n) {
    kernels<T>().optim.sgd(params.data[a] + begin, part(momentum_buffers, a, begin), grad, step, n);
  });
}

template <class T>
void adam(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& exp_avgs,
          const ArrayList<T>& exp_avg_sqs, const AdamOptions& options) {
  const double t = static_cast<double>(options.step);
  const double correction1 = 1 - std::pow(options.beta1, t), correction2 = 1 - std::pow(options.beta2, t);
  AdamStep<T> step{};
  step.keep = static_cast<T>(options.decoupled ? 1 - options.lr * options.weight_decay : 1);
  step.weight_decay = static_cast<T>(options.decoupled ? 0 : options.weight_decay);
  step.beta1 = static_cast<T>(options.beta1);
  step.one_minus_beta1 = static_cast<T>(1 - options.beta1);
  step.beta2 = static_cast<T>(options.beta2);
  step.one_minus_beta2 = static_cast<T>(1 - options.beta2);
  step.step_size = static_cast<T>(options.lr / correction1);
  step.root_scale = static_cast<T>(1 / std::sqrt(correction2));
  step.eps = static_cast<T>(options.eps);
  for_gradients(grads, [&](size_t a, int64_t begin, const T* grad, int64_t n) {
    kernels<T>().optim.adam(params.data[a] + begin, exp_avgs.data[a] + begin, exp_avg_sqs.data[a] + begin, grad, step,
                            n);
  });
}

template <class T>
void rmsprop(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& square_avgs,
             const ArrayList<T>& grad_avgs, const ArrayList<T>& momentum_buffers, const RmspropOptions& options) {
  const RmspropStep<T> step{static_cast<T>(options.lr),           static_cast<T>(options.alpha),
                            static_cast<T>(1 - options.alpha),    static_cast<T>(options.eps),
                            static_cast<T>(options.weight_decay), static_cast<T>(options.momentum)};
  for_gradients(grads, [&](size_t a, int64_t begin, const T* grad, int64_t n) {
    kernels<T>().optim.rmsprop(params.data[a] + begin, square_avgs.data[a] + begin, part(grad_avgs, a, begin),
                               part(momentum_buffers, a, begin), grad, step, n);
  });
}

template <class T>
void adagrad(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& sums,
             const AdagradOptions& options) {
  const double rate = options.lr / (1 + static_cast<double>(options.step - 1) * options.lr_decay);
  const AdagradStep<T> step{static_cast<T>(rate), static_cast<T>(options.eps), static_cast<T>(options.weight_decay)};
  for_gradients(grads, [&](size_t a, int64_t begin, const T* grad, int64_t n) {
    kernels<T>().optim.adagrad(params.data[a] + begin, sums.data[a] + begin, grad, step, n);
  });
}

template <class T>
void adadelta(const ArrayList<T>& params, const Gradients<T>& grads, const ArrayList<T>& square_avgs,
              const ArrayList<T>& acc_deltas, const AdadeltaOptions& options) {
  const AdadeltaStep<T> step{static_cast<T>(options.lr), static_cast<T>(options.rho), static_cast<T>(1 - options.rho),
                             static_cast<T>(options.eps), static_cast<T>(options.weight_decay)};
  for_gradients(grads, [&](size_t a, int64_t begin, const T* grad, int64_t n) {
    kernels<T>().optim.adadelta(params.data[a] + begin, square_avgs.data[a] + begin, acc_deltas.data[a] + begin, grad,
                                step, n);
  });
}

template <class T>
double l2_norm(const ArrayList<T>& arrays) {
  const int64_t chunks = chunks_of(arrays.sizes);
  const arena::Buffer<double> partial(chunks);
  const auto scaled_norm = [&](double factor) {
    std::fill(partial.get(), partial.get() + chunks, 0.0);
    for_chunks(arrays.sizes, kChunk, [&](int64_t chunk, size_t a, int64_t begin, int64_t n) {
      partial.get()[chunk] += kernels<T>().optim.sum_squares(arrays.data[a] + begin, factor, n);
    });
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += partial.get()[c];
    return std::sqrt(sum) / factor;
  };
  // Squares of float64 leave its range long before the norm does; a factor brings them back into it.
  const double norm = scaled_norm(1);
  if (std::isinf(norm)) return scaled_norm(0x1p-600);
  return norm < 0x1p-500 ? scaled_norm(0x1p+600) : norm;
}

template <class T>
void scale(const ArrayList<T>& arrays, double factor) {
  for_parts(arrays.sizes, [&](size_t a, int64_t begin, int64_t n) {
    kernels<T>().optim.scale(arrays.data[a] + begin, static_cast<T>(factor), n);
  });
}

template <class T>
bool all_finite(const ArrayList<T>& arrays) {
  std::atomic<bool> finite{true};
  for_chunks(arrays.sizes, kChunk, [&](int64_t, size_t a, int64_t begin, int64_t n) {
    if (!finite.load(std::memory_order_relaxed)) return;
    if (!kernels<T>().optim.all_finite(arrays.data[a] + begin, n)) finite.store(false, std::memory_order_relaxed);
  });
  return finite;
}

#define PYNN_INSTANTIATE(T)                                                                                    \
  template void sgd(const ArrayList<T>&, const Gradients<T>&, const ArrayList<T>&, const SgdOptions&);         \
  template void adam(const ArrayList<T>&, const Gradients<T>&, const ArrayList<T>&, const ArrayList<T>&,       \
                     const AdamOptions&);                                                                      \
  template void rmsprop(const ArrayList<T>&, const Gradients<T>&, const ArrayList<T>&, const ArrayList<T>&,    \
                        const ArrayList<T>&, const RmspropOptions&);                                           \
  template void adagrad(const ArrayList<T>&, const Gradients<T>&, const ArrayList<T>&, const AdagradOptions&); \
  template void adadelta(const ArrayList<T>&, const Gradients<T>&, const ArrayList<T>&, const ArrayList<T>&,   \
                         const AdadeltaOptions&);                                                              \
  template double l2_norm(const ArrayList<T>&);                                                                \
  template void scale(const ArrayList<T>&, double);                                                            \
  template bool all_finite(const ArrayList<T>&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
