#include "ops/conv.h"

#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

using Pair = std::pair<int64_t, int64_t>;
using Pads = std::tuple<int64_t, int64_t, int64_t, int64_t>;  // top, bottom, left, right

// Sizes of x [N, C, H, W] and weight [O, C/groups, KH, KW], checked against each other and the other arguments.
ops::ConvShape conv_shape(const char* op, const Shape& x, const Shape& weight, const Pair& stride, const Pads& padding,
                          const Pair& dilation, int64_t groups) {
  const auto [top, bottom, left, right] = padding;
  if (x.size() != 4) throw_value(op, "input " + to_string(x) + " needs 4 axes, [N, C, H, W]");
  if (weight.size() != 4) throw_value(op, "weight " + to_string(weight) + " needs 4 axes, [O, C/groups, KH, KW]");
  require_range(op, "stride", {stride.first, stride.second}, 1);
  require_range(op, "padding", {top, bottom, left, right}, 0);
  require_range(op, "dilation", {dilation.first, dilation.second}, 1);
  require_range(op, "groups", {groups}, 1);
  if (weight[2] == 0 || weight[3] == 0) throw_value(op, "weight " + to_string(weight) + " has a kernel without taps");
  require_range(op, "kernel", {weight[2], weight[3]}, 1);
  if (x[1] / groups != weight[1] || x[1] % groups != 0) {
    throw_value(op, "input " + to_string(x) + " has " + std::to_string(x[1]) + " channels, weight " +
                        to_string(weight) + " expects " + std::to_string(weight[1] * groups) +
                        (groups > 1 ? " in " + std::to_string(groups) + " groups" : ""));
  }
  if (weight[0] % groups != 0) {
    throw_value(op, "weight " + to_string(weight) + " has " + std::to_string(weight[0]) +
                        " output channels, which do not divide into " + std::to_string(groups) + " groups");
  }
  const int64_t height = x[2] + top + bottom, width = x[3] + left + right;
  const int64_t span_height = dilation.first * (weight[2] - 1) + 1, span_width = dilation.second * (weight[3] - 1) + 1;
  if (span_height > height || span_width > width) {
    throw_value(op, "kernel " + to_string({weight[2], weight[3]}) + " with dilation " +
                        to_string({dilation.first, dilation.second}) + " is larger than input " + to_string(x) +
                        " with padding " + to_string({top, bottom, left, right}));
  }
  // A weight without elements has no taps, and its kernel may be larger than can be counted through.
  const bool no_taps = weight[0] == 0 || weight[1] == 0;
  const int64_t kernel_height = no_taps ? 0 : weight[2], kernel_width = no_taps ? 0 : weight[3];
  checked_size(op, {x[1], height, width});       // the scratch of the forward
  checked_size(op, {weight[0], height, width});  // and of the backward
  return {x[0],
          x[1],
          weight[0],
          groups,
          {x[2], kernel_height, (height - span_height) / stride.first + 1, stride.first, top, dilation.first},
          {x[3], kernel_width, (width - span_width) / stride.second + 1, stride.second, left, dilation.second}};
}

Shape output_shape(const ops::ConvShape& s) { return {s.images, s.outputs, s.rows.out, s.columns.out}; }

py::array conv2d(const py::array& x_array, const py::array& weight_array, const std::optional<py::array>& bias_array,
                 const Pair& stride, const Pads& padding, const Pair& dilation, int64_t groups) {
  constexpr const char* op = "conv2d";
  return by_dtype(op, "input", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "input", x_array), weight = view<T>(op, "weight", weight_array);
    const ops::ConvShape shape = conv_shape(op, x.shape, weight.shape, stride, padding, dilation, groups);
    const T* bias = optional_data<T>(op, "bias", bias_array, {shape.outputs});
    py::array_t<T> y = empty<T>(op, output_shape(shape));
    T* y_data = data_of(y);
    {
      const py::gil_scoped_release nogil;
      ops::conv2d(y_data, x.data, weight.data, bias, shape);
    }
    return y;
  });
}

py::tuple conv2d_backward(const py::array& dy_array, const py::array& x_array, const py::array& weight_array,
                          const Pair& stride, const Pads& padding, const Pair& dilation, int64_t groups, bool need_dx,
                          bool need_dweight, bool need_dbias) {
  constexpr const char* op = "conv2d_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), x = view<T>(op, "input", x_array);
    const View<T> weight = view<T>(op, "weight", weight_array);
    const ops::ConvShape shape = conv_shape(op, x.shape, weight.shape, stride, padding, dilation, groups);
    require_shape(op, "dy", dy.shape, output_shape(shape));
    std::optional<py::array_t<T>> dx, dweight, dbias;
    if (need_dx) dx = empty<T>(op, x.shape);
    if (need_dweight) dweight = empty<T>(op, weight.shape);
    if (need_dbias) dbias = empty<T>(op, {shape.outputs});
    T* dx_data = dx ? data_of(*dx) : nullptr;
    T* dweight_data = dweight ? data_of(*dweight) : nullptr;
    T* dbias_data = dbias ? data_of(*dbias) : nullptr;
    {
      const py::gil_scoped_release nogil;
      ops::conv2d_backward(dx_data, dweight_data, dbias_data, dy.data, x.data, weight.data, shape);
    }
    return py::make_tuple(dx, dweight, dbias);
  });
}

}  // namespace

void bind_conv(py::module_& m) {
  m.def("conv2d", conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"));
  m.def("conv2d_backward", conv2d_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("need_dx"), py::arg("need_dweight"),
        py::arg("need_dbias"));
}

}  // namespace pynn::bindings
