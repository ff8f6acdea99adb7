#include "kernels/elementwise.h"

#include "kernels/table.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// x < 0 is false for NaN, so that NaN passes through, as in PyTorch.
template <class T>
void relu(T* y, const T* x, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> v = load(x + i, lanes);
    store(y + i, select(v < Vec<T>::zero(), Vec<T>::zero(), v), lanes);
  });
}

// y <= 0 is false for NaN as well: its gradient passes.
template <class T>
void relu_backward(T* dx, const T* dy, const T* y, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) {
    const Vec<T> positive = load(y + i, lanes);
    store(dx + i, select(positive <= Vec<T>::zero(), Vec<T>::zero(), load(dy + i, lanes)), lanes);
  });
}

template <class T>
ElementwiseKernels<T> table() {
  return {relu<T>, relu_backward<T>, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
}

}  // namespace

void register_elementwise(KernelSet& set) {
  set.f32.elementwise = table<float>();
  set.f64.elementwise = table<double>();
}

}  // namespace pynn::PYNN_ISA
