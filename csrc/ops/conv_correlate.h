// What forward and data gradient of a convolution have in common: sums of taps, whose places in a source are planned.
#pragma once

#include <cstdint>

#include "ops/conv_plan.h"

namespace pynn::ops {

// How a weight is indexed by the outputs of a group and by the taps (channel, row tap, column tap) that they sum.
struct WeightIndex {
  int64_t output_step, channel_step, row_step;  // in elements; neighbouring columns are neighbours
  int64_t group_step;
};

// y [images, groups * outputs, y_height, y_width] from x [images, groups * channels, height, width]
struct Job {
  const AxisPlan &rows, &columns;
  int64_t images, groups, channels, outputs;  // of one group
  int64_t height, width, y_height, y_width;
  WeightIndex weight;
  int64_t odd_rows = 0, odd_columns = 0;  // of y, which pooling leaves out of y_height and y_width
};

Job forward_job(const AxisPlan& rows, const AxisPlan& columns, const ConvShape& shape);
Job backward_job(const AxisPlan& rows, const AxisPlan& columns, const ConvShape& shape);

// With pool, y and indices are [images, groups * outputs, y_height / 2, y_width / 2]: the maxima of windows of 2 x 2
// and the taps that they come from, unless indices is null. Height and width are then even.
template <class T>
struct CorrelateOut {
  T* y;
  uint8_t* indices = nullptr;
  const T* bias = nullptr;
  bool relu = false;
  bool pool = false;
};

// x reads as 0 where `mask`, if not null, is 0 or less.
template <class T>
void correlate(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job);

// The same by multiply-adds of vectors, whatever the shape.
template <class T>
void correlate_vectors(const CorrelateOut<T>& out, const T* x, const T* mask, const T* weight, const Job& job);

}  // namespace pynn::ops
