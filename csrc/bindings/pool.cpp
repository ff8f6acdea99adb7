#include "ops/pool.h"

#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

using Pair = std::pair<int64_t, int64_t>;

Shape to_shape(const Pair& pair) { return {pair.first, pair.second}; }

int64_t pooled_size(const PoolAxis& axis, bool ceil_mode) {
  const int64_t span = axis.dilation * (axis.kernel - 1) + 1, room = axis.size + 2 * axis.padding - span;
  if (room < 0) return 0;
  const int64_t windows = room / axis.stride + 1;
  // With ceil_mode a last window may overhang, if it begins inside the input or the padding before it.
  const bool one_more = ceil_mode && room % axis.stride != 0 && windows * axis.stride < axis.size + axis.padding;
  return windows + (one_more ? 1 : 0);
}

// The axes without their output sizes, all arguments checked.
PoolShape pool_axes(const char* op, const Shape& x, const Pair& kernel, const Pair& stride, const Pair& padding,
                    const Pair& dilation) {
  if (x.size() != 4) throw_value(op, "input " + to_string(x) + " needs 4 axes, [N, C, H, W]");
  checked_size(op, x);
  if (x[2] == 0 || x[3] == 0) throw_value(op, "input " + to_string(x) + " has images without pixels");
  require_range(op, "kernel", to_shape(kernel), 1);
  require_range(op, "stride", to_shape(stride), 1);
  require_range(op, "padding", to_shape(padding), 0);
  require_range(op, "dilation", to_shape(dilation), 1);
  const PoolShape shape{{x[2], 0, kernel.first, stride.first, padding.first, dilation.first},
                        {x[3], 0, kernel.second, stride.second, padding.second, dilation.second}};
  for (const PoolAxis& axis : {shape.rows, shape.columns}) {
    if (axis.padding > axis.kernel / 2) {
      throw_value(op, "padding " + to_string(to_shape(padding)) + " is more than half of kernel " +
                          to_string(to_shape(kernel)));
    }
  }
  if (kernel.first * kernel.second > INT32_MAX) {
    throw_value(op, "kernel " + to_string(to_shape(kernel)) + " has more taps than an index can count");
  }
  return shape;
}

PoolShape pool_shape(const char* op, const Shape& x, const Pair& kernel, const Pair& stride, const Pair& padding,
                     const Pair& dilation, bool ceil_mode) {
  PoolShape shape = pool_axes(op, x, kernel, stride, padding, dilation);
  for (PoolAxis* axis : {&shape.rows, &shape.columns}) {
    axis->out = pooled_size(*axis, ceil_mode);
    if (axis->out == 0) {
      throw_value(op, "kernel " + to_string(to_shape(kernel)) + " with dilation " + to_string(to_shape(dilation)) +
                          " is larger than input " + to_string(x) + " with padding " + to_string(to_shape(padding)));
    }
  }
  return shape;
}

// The same for a backward, where dy tells whether ceil_mode made the output.
PoolShape pool_shape_of_output(const char* op, const Shape& x, const Shape& dy, const Pair& kernel, const Pair& stride,
                               const Pair& padding, const Pair& dilation) {
  PoolShape shape = pool_axes(op, x, kernel, stride, padding, dilation);
  const Shape smallest = {x[0], x[1], pooled_size(shape.rows, false), pooled_size(shape.columns, false)};
  const Shape largest = {x[0], x[1], pooled_size(shape.rows, true), pooled_size(shape.columns, true)};
  if (dy != smallest && dy != largest) {
    throw_value(op, "dy is " + to_string(dy) + ", input " + to_string(x) + " needs " + to_string(smallest) +
                        (largest != smallest ? ", or " + to_string(largest) + " with ceil_mode" : ""));
  }
  shape.rows.out = dy[2];
  shape.columns.out = dy[3];
  return shape;
}

// Calls fn(Index{}) with the type that can count the taps of the kernel.
template <class Function>
auto by_taps(const Pair& kernel, const Function& fn) {
  return kernel.first * kernel.second <= 256 ? fn(uint8_t{}) : fn(int32_t{});
}

