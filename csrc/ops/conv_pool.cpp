#include "ops/conv_pool.h"

#include "ops/conv_correlate.h"
#include "runtime/counters.h"

namespace pynn::ops {

template <class T>
void conv2d_max_pool2d(T* y, uint8_t* indices, const T* x, const T* weight, const T* bias, bool relu,
                       const ConvShape& s) {
  static Counter path("conv2d_max_pool2d.direct");
  path.add();
  ConvShape covered = s;  // without the last row or column that no window covers
  covered.rows.out -= s.rows.out % 2;
  covered.columns.out -= s.columns.out % 2;
  const AxisPlan rows = forward_plan(covered.rows), columns = forward_plan(covered.columns);
  Job job = forward_job(rows, columns, covered);
  job.odd_rows = s.rows.out - covered.rows.out;
  job.odd_columns = s.columns.out - covered.columns.out;
  correlate<T>({y, indices, bias, relu, true}, x, nullptr, weight, job);
}

#define PYNN_INSTANTIATE(T) \
  template void conv2d_max_pool2d(T*, uint8_t*, const T*, const T*, const T*, bool, const ConvShape&);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
