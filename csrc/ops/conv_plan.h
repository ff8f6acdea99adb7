// What a convolution reads along one axis. The source (see kernels/conv.h) has one or several planes, and every output
// is the sum of taps that lie at fixed distances from it in them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "ops/ceil_div.h"
#include "ops/conv.h"

namespace pynn::ops {

// Output u of a phase reads the source's plane at position u + shift, for kernel tap `index`.
struct AxisTap {
  int64_t index, plane, shift;
};

// Outputs first, first + step, ... that share their taps.
struct AxisOutputs {
  int64_t first, step, count;
  std::vector<AxisTap> taps;
};

struct AxisPlan {
  std::vector<int64_t> first;  // of each plane: what its position 0 holds of the array that is read; negative: zeros
  int64_t step;                // between what two neighbours in a plane hold
  int64_t taps;                // of the kernel
  int64_t halo = 0;            // the largest shift
  std::vector<AxisOutputs> outputs;

  int64_t planes() const { return static_cast<int64_t>(first.size()); }
  int64_t most_outputs() const {
    int64_t most = 0;
    for (const AxisOutputs& o : outputs) most = std::max(most, o.count);
    return most;
  }
  int64_t length() const { return most_outputs() + halo; }
};

// Of the taps of output u those begin..end-1 that fall on the array read, whose size is given; the others read zeros.
inline std::pair<int64_t, int64_t> taps_inside(const AxisPlan& plan, const AxisOutputs& outputs, int64_t u,
                                               int64_t size) {
  const int64_t count = static_cast<int64_t>(outputs.taps.size());
  const auto inside = [&](int64_t i) {
    const AxisTap& tap = outputs.taps[static_cast<size_t>(i)];
    const int64_t at = plan.first[static_cast<size_t>(tap.plane)] + (u + tap.shift) * plan.step;
    return at >= 0 && at < size;
  };
  int64_t begin = 0, end = count;
  while (begin < count && !inside(begin)) ++begin;
  while (end > begin && !inside(end - 1)) --end;
  return {begin, end};
}

// Output u reads x[u * stride + tap * dilation - padding]: of the residues modulo stride, one plane for each that
// occurs.
inline AxisPlan forward_plan(const ConvAxis& axis) {
  AxisPlan plan{{}, axis.stride, axis.kernel, 0, std::vector<AxisOutputs>(1)};
  plan.first.reserve(static_cast<size_t>(std::min(axis.stride, axis.kernel)));
  plan.outputs[0] = {0, 1, axis.out, {}};
  plan.outputs[0].taps.reserve(static_cast<size_t>(axis.kernel));
  for (int64_t tap = 0; tap < axis.kernel; ++tap) {
    const int64_t position = tap * axis.dilation, first = position % axis.stride - axis.padding;
    const int64_t plane = std::find(plan.first.begin(), plan.first.end(), first) - plan.first.begin();
    if (plane == plan.planes()) plan.first.push_back(first);
    plan.outputs[0].taps.push_back({tap, plane, position / axis.stride});
    plan.halo = std::max(plan.halo, position / axis.stride);
  }
  return plan;
}

// dx[h] is the sum of dy[u] over the taps with u * stride + tap * dilation - padding == h: the h of one residue share
// their taps, and neighbours among them read neighbours of dy.
inline AxisPlan backward_plan(const ConvAxis& axis) {
  AxisPlan plan{{0}, 1, axis.kernel, 0, {}};
  int64_t lowest = INT64_MAX;
  for (int64_t h = 0; h < std::min(axis.stride, axis.size); ++h) {
    AxisOutputs outputs{h, axis.stride, ceil_div(axis.size - h, axis.stride), {}};
    for (int64_t tap = 0; tap < axis.kernel; ++tap) {
      const int64_t distance = h + axis.padding - tap * axis.dilation;
      if (distance % axis.stride != 0) continue;
      outputs.taps.push_back({tap, 0, distance / axis.stride});
      lowest = std::min(lowest, distance / axis.stride);
    }
    plan.outputs.push_back(std::move(outputs));
  }
  if (lowest == INT64_MAX) return plan;  // no output of the convolution reads its input
  plan.first[0] = lowest;
  for (AxisOutputs& outputs : plan.outputs) {
    for (AxisTap& tap : outputs.taps) {
      tap.shift -= lowest;
      plan.halo = std::max(plan.halo, tap.shift);
    }
  }
  return plan;
}

}  // namespace pynn::ops
