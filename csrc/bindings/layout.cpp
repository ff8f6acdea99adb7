#include "ops/layout.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

using Pair = std::pair<int64_t, int64_t>;

// The distance of neighbours along each axis of a contiguous array.
Shape strides_of(const Shape& shape) {
  Shape strides(shape.size());
  int64_t step = 1;
  for (size_t a = shape.size(); a-- > 0;) {
    strides[a] = step;
    step *= shape[a];
  }
  return strides;
}

void require_one_per_axis(const char* op, const char* name, size_t got, const Shape& shape) {
  if (got != shape.size()) {
    throw_value(op, std::string(name) + " has " + std::to_string(got) + " entries, x " + to_string(shape) + " needs " +
                        std::to_string(shape.size()));
  }
}

py::array transpose(const py::array& x_array, const Shape& axes) {
  return by_dtype("transpose", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("transpose", "x", x_array);
    Shape sorted = axes;
    std::sort(sorted.begin(), sorted.end());
    for (size_t a = 0; a < std::max(sorted.size(), x.shape.size()); ++a) {
      if (sorted.size() != x.shape.size() || sorted[a] != static_cast<int64_t>(a)) {
        throw_value("transpose",
                    "axes " + to_string(axes) + " are not a permutation of the axes of x " + to_string(x.shape));
      }
    }
    const Shape x_strides = strides_of(x.shape);
    Shape shape;
    for (const int64_t a : axes) shape.push_back(x.shape[static_cast<size_t>(a)]);
    const Shape y_strides = strides_of(shape);
    std::vector<ops::CopyAxis> box;
    for (size_t a = 0; a < axes.size(); ++a)
      box.push_back({shape[a], y_strides[a], x_strides[static_cast<size_t>(axes[a])]});
    py::array_t<T> y = empty<T>("transpose", shape);
    T* y_data = data_of(y);
    launch([=, x = x.data] { ops::strided_copy(y_data, x, box); });
    return y;
  });
}

py::array concatenate(const std::vector<py::array>& arrays, int64_t axis) {
  constexpr const char* op = "concatenate";
  if (arrays.empty()) throw_value(op, "got no arrays, needs at least one");
  return by_dtype(op, "arrays[0]", arrays[0], [&](auto zero) -> py::array {
    using T = decltype(zero);
    std::vector<View<T>> views;
    for (size_t i = 0; i < arrays.size(); ++i) {
      views.push_back(view<T>(op, ("arrays[" + std::to_string(i) + "]").c_str(), arrays[i]));
    }
    Shape shape = views[0].shape;
    if (axis < 0 || axis >= static_cast<int64_t>(shape.size())) {
      throw_value(op, "axis " + std::to_string(axis) + " is not an axis of arrays[0] " + to_string(shape));
    }
    const auto along = static_cast<size_t>(axis);
    shape[along] = 0;
    for (size_t i = 0; i < views.size(); ++i) {
      Shape rest = views[i].shape;
      if (rest.size() == shape.size()) rest[along] = shape[along];
      if (rest != shape) {
        throw_value(op, "arrays[" + std::to_string(i) + "] is " + to_string(views[i].shape) + ", arrays[0] " +
                            to_string(views[0].shape) + "; they may differ only along axis " + std::to_string(axis));
      }
      if (__builtin_add_overflow(shape[along], views[i].shape[along], &shape[along])) {
        throw_value(op, "the arrays are together longer along axis " + std::to_string(axis) + " than an axis can be");
      }
    }
    py::array_t<T> y = empty<T>(op, shape);
    T* y_data = data_of(y);
    const Shape y_strides = strides_of(shape);
    for (const View<T>& x : views) {
      const Shape x_strides = strides_of(x.shape);
      std::vector<ops::CopyAxis> box;
      for (size_t a = 0; a < shape.size(); ++a) box.push_back({x.shape[a], y_strides[a], x_strides[a]});
      launch([=, x = x.data] { ops::strided_copy(y_data, x, box); });
      y_data += x.shape[along] * y_strides[along];
    }
    return y;
  });
}

