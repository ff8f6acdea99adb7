#include "kernels/layout.h"

#include "kernels/table.h"
#include "simd/transpose.h"

namespace pynn::PYNN_ISA {
namespace {

template <class T>
void copy(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t n) {
  if (dst_stride == 1 && src_stride == 1) {
    for_lanes<T>(n, [&](int64_t i, auto lanes) { store(dst + i, load(src + i, lanes), lanes); });
    return;
  }
  for (int64_t i = 0; i < n; ++i) dst[i * dst_stride] = src[i * src_stride];
}

template <class T>
void fill(T* y, T value, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(y + i, Vec<T>(value), lanes); });
}

template <class T>
void accumulate(T* y, const T* x, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(y + i, load(y + i, lanes) + load(x + i, lanes), lanes); });
}

template <class T>
LayoutKernels<T> table() {
  return {transpose<T>, copy<T>, fill<T>, accumulate<T>};
}

}  // namespace

void register_layout(KernelSet& set) {
  set.f32.layout = table<float>();
  set.f64.layout = table<double>();
}

}  // namespace pynn::PYNN_ISA
