#include "ops/conv_pool.h"
#include "ops/elementwise.h"
#include "ops/pool.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

template <class T>
bool conv2d_max_pool2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const uint8_t* indices,
                                const T* x, const T* weight, bool relu, const ConvShape& s) {
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

#define PYNN_INSTANTIATE(T)                                                                                          \
  template bool conv2d_max_pool2d_backward(T*, T*, T*, const T*, const T*, const uint8_t*, const T*, const T*, bool, \
                                           const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