py::array pad(const py::array& x_array, const std::vector<Pair>& widths, double value) {
  return by_dtype("pad", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("pad", "x", x_array);
    require_one_per_axis("pad", "widths", widths.size(), x.shape);
    Shape shape = x.shape;
    for (size_t a = 0; a < shape.size(); ++a) {
      const auto [before, after] = widths[a];
      if (before < 0 || after < 0) {
        throw_value("pad", "widths " + to_string({before, after}) + " of axis " + std::to_string(a) + " are negative");
      }
      if (__builtin_add_overflow(shape[a], before, &shape[a]) || __builtin_add_overflow(shape[a], after, &shape[a])) {
        throw_value("pad", "widths " + to_string({before, after}) + " are more than an axis can have");
      }
    }
    py::array_t<T> y = empty<T>("pad", shape);
    const Shape x_strides = strides_of(x.shape), y_strides = strides_of(shape);
    std::vector<ops::CopyAxis> box;
    T* y_data = data_of(y);
    int64_t first = 0;
    for (size_t a = 0; a < shape.size(); ++a) {
      box.push_back({x.shape[a], y_strides[a], x_strides[a]});
      first += widths[a].first * y_strides[a];
    }
    const int64_t y_size = y.size();
    launch([=, x = x.data, n = x.size] {
      ops::fill(y_data, static_cast<T>(value), y_size);
      if (n > 0) ops::strided_copy(y_data + first, x, box);
    });
    return y;
  });
}

// The box of x that starts, steps and sizes name, checked to lie inside x: its axes, dense strides on the other side.
struct Box {
  std::vector<Pair> dense_and_x_strides;
  int64_t first = 0;  // offset of the box in x
};

Box checked_box(const char* op, const Shape& x, const Shape& starts, const Shape& steps, const Shape& sizes) {
  require_one_per_axis(op, "starts", starts.size(), x);
  require_one_per_axis(op, "steps", steps.size(), x);
  require_one_per_axis(op, "sizes", sizes.size(), x);
  checked_size(op, sizes);
  const Shape x_strides = strides_of(x), dense = strides_of(sizes);
  Box box;
  for (size_t a = 0; a < x.size(); ++a) {
    int64_t last = 0;
    const bool overflow =
        __builtin_mul_overflow(steps[a], sizes[a] - 1, &last) || __builtin_add_overflow(last, starts[a], &last);
    const auto inside = [&](int64_t i) { return i >= 0 && i < x[a]; };
    if (steps[a] == 0 || (sizes[a] > 0 && (overflow || !inside(starts[a]) || !inside(last)))) {
      throw_value(op, "start " + std::to_string(starts[a]) + ", step " + std::to_string(steps[a]) + ", size " +
                          std::to_string(sizes[a]) + " leave axis " + std::to_string(a) + " of x " + to_string(x));
    }
    box.dense_and_x_strides.emplace_back(dense[a], sizes[a] > 1 ? steps[a] * x_strides[a] : x_strides[a]);
    if (sizes[a] > 0) box.first += starts[a] * x_strides[a];
  }
  return box;
}

py::array slice(const py::array& x_array, const Shape& starts, const Shape& steps, const Shape& sizes) {
  return by_dtype("slice", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("slice", "x", x_array);
    const Box box = checked_box("slice", x.shape, starts, steps, sizes);
    std::vector<ops::CopyAxis> axes;
    for (size_t a = 0; a < sizes.size(); ++a) {
      axes.push_back({sizes[a], box.dense_and_x_strides[a].first, box.dense_and_x_strides[a].second});
    }
    py::array_t<T> y = empty<T>("slice", sizes);
    T* y_data = data_of(y);
    if (y.size() == 0) return y;
    launch([=, x = x.data] { ops::strided_copy(y_data, x + box.first, axes); });
    return y;
  });
}

py::array slice_backward(const py::array& dy_array, const Shape& x_shape, const Shape& starts, const Shape& steps) {
  constexpr const char* op = "slice_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    checked_size(op, x_shape);
    const Box box = checked_box(op, x_shape, starts, steps, dy.shape);
    std::vector<ops::CopyAxis> axes;
    for (size_t a = 0; a < dy.shape.size(); ++a) {
      axes.push_back({dy.shape[a], box.dense_and_x_strides[a].second, box.dense_and_x_strides[a].first});
    }
    py::array_t<T> dx = empty<T>(op, x_shape);
    T* dx_data = data_of(dx);
    const int64_t dx_size = dx.size();
    launch([=, dy = dy.data, n = dy.size] {
      ops::fill(dx_data, T(0), dx_size);
      if (n > 0) ops::strided_copy(dx_data + box.first, dy, axes);
    });
    return dx;
  });
}

}  // namespace

void bind_layout(py::module_& m) {
  m.def("transpose", transpose, py::arg("x"), py::arg("axes"));
  m.def("concatenate", concatenate, py::arg("arrays"), py::arg("axis"));
  m.def("pad", pad, py::arg("x"), py::arg("widths"), py::arg("value"));
  m.def("slice", slice, py::arg("x"), py::arg("starts"), py::arg("steps"), py::arg("sizes"));
  m.def("slice_backward", slice_backward, py::arg("dy"), py::arg("x_shape"), py::arg("starts"), py::arg("steps"));
}

}  // namespace pynn::bindings
