#include "ops/reduction.h"

#include <pybind11/stl.h>

#include "bindings/array.h"
#include "ops/broadcast.h"

namespace pynn::bindings {
namespace {

// Which axes of a shape are reduced, and the shapes that this leaves.
struct ReducedAxes {
  Shape shape, kept_shape, dropped_shape;  // kept: reduced axes have size 1; dropped: they are gone
  bool reduced[ops::kMaxAxes] = {};
  int64_t count = 1, kept = 1;

  ReducedAxes(const char* op, const Shape& x, const Shape& axes) : shape(x), kept_shape(x) {
    int64_t before = -1;
    for (const int64_t axis : axes) {
      if (axis <= before || axis >= static_cast<int64_t>(x.size())) {
        throw_value(op, "axes " + to_string(axes) + " of x " + to_string(x) + " are not sorted and within 0.." +
                            std::to_string(static_cast<int64_t>(x.size()) - 1));
      }
      before = axis;
      reduced[axis] = true;
      kept_shape[static_cast<size_t>(axis)] = 1;
    }
    for (size_t i = 0; i < x.size(); ++i) {
      if (!reduced[i]) dropped_shape.push_back(x[i]);
    }
    kept = checked_size(op, kept_shape);
    // x may be empty, and these products still be too large.
    for (size_t i = 0; i < x.size(); ++i) {
      if (reduced[i] && __builtin_mul_overflow(count, x[i], &count)) {
        throw_value(op, "x " + to_string(x) + " has more elements than memory can hold");
      }
    }
  }

  ops::Axes axes() const { return {shape.data(), reduced, static_cast<int>(shape.size()), count, kept}; }
};

// compute(y, x, axes) on a new y
template <class Compute>
py::array reduce(const char* op, const py::array& x_array, const Shape& axes, bool keepdims, bool of_nothing,
                 const Compute& compute) {
  return by_dtype(op, "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array);
    const ReducedAxes over(op, x.shape, axes);
    if (over.count == 0 && !of_nothing) {
      throw_value(
          op, "x " + to_string(x.shape) + " has no elements along axes " + to_string(axes) + ", needs at least one");
    }
    py::array_t<T> y = empty<T>(op, keepdims ? over.kept_shape : over.dropped_shape);
    T* y_data = data_of(y);
    launch([=, x = x.data] { compute(y_data, x, over.axes()); });
    return y;
  });
}

constexpr auto kSum = [](auto* y, const auto* x, const ops::Axes& axes) { ops::sum(y, x, axes); };
constexpr auto kMean = [](auto* y, const auto* x, const ops::Axes& axes) { ops::mean(y, x, axes); };
constexpr auto kMax = [](auto* y, const auto* x, const ops::Axes& axes) { ops::max(y, x, axes); };
constexpr auto kMin = [](auto* y, const auto* x, const ops::Axes& axes) { ops::min(y, x, axes); };

py::array sum(const py::array& x, const Shape& axes, bool keepdims) {
  return reduce("sum", x, axes, keepdims, true, kSum);
}
py::array mean(const py::array& x, const Shape& axes, bool keepdims) {
  return reduce("mean", x, axes, keepdims, true, kMean);
}
py::array max(const py::array& x, const Shape& axes, bool keepdims) {
  return reduce("max", x, axes, keepdims, false, kMax);
}
py::array min(const py::array& x, const Shape& axes, bool keepdims) {
  return reduce("min", x, axes, keepdims, false, kMin);
}
py::array var(const py::array& x, const Shape& axes, int64_t correction, bool keepdims) {
  return reduce("var", x, axes, keepdims, true,
                [=](auto* y, const auto* data, const ops::Axes& over) { ops::var(y, data, correction, over); });
}

py::array argmax(const py::array& x_array, int64_t axis) {
  return by_dtype("argmax", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("argmax", "x", x_array);
    const ReducedAxes over("argmax", x.shape, {axis});
    if (over.count == 0) {
      throw_value("argmax", "x " + to_string(x.shape) + " has no elements along axis " + std::to_string(axis) +
                                ", needs at least one");
    }
    py::array_t<int64_t> y = empty<int64_t>("argmax", over.dropped_shape);
    ops::Middle size{1, over.count, 1};
    for (int64_t i = 0; i < axis; ++i) size.outer *= x.shape[static_cast<size_t>(i)];
    size.inner = size.outer == 0 ? 0 : over.kept / size.outer;
    int64_t* y_data = data_of(y);
    launch([=, x = x.data] { ops::argmax(y_data, x, size); });
    return y;
  });
}

