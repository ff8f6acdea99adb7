#include "kernels/elementwise.h"

#include "kernels/table.h"
#include "simd/math.h"

namespace pynn::PYNN_ISA {
namespace {

template <class T>
PYNN_INLINE Vec<T> zero() {
  return Vec<T>::zero();
}

template <class T>
PYNN_INLINE Vec<T> constant(double x) {
  return Vec<T>(static_cast<T>(x));
}

// y = f(x)
template <class T, class Function>
PYNN_INLINE void map(T* y, const T* x, int64_t n, Function f) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(y + i, f(load(x + i, lanes)), lanes); });
}

// dx = f(dy, kept), where kept is the forward's input or output
template <class T, class Function>
PYNN_INLINE void map_backward(T* dx, const T* dy, const T* kept, int64_t n, Function f) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(dx + i, f(load(dy + i, lanes), load(kept + i, lanes)), lanes); });
}

// Comparisons are written so that NaN takes the branch that passes it on, as in PyTorch.

template <class T>
void relu(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return select(v < zero<T>(), zero<T>(), v); });
}
template <class T>
void relu_backward(T* dx, const T* dy, const T* y, int64_t n) {
  map_backward(dx, dy, y, n, [](Vec<T> d, Vec<T> v) { return select(v <= zero<T>(), zero<T>(), d); });
}

template <class T>
void leaky_relu(T* y, const T* x, T negative_slope, int64_t n) {
  const Vec<T> slope(negative_slope);
  map(y, x, n, [=](Vec<T> v) { return select(zero<T>() < v, v, v * slope); });
}
template <class T>
void leaky_relu_backward(T* dx, const T* dy, const T* x, T negative_slope, int64_t n) {
  const Vec<T> slope(negative_slope);
  map_backward(dx, dy, x, n, [=](Vec<T> d, Vec<T> v) { return select(zero<T>() < v, d, d * slope); });
}

template <class T>
void sigmoid_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return sigmoid(v); });
}
template <class T>
void sigmoid_backward(T* dx, const T* dy, const T* y, int64_t n) {
  map_backward(dx, dy, y, n, [](Vec<T> d, Vec<T> s) { return d * s * (constant<T>(1) - s); });
}

template <class T>
void tanh_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return tanh(v); });
}
template <class T>
void tanh_backward(T* dx, const T* dy, const T* y, int64_t n) {
  map_backward(dx, dy, y, n, [](Vec<T> d, Vec<T> t) { return d * (constant<T>(1) - t * t); });
}

template <class T>
void neg(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return constant<T>(-0.0) - v; });
}

// gelu(x) = x Phi(x), Phi the normal distribution function. In float, it is off by less than 4 units in the last
// place of x, its form with tanh by less than 1.9; far below 0, where the result is tiny, of x, not of it. Where |x| >
// 100 all derivatives are exactly 0 or 1; the bound keeps 0 * infinity away.
template <class T>
PYNN_INLINE Vec<T> bounded(Vec<T> x) {
  return max(constant<T>(-100), min(constant<T>(100), x));
}
template <class T>
void gelu(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return v * normal(v).cdf; });
}
template <class T>
void gelu_backward(T* dx, const T* dy, const T* x, int64_t n) {
  map_backward(dx, dy, x, n, [](Vec<T> d, Vec<T> v) {
    v = bounded(v);
    const Normal<T> phi = normal(v);
    return d * fma(v, phi.exp * constant<T>(0.39894228040143267794), phi.cdf);  // 1 / sqrt(2 pi)
  });
}

// gelu_tanh(x) = x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
constexpr double kTwoScale = 1.5957691216057307117, kCube = 0.044715;
template <class T>
PYNN_INLINE Vec<T> twice_gelu_argument(Vec<T> v) {
  return v * fma(v * v, constant<T>(kTwoScale * kCube), constant<T>(kTwoScale));
}
template <class T>
void gelu_tanh(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return v * sigmoid(twice_gelu_argument(v)); });
}
template <class T>
void gelu_tanh_backward(T* dx, const T* dy, const T* x, int64_t n) {
  map_backward(dx, dy, x, n, [](Vec<T> d, Vec<T> v) {
    v = bounded(v);
    const SigmoidPair<T> s = sigmoid_pair(twice_gelu_argument(v));
    const Vec<T> slope = fma(v * v, constant<T>(3 * kTwoScale * kCube), constant<T>(kTwoScale));
    return d * fma(v * slope, s.plus * s.minus, s.plus);
  });
}

