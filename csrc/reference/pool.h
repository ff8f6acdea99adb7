// The naive twin of pooling: every tap of every window, each asked whether it lies on the input.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/pool.h"

namespace pynn::reference {

// visit(tap, in, out): element offsets of a tap that lies on the input, and of its window's output
template <class Visit>
void for_taps(const PoolShape& s, int64_t planes, Visit visit) {
  for (int64_t out = 0; out < planes * s.rows.out * s.columns.out; ++out) {
    const int64_t plane = out / (s.rows.out * s.columns.out), row = out / s.columns.out % s.rows.out;
    const int64_t column = out % s.columns.out;
    for (int64_t tap = 0; tap < s.rows.kernel * s.columns.kernel; ++tap) {
      const int64_t h = row * s.rows.stride - s.rows.padding + tap / s.columns.kernel * s.rows.dilation;
      const int64_t w = column * s.columns.stride - s.columns.padding + tap % s.columns.kernel * s.columns.dilation;
      if (h < 0 || h >= s.rows.size || w < 0 || w >= s.columns.size) continue;
      visit(tap, (plane * s.rows.size + h) * s.columns.size + w, out);
    }
  }
}

// y, indices [planes, out_height, out_width]
template <class T, class Index>
void max_pool2d(T* y, Index* indices, const T* x, const PoolShape& s, int64_t planes) {
  const int64_t outputs = planes * s.rows.out * s.columns.out;
  for (int64_t i = 0; i < outputs; ++i) {
    y[i] = -std::numeric_limits<T>::infinity();
    indices[i] = 0;
  }
  std::vector<bool> found(static_cast<size_t>(outputs));
  for_taps(s, planes, [&](int64_t tap, int64_t in, int64_t out) {
    const bool better = x[in] > y[out] || (std::isnan(x[in]) && !std::isnan(y[out]));
    if (found[static_cast<size_t>(out)] && !better) return;
    found[static_cast<size_t>(out)] = true;
    y[out] = x[in];
    indices[out] = static_cast<Index>(tap);
  });
}

// dx [planes, height, width], zeros before
template <class T, class Index>
void max_pool2d_backward(double* dx, const T* dy, const Index* indices, const PoolShape& s, int64_t planes) {
  for_taps(s, planes, [&](int64_t tap, int64_t in, int64_t out) {
    if (static_cast<int64_t>(indices[out]) == tap) dx[in] += static_cast<double>(dy[out]);
  });
}

// How many elements window `out` averages along an axis.
inline int64_t averaged(const PoolAxis& axis, int64_t out, bool count_include_pad) {
  int64_t count = 0;
  for (int64_t tap = 0; tap < axis.kernel; ++tap) {
    const int64_t at = out * axis.stride - axis.padding + tap;
    if (count_include_pad ? at < axis.size + axis.padding : at >= 0 && at < axis.size) ++count;
  }
  return count;
}

inline double divisor(const PoolShape& s, int64_t out, bool count_include_pad) {
  return static_cast<double>(averaged(s.rows, out / s.columns.out % s.rows.out, count_include_pad) *
                             averaged(s.columns, out % s.columns.out, count_include_pad));
}

// y [planes, out_height, out_width], zeros before
template <class T>
void avg_pool2d(double* y, const T* x, const PoolShape& s, bool count_include_pad, int64_t planes) {
  for_taps(s, planes, [&](int64_t, int64_t in, int64_t out) {
    y[out] += static_cast<double>(x[in]) / divisor(s, out, count_include_pad);
  });
}

// dx [planes, height, width], zeros before
template <class T>
void avg_pool2d_backward(double* dx, const T* dy, const PoolShape& s, bool count_include_pad, int64_t planes) {
  for_taps(s, planes, [&](int64_t, int64_t in, int64_t out) {
    dx[in] += static_cast<double>(dy[out]) / divisor(s, out, count_include_pad);
  });
}

}  // namespace pynn::reference
