#include <atomic>

#include "ops/conv_pool.h"
#include "ops/pool.h"
#include "ops/sparse_conv.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

bool all_inside_window(const uint8_t* indices, int64_t count) {
  std::atomic<bool> inside{true};
  parallel_ranges(count, int64_t(1) << 18, [&](int64_t begin, int64_t end) {
    uint8_t bits = 0;
    for (int64_t i = begin; i < end; ++i) bits |= indices[i];
    if (bits > 3) inside.store(false, std::memory_order_relaxed);
  });
  return inside.load();
}

// Through the gradient of all of the convolution's outputs.
template <class T>
bool dense_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const uint8_t* indices, const T* x,
                    const T* weight, bool relu, const ConvShape& s) {
  static Counter path("conv2d_max_pool2d_backward.dense");
  path.add();
  const int64_t planes = s.images * s.outputs, pooled = planes * (s.rows.out / 2) * (s.columns.out / 2);
  const arena::Buffer<T> masked(relu ? pooled : 0), before(planes * s.rows.out * s.columns.out);
  if (relu) {
    parallel_ranges(pooled, 16384, [&](int64_t begin, int64_t end) {
      kernels<T>().elementwise.relu_backward(masked.get() + begin, dy + begin, y + begin, end - begin);
    });
    dy = masked.get();
  }
  const PoolShape pool{{s.rows.out, s.rows.out / 2, 2, 2, 0, 1}, {s.columns.out, s.columns.out / 2, 2, 2, 0, 1}};
  if (!max_pool2d_backward(before.get(), dy, indices, pool, planes)) return false;
  conv2d_backward(dx, dweight, dbias, before.get(), static_cast<const T*>(nullptr), x, weight, false, s);
  return true;
}

}  // namespace

template <class T>
bool conv2d_max_pool2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const uint8_t* indices,
                                const T* x, const T* weight, bool relu, const ConvShape& s) {
  static Counter data_path("conv2d_max_pool2d_backward.sparse_data");
  static Counter weight_path("conv2d_max_pool2d_backward.sparse_weight");
  if (!all_inside_window(indices, s.images * s.outputs * (s.rows.out / 2) * (s.columns.out / 2))) return false;
  const PooledGradient<T> gradient{dy, relu ? y : nullptr, indices};
  if ((dweight != nullptr || dbias != nullptr) && sparse_dweight_pays<T>(s)) {
    weight_path.add();
    sparse_conv2d_backward_weight(dweight, dbias, gradient, x, s);
    dweight = dbias = nullptr;
  }
  if (dx != nullptr && sparse_dx_pays<T>(s)) {
    data_path.add();
    sparse_conv2d_backward_data(dx, gradient, weight, s);
    dx = nullptr;
  }
  if (dx == nullptr && dweight == nullptr && dbias == nullptr) return true;
  return dense_backward(dx, dweight, dbias, dy, y, indices, x, weight, relu, s);
}

#define PYNN_INSTANTIATE(T)                                                                                          \
  template bool conv2d_max_pool2d_backward(T*, T*, T*, const T*, const T*, const uint8_t*, const T*, const T*, bool, \
                                           const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
