#include "ops/conv.h"

#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>

#include "bindings/array.h"
#include "ops/conv_pool.h"

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

Shape pooled_shape(const char* op, const ops::ConvShape& s) {
  if (s.rows.out < 2 || s.columns.out < 2) {
    throw_value(op, "the convolution's output " + to_string(output_shape(s)) + " has no window of [2, 2]");
  }
  return {s.images, s.outputs, s.rows.out / 2, s.columns.out / 2};
}

bool is_relu(const char* op, const std::string& activation) {
  if (activation != "none" && activation != "relu") {
    throw_value(op, "activation \"" + activation + "\" is not one of none, relu");
  }
  return activation == "relu";
}

// What all four operations are given, checked.
template <class T>
struct Arguments {
  View<T> x, weight;
  ops::ConvShape shape;
  bool relu;

  Arguments(const char* op, const py::array& x_array, const py::array& weight_array, const Pair& stride,
            const Pads& padding, const Pair& dilation, int64_t groups, const std::string& activation)
      : x(view<T>(op, "input", x_array)),
        weight(view<T>(op, "weight", weight_array)),
        shape(conv_shape(op, x.shape, weight.shape, stride, padding, dilation, groups)),
        relu(is_relu(op, activation)) {}
};

py::array conv2d(const py::array& x_array, const py::array& weight_array, const std::optional<py::array>& bias_array,
                 const Pair& stride, const Pads& padding, const Pair& dilation, int64_t groups,
                 const std::string& activation) {
  constexpr const char* op = "conv2d";
  return by_dtype(op, "input", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const Arguments<T> a(op, x_array, weight_array, stride, padding, dilation, groups, activation);
    const T* bias = optional_data<T>(op, "bias", bias_array, {a.shape.outputs});
    py::array_t<T> y = empty<T>(op, output_shape(a.shape));
    T* y_data = data_of(y);
    launch([=, x = a.x.data, weight = a.weight.data, relu = a.relu, shape = a.shape] {
      ops::conv2d(y_data, x, weight, bias, relu, shape);
    });
    return y;
  });
}

py::tuple conv2d_max_pool2d(const py::array& x_array, const py::array& weight_array,
                            const std::optional<py::array>& bias_array, const Pair& stride, const Pads& padding,
                            const Pair& dilation, int64_t groups, const std::string& activation, bool need_indices) {
  constexpr const char* op = "conv2d_max_pool2d";
  return by_dtype(op, "input", x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Arguments<T> a(op, x_array, weight_array, stride, padding, dilation, groups, activation);
    const T* bias = optional_data<T>(op, "bias", bias_array, {a.shape.outputs});
    const Shape y_shape = pooled_shape(op, a.shape);
    py::array_t<T> y = empty<T>(op, y_shape);
    std::optional<py::array_t<uint8_t>> indices;
    if (need_indices) indices = empty<uint8_t>(op, y_shape);
    T* y_data = data_of(y);
    uint8_t* index_data = need_indices ? data_of(*indices) : nullptr;
    launch([=, x = a.x.data, weight = a.weight.data, relu = a.relu, shape = a.shape] {
      ops::conv2d_max_pool2d(y_data, index_data, x, weight, bias, relu, shape);
    });
    return py::make_tuple(y, indices);
  });
}

// The gradients that are asked for, as new arrays.
template <class T>
struct Gradients {
  std::optional<py::array_t<T>> dx, dweight, dbias;

  Gradients(const char* op, const Shape& x, const Shape& weight, bool need_dx, bool need_dweight, bool need_dbias) {
    if (need_dx) dx = empty<T>(op, x);
    if (need_dweight) dweight = empty<T>(op, weight);
    if (need_dbias) dbias = empty<T>(op, {weight[0]});
  }
};

py::tuple conv2d_backward(const py::array& dy_array, const std::optional<py::array>& y_array, const py::array& x_array,
                          const py::array& weight_array, const Pair& stride, const Pads& padding, const Pair& dilation,
                          int64_t groups, const std::string& activation, bool need_dx, bool need_dweight,
                          bool need_dbias) {
  constexpr const char* op = "conv2d_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    const Arguments<T> a(op, x_array, weight_array, stride, padding, dilation, groups, activation);
    require_shape(op, "dy", dy.shape, output_shape(a.shape));
    const T* y = optional_data<T>(op, "y", y_array, dy.shape);
    if (a.relu && y == nullptr) throw_value(op, "y is None, activation \"relu\" needs it");
    Gradients<T> gradients(op, a.x.shape, a.weight.shape, need_dx, need_dweight, need_dbias);
    T *dx = data_of(gradients.dx), *dweight = data_of(gradients.dweight), *dbias = data_of(gradients.dbias);
    launch([=, dy = dy.data, x = a.x.data, weight = a.weight.data, relu = a.relu, shape = a.shape] {
      ops::conv2d_backward(dx, dweight, dbias, dy, y, x, weight, relu, shape);
    });
    return py::make_tuple(gradients.dx, gradients.dweight, gradients.dbias);
  });
}

py::tuple conv2d_max_pool2d_backward(const py::array& dy_array, const py::array& y_array,
                                     const py::array& indices_array, const py::array& x_array,
                                     const py::array& weight_array, const Pair& stride, const Pads& padding,
                                     const Pair& dilation, int64_t groups, const std::string& activation, bool need_dx,
                                     bool need_dweight, bool need_dbias) {
  constexpr const char* op = "conv2d_max_pool2d_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array);
    const View<uint8_t> indices = view<uint8_t>(op, "indices", indices_array);
    const Arguments<T> a(op, x_array, weight_array, stride, padding, dilation, groups, activation);
    require_shape(op, "dy", dy.shape, pooled_shape(op, a.shape));
    require_shape(op, "y", y.shape, dy.shape);
    require_shape(op, "indices", indices.shape, dy.shape);
    Gradients<T> gradients(op, a.x.shape, a.weight.shape, need_dx, need_dweight, need_dbias);
    T *dx = data_of(gradients.dx), *dweight = data_of(gradients.dweight), *dbias = data_of(gradients.dbias);
    launch([=, dy = dy.data, y = y.data, indices = indices.data, x = a.x.data, weight = a.weight.data, relu = a.relu,
            shape = a.shape] {
      if (!ops::conv2d_max_pool2d_backward(dx, dweight, dbias, dy, y, indices, x, weight, relu, shape)) {
        throw_index(op, "indices holds an index outside 0..3");
      }
    });
    return py::make_tuple(gradients.dx, gradients.dweight, gradients.dbias);
  });
}

}  // namespace

void bind_conv(py::module_& m) {
  m.def("conv2d", conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"), py::arg("activation"));
  m.def("conv2d_backward", conv2d_backward, py::arg("dy"), py::arg("y"), py::arg("x"), py::arg("weight"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("activation"),
        py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
  m.def("conv2d_max_pool2d", conv2d_max_pool2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"),
        py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("activation"),
        py::arg("need_indices") = true);
  m.def("conv2d_max_pool2d_backward", conv2d_max_pool2d_backward, py::arg("dy"), py::arg("y"), py::arg("indices"),
        py::arg("x"), py::arg("weight"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        py::arg("activation"), py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
}

}  // namespace pynn::bindings