py::tuple max_pool2d(const py::array& x_array, const Pair& kernel, const Pair& stride, const Pair& padding,
                     const Pair& dilation, bool ceil_mode) {
  constexpr const char* op = "max_pool2d";
  return by_dtype(op, "input", x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "input", x_array);
    const PoolShape shape = pool_shape(op, x.shape, kernel, stride, padding, dilation, ceil_mode);
    const int64_t planes = x.shape[0] * x.shape[1];
    const Shape y_shape = {x.shape[0], x.shape[1], shape.rows.out, shape.columns.out};
    return by_taps(kernel, [&](auto index) -> py::tuple {
      using Index = decltype(index);
      py::array_t<T> y = empty<T>(op, y_shape);
      py::array_t<Index> indices = empty<Index>(op, y_shape);
      T* y_data = data_of(y);
      Index* index_data = data_of(indices);
      launch([=, x = x.data] { ops::max_pool2d(y_data, index_data, x, shape, planes); });
      return py::make_tuple(y, indices);
    });
  });
}

py::array max_pool2d_backward(const py::array& dy_array, const py::array& indices_array, const Shape& x_shape,
                              const Pair& kernel, const Pair& stride, const Pair& padding, const Pair& dilation) {
  constexpr const char* op = "max_pool2d_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    const PoolShape shape = pool_shape_of_output(op, x_shape, dy.shape, kernel, stride, padding, dilation);
    return by_taps(kernel, [&](auto index) -> py::array {
      using Index = decltype(index);
      const View<Index> indices = view<Index>(op, "indices", indices_array);
      require_shape(op, "indices", indices.shape, dy.shape);
      py::array_t<T> dx = empty<T>(op, x_shape);
      T* dx_data = data_of(dx);
      const int64_t planes = x_shape[0] * x_shape[1], taps = kernel.first * kernel.second;
      launch([=, dy = dy.data, indices = indices.data] {
        if (!ops::max_pool2d_backward(dx_data, dy, indices, shape, planes)) {
          throw_index(op, "indices holds an index outside 0.." + std::to_string(taps - 1));
        }
      });
      return dx;
    });
  });
}

py::array avg_pool2d(const py::array& x_array, const Pair& kernel, const Pair& stride, const Pair& padding,
                     bool ceil_mode, bool count_include_pad) {
  constexpr const char* op = "avg_pool2d";
  return by_dtype(op, "input", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "input", x_array);
    const PoolShape shape = pool_shape(op, x.shape, kernel, stride, padding, {1, 1}, ceil_mode);
    const int64_t planes = x.shape[0] * x.shape[1];
    py::array_t<T> y = empty<T>(op, {x.shape[0], x.shape[1], shape.rows.out, shape.columns.out});
    T* y_data = data_of(y);
    launch([=, x = x.data] { ops::avg_pool2d(y_data, x, shape, count_include_pad, planes); });
    return y;
  });
}

py::array avg_pool2d_backward(const py::array& dy_array, const Shape& x_shape, const Pair& kernel, const Pair& stride,
                              const Pair& padding, bool count_include_pad) {
  constexpr const char* op = "avg_pool2d_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    const PoolShape shape = pool_shape_of_output(op, x_shape, dy.shape, kernel, stride, padding, {1, 1});
    py::array_t<T> dx = empty<T>(op, x_shape);
    T* dx_data = data_of(dx);
    const int64_t planes = x_shape[0] * x_shape[1];
    launch([=, dy = dy.data] { ops::avg_pool2d_backward(dx_data, dy, shape, count_include_pad, planes); });
    return dx;
  });
}

}  // namespace

void bind_pool(py::module_& m) {
  m.def("max_pool2d", max_pool2d, py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("ceil_mode"));
  m.def("max_pool2d_backward", max_pool2d_backward, py::arg("dy"), py::arg("indices"), py::arg("x_shape"),
        py::arg("kernel"), py::arg("stride"), py::arg("padding"), py::arg("dilation"));
  m.def("avg_pool2d", avg_pool2d, py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("padding"),
        py::arg("ceil_mode"), py::arg("count_include_pad"));
  m.def("avg_pool2d_backward", avg_pool2d_backward, py::arg("dy"), py::arg("x_shape"), py::arg("kernel"),
        py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"));
}

}  // namespace pynn::bindings