py::array sum_to(const py::array& x_array, const Shape& shape) {
  return by_dtype("sum_to", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("sum_to", "x", x_array);
    const size_t ndim = x.shape.size();
    bool fits = shape.size() <= ndim;
    Shape axes;
    for (size_t i = 0; fits && i < ndim; ++i) {
      const size_t lead = ndim - shape.size();
      const int64_t n = i < lead ? 1 : shape[i - lead];
      if (i < lead || (n == 1 && x.shape[i] != 1)) {
        axes.push_back(static_cast<int64_t>(i));
      } else {
        fits = n == x.shape[i];
      }
    }
    if (!fits) throw_value("sum_to", "shape " + to_string(shape) + " does not broadcast to x " + to_string(x.shape));
    const ReducedAxes over("sum_to", x.shape, axes);
    py::array_t<T> y = empty<T>("sum_to", shape);
    T* y_data = data_of(y);
    launch([=, x = x.data] { ops::sum(y_data, x, over.axes()); });
    return y;
  });
}

py::array extremum_backward(const py::array& dy_array, const py::array& x_array, const py::array& y_array,
                            const Shape& axes) {
  constexpr const char* op = "extremum_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), x = view<T>(op, "x", x_array), y = view<T>(op, "y", y_array);
    const ReducedAxes over(op, x.shape, axes);
    require_shape(op, "dy", dy.shape, over.kept_shape);
    require_shape(op, "y", y.shape, over.kept_shape);
    py::array_t<T> dx = empty<T>(op, x.shape);
    T* dx_data = data_of(dx);
    launch([=, dy = dy.data, x = x.data, y = y.data] { ops::extremum_backward(dx_data, dy, x, y, over.axes()); });
    return dx;
  });
}

py::array var_backward(const py::array& dy_array, const py::array& x_array, const Shape& axes, int64_t correction) {
  constexpr const char* op = "var_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), x = view<T>(op, "x", x_array);
    const ReducedAxes over(op, x.shape, axes);
    require_shape(op, "dy", dy.shape, over.kept_shape);
    py::array_t<T> dx = empty<T>(op, x.shape);
    T* dx_data = data_of(dx);
    launch([=, dy = dy.data, x = x.data] { ops::var_backward(dx_data, dy, x, correction, over.axes()); });
    return dx;
  });
}

}  // namespace

void bind_reduction(py::module_& m) {
  m.def("sum", sum, py::arg("x"), py::arg("axes"), py::arg("keepdims"));
  m.def("mean", mean, py::arg("x"), py::arg("axes"), py::arg("keepdims"));
  m.def("max", max, py::arg("x"), py::arg("axes"), py::arg("keepdims"));
  m.def("min", min, py::arg("x"), py::arg("axes"), py::arg("keepdims"));
  m.def("var", var, py::arg("x"), py::arg("axes"), py::arg("correction"), py::arg("keepdims"));
  m.def("argmax", argmax, py::arg("x"), py::arg("axis"));
  m.def("sum_to", sum_to, py::arg("x"), py::arg("shape"));
  m.def("extremum_backward", extremum_backward, py::arg("dy"), py::arg("x"), py::arg("y"), py::arg("axes"));
  m.def("var_backward", var_backward, py::arg("dy"), py::arg("x"), py::arg("axes"), py::arg("correction"));
}

}  // namespace pynn::bindings
