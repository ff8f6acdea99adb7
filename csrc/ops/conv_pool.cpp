#include "ops/conv_pool.h"

#include "ops/pool.h"
#include "runtime/arena.h"

namespace pynn::ops {
namespace {

PoolShape pool_shape(const ConvShape& s) {
  return {{s.rows.out, s.rows.out / 2, 2, 2, 0, 1}, {s.columns.out, s.columns.out / 2, 2, 2, 0, 1}};
}

}  // namespace

template <class T>
void conv2d_max_pool2d(T* y, uint8_t* indices, const T* x, const T* weight, const T* bias, bool relu,
                       const ConvShape& s) {
  const arena::Buffer<T> before(s.images * s.outputs * s.rows.out * s.columns.out);
  conv2d(before.get(), x, weight, bias, relu, s);
  max_pool2d(y, indices, before.get(), pool_shape(s), s.images * s.outputs);
}

#define PYNN_INSTANTIATE(T) \
  template void conv2d_max_pool2d(T*, uint8_t*, const T*, const T*, const T*, bool, const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
