#include "ops/conv.h"

#include "ops/conv_correlate.h"
#include "ops/conv_weight.h"
#include "runtime/counters.h"

namespace pynn::ops {

template <class T>
void conv2d(T* y, const T* x, const T* weight, const T* bias, bool relu, const ConvShape& s) {
  static Counter path("conv2d.direct");
  path.add();
  const AxisPlan rows = forward_plan(s.rows), columns = forward_plan(s.columns);
  correlate<T>({y, nullptr, bias, relu}, x, nullptr, weight, forward_job(rows, columns, s));
}

template <class T>
void conv2d_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const T* x, const T* weight, bool relu,
                     const ConvShape& s) {
  static Counter data_path("conv2d_backward.data"), weight_path("conv2d_backward.weight");
  const T* mask = relu ? y : nullptr;
  if (dx != nullptr && s.images > 0 && s.channels > 0 && s.rows.size > 0 && s.columns.size > 0) {
    data_path.add();
    const AxisPlan rows = backward_plan(s.rows), columns = backward_plan(s.columns);
    correlate<T>({dx}, dy, mask, weight, backward_job(rows, columns, s));
  }
  if (dweight != nullptr || dbias != nullptr) {
    weight_path.add();
    conv2d_backward_weight(dweight, dbias, dy, mask, x, s);
  }
}

#define PYNN_INSTANTIATE(T)                                                       \
  template void conv2d(T*, const T*, const T*, const T*, bool, const ConvShape&); \
  template void conv2d_backward(T*, T*, T*, const T*, const T*, const T*, const T*, bool, const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