// silu(x) = x s with s = sigmoid(x), its slope s (1 + x (1 - s))
template <class T>
void silu(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return v * sigmoid(v); });
}
template <class T>
void silu_backward(T* dx, const T* dy, const T* x, int64_t n) {
  map_backward(dx, dy, x, n, [](Vec<T> d, Vec<T> v) {
    const SigmoidPair<T> s = sigmoid_pair(v);
    return d * s.plus * fma(v, s.minus, constant<T>(1));
  });
}

// elu(x) = x > 0 ? x : alpha (e^x - 1), where e^x - 1 = 2 t / (1 - t) with t = tanh(x / 2) does not cancel
template <class T>
void elu(T* y, const T* x, T alpha, int64_t n) {
  const Vec<T> scale(2 * alpha);
  map(y, x, n, [=](Vec<T> v) {
    const Vec<T> t = tanh(v * constant<T>(0.5));
    return select(zero<T>() < v, v, scale * t / (constant<T>(1) - t));
  });
}
template <class T>
void elu_backward(T* dx, const T* dy, const T* x, T alpha, int64_t n) {
  const Vec<T> scale(alpha);
  map_backward(dx, dy, x, n, [=](Vec<T> d, Vec<T> v) { return select(zero<T>() < v, d, d * scale * exp(v)); });
}

// softplus(x) = log(1 + e^z) / beta with z = beta x, and x where z > threshold
template <class T>
void softplus(T* y, const T* x, T beta, T threshold, int64_t n) {
  const Vec<T> scale(beta), linear(threshold);
  map(y, x, n, [=](Vec<T> v) {
    const Vec<T> z = scale * v, positive = select(z < zero<T>(), zero<T>(), z);
    return select(linear < z, v, (positive + log1p(exp(zero<T>() - abs(z)))) / scale);
  });
}
template <class T>
void softplus_backward(T* dx, const T* dy, const T* x, T beta, T threshold, int64_t n) {
  const Vec<T> scale(beta), linear(threshold);
  map_backward(dx, dy, x, n, [=](Vec<T> d, Vec<T> v) {
    const Vec<T> z = scale * v;
    return select(linear < z, d, d * sigmoid(z));
  });
}

template <class T>
void exp_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return exp(v); });
}

template <class T>
void log_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return log(v); });
}

template <class T>
void sqrt_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return sqrt(v); });
}
template <class T>
void sqrt_backward(T* dx, const T* dy, const T* y, int64_t n) {
  map_backward(dx, dy, y, n, [](Vec<T> d, Vec<T> v) { return d / (v + v); });
}

template <class T>
void abs_forward(T* y, const T* x, int64_t n) {
  map(y, x, n, [](Vec<T> v) { return abs(v); });
}
template <class T>
void abs_backward(T* dx, const T* dy, const T* x, int64_t n) {
  map_backward(dx, dy, x, n, [](Vec<T> d, Vec<T> v) {
    const Vec<T> sign = select(zero<T>() < v, constant<T>(1), select(v < zero<T>(), constant<T>(-1), v));
    return d * sign;  // 0 at 0, NaN at NaN
  });
}

// min(max(x, low), high): high wins where low > high, as in NumPy, and a limit that is NaN makes all of them NaN
template <class T>
void clip(T* y, const T* x, T low, T high, int64_t n) {
  const Vec<T> lowest(low), highest(high);
  if (low != low || high != high) return map(y, x, n, [=](Vec<T>) { return lowest + highest; });
  map(y, x, n, [=](Vec<T> v) { return min(highest, max(lowest, v)); });
}
template <class T>
void clip_backward(T* dx, const T* dy, const T* x, T low, T high, int64_t n) {
  const Vec<T> lowest(low), highest(high);
  map_backward(dx, dy, x, n, [=](Vec<T> d, Vec<T> v) { return select((lowest <= v) & (v <= highest), d, zero<T>()); });
}

template <class T>
ElementwiseKernels<T> table() {
  return {relu<T>,
          relu_backward<T>,
          leaky_relu<T>,
          leaky_relu_backward<T>,
          sigmoid_forward<T>,
          sigmoid_backward<T>,
          tanh_forward<T>,
          tanh_backward<T>,
          neg<T>,
          gelu<T>,
          gelu_backward<T>,
          gelu_tanh<T>,
          gelu_tanh_backward<T>,
          silu<T>,
          silu_backward<T>,
          elu<T>,
          elu_backward<T>,
          softplus<T>,
          softplus_backward<T>,
          exp_forward<T>,
          log_forward<T>,
          sqrt_forward<T>,
          sqrt_backward<T>,
          abs_forward<T>,
          abs_backward<T>,
          clip<T>,
          clip_backward<T>};
}

}  // namespace

void register_elementwise(KernelSet& set) {
  set.f32.elementwise = table<float>();
  set.f64.elementwise = table<double>();
}

}  // namespace pynn::PYNN_ISA
