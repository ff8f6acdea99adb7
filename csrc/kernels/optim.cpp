#include "kernels/optim.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

template <class T>
void sgd(T* param, T* momentum_buffer, const T* grad, SgdStep<T> step, int64_t n) {
  const Vec<T> minus_lr(-step.lr), momentum(step.momentum), undamped(step.undamped), decay(step.weight_decay);
  const bool decays = step.weight_decay != T(0);  // 0 times an infinite parameter would be NaN
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> p = load(param + i, lanes);
    Vec<T> g = load(grad + i, lanes);
    if (decays) g = fma(decay, p, g);
    if (momentum_buffer != nullptr) {
      const Vec<T> b = step.first ? g : fma(momentum, load(momentum_buffer + i, lanes), undamped * g);
      store(momentum_buffer + i, b, lanes);
      g = step.nesterov ? fma(momentum, b, g) : b;
    }
    store(param + i, fma(minus_lr, g, p), lanes);
  });
}

template <class T>
void adam(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, AdamStep<T> step, int64_t n) {
  const Vec<T> keep(step.keep), decay(step.weight_decay), eps(step.eps), root_scale(step.root_scale);
  const Vec<T> beta1(step.beta1), one_minus_beta1(step.one_minus_beta1), minus_step(-step.step_size);
  const Vec<T> beta2(step.beta2), one_minus_beta2(step.one_minus_beta2);
  const bool decays = step.weight_decay != T(0);  // 0 times an infinite parameter would be NaN
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> p = load(param + i, lanes);
    Vec<T> g = load(grad + i, lanes);
    if (decays) g = fma(decay, p, g);
    const Vec<T> m = fma(beta1, load(exp_avg + i, lanes), one_minus_beta1 * g);
    const Vec<T> v = fma(beta2, load(exp_avg_sq + i, lanes), one_minus_beta2 * g * g);
    store(exp_avg + i, m, lanes);
    store(exp_avg_sq + i, v, lanes);
    store(param + i, fma(keep, p, minus_step * m / fma(sqrt(v), root_scale, eps)), lanes);
  });
}

template <class T>
void rmsprop(T* param, T* square_avg, T* grad_avg, T* momentum_buffer, const T* grad, RmspropStep<T> step, int64_t n) {
  const Vec<T> minus_lr(-step.lr), decay(step.weight_decay), eps(step.eps), momentum(step.momentum);
  const Vec<T> alpha(step.alpha), one_minus_alpha(step.one_minus_alpha);
  const bool decays = step.weight_decay != T(0);  // 0 times an infinite parameter would be NaN
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> p = load(param + i, lanes);
    Vec<T> g = load(grad + i, lanes);
    if (decays) g = fma(decay, p, g);
    Vec<T> v = fma(alpha, load(square_avg + i, lanes), one_minus_alpha * g * g);
    store(square_avg + i, v, lanes);
    if (grad_avg != nullptr) {
      const Vec<T> m = fma(alpha, load(grad_avg + i, lanes), one_minus_alpha * g);
      store(grad_avg + i, m, lanes);
      v = max(Vec<T>::zero(), fma(Vec<T>::zero() - m, m, v));  // rounding can bring a variance below 0; NaN stays
    }
    g = g / (sqrt(v) + eps);
    if (momentum_buffer != nullptr) {
      g = fma(momentum, load(momentum_buffer + i, lanes), g);
      store(momentum_buffer + i, g, lanes);
    }
    store(param + i, fma(minus_lr, g, p), lanes);
  });
}

template <class T>
void adagrad(T* param, T* sum, const T* grad, AdagradStep<T> step, int64_t n) {
  const Vec<T> minus_rate(-step.rate), decay(step.weight_decay), eps(step.eps);
  const bool decays = step.weight_decay != T(0);  // 0 times an infinite parameter would be NaN
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> p = load(param + i, lanes);
    Vec<T> g = load(grad + i, lanes);
    if (decays) g = fma(decay, p, g);
    const Vec<T> s = fma(g, g, load(sum + i, lanes));
    store(sum + i, s, lanes);
    store(param + i, p + minus_rate * g / (sqrt(s) + eps), lanes);
  });
}

template <class T>
void adadelta(T* param, T* square_avg, T* acc_delta, const T* grad, AdadeltaStep<T> step, int64_t n) {
  const Vec<T> minus_lr(-step.lr), decay(step.weight_decay), eps(step.eps);
  const Vec<T> rho(step.rho), one_minus_rho(step.one_minus_rho);
  const bool decays = step.weight_decay != T(0);  // 0 times an infinite parameter would be NaN
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> p = load(param + i, lanes), u = load(acc_delta + i, lanes);
    Vec<T> g = load(grad + i, lanes);
    if (decays) g = fma(decay, p, g);
    const Vec<T> v = fma(rho, load(square_avg + i, lanes), one_minus_rho * g * g);
    const Vec<T> delta = sqrt(u + eps) / sqrt(v + eps) * g;
    store(square_avg + i, v, lanes);
    store(acc_delta + i, fma(rho, u, one_minus_rho * delta * delta), lanes);
    store(param + i, fma(minus_lr, delta, p), lanes);
  });
}

// Plain loops over a fixed number of sums, which the compiler turns into vectors of double.
template <class T>
double sum_squares(const T* x, double scale, int64_t n) {
  constexpr int sums = 16;
  double sum[sums] = {};
  int64_t i = 0;
  for (; i + sums <= n; i += sums) {
    for (int j = 0; j < sums; ++j) {
      const double value = static_cast<double>(x[i + j]) * scale;
      sum[j] += value * value;
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    const double value = static_cast<double>(x[i]) * scale;
    sum[j] += value * value;
  }
  for (int width = sums / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) sum[j] += sum[j + width];
  }
  return sum[0];
}

template <class T>
void scale(T* x, T factor, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(x + i, load(x + i, lanes) * Vec<T>(factor), lanes); });
}

// x - x is 0 for finite x, else NaN, and NaN stays in a sum.
template <class T>
bool all_finite(const T* x, int64_t n) {
  Vec<T> sum = Vec<T>::zero();
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> v = load(x + i, lanes);
    sum = sum + (v - v);
  });
  return reduce_add(sum) == T(0);
}

template <class T>
OptimKernels<T> table() {
  return {sgd<T>, adam<T>, rmsprop<T>, adagrad<T>, adadelta<T>, sum_squares<T>, scale<T>, all_finite<T>};
}

}  // namespace

void register_optim(KernelSet& set) {
  set.f32.optim = table<float>();
  set.f64.optim = table<double>();
}

}  // namespace pynn::PYNN_ISA
