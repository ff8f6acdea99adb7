#include "ops/broadcast.h"

#include <pybind11/stl.h>

#include "bindings/elements.h"
#include "runtime/dispatch.h"

namespace pynn::bindings {
namespace {

template <class T>
using Binary = typename BroadcastKernels<T>::Binary BroadcastKernels<T>::*;
template <class T>
using BinaryBackward = typename BroadcastKernels<T>::BinaryBackward BroadcastKernels<T>::*;

// The shape that a and b broadcast to, by NumPy's rule.
Shape broadcast_shape(const char* op, const Shape& a, const Shape& b) {
  const Shape &longer = a.size() >= b.size() ? a : b, &shorter = a.size() >= b.size() ? b : a;
  Shape shape = longer;
  for (size_t i = 1; i <= shorter.size(); ++i) {
    int64_t& n = shape[shape.size() - i];
    const int64_t other = shorter[shorter.size() - i];
    if (n == 1) n = other;
    if (other != 1 && other != n) {
      throw_value(op, "shapes " + to_string(a) + " and " + to_string(b) + " do not broadcast to one shape");
    }
  }
  return shape;
}

int ndim(const Shape& shape) { return static_cast<int>(shape.size()); }

ops::Broadcast<2> broadcast(const Shape& shape, const Shape& a, const Shape& b) {
  return {shape.data(), ndim(shape), {a.data(), b.data()}, {ndim(a), ndim(b)}};
}

py::array binary(const char* op, const py::array& a_array, const py::array& b_array, Binary<float> f32,
                 Binary<double> f64) {
  return by_dtype(op, "a", a_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> a = view<T>(op, "a", a_array), b = view<T>(op, "b", b_array);
    typename BroadcastKernels<T>::Binary kernel;
    if constexpr (sizeof(T) == 4) {
      kernel = kernels<T>().broadcast.*f32;
    } else {
      kernel = kernels<T>().broadcast.*f64;
    }
    T *const a_data = const_cast<T*>(a.data), *const b_data = const_cast<T*>(b.data);
    // Most often: nothing to plan, and nothing for the computation to carry along.
    if (a.shape == b.shape) {
      py::array_t<T> y = empty<T>(op, a.shape);
      launch_elements<T, 3>(op, a.size, {data_of(y), a_data, b_data},
                            [kernel](const auto& at, int64_t n) { kernel(at[0], {at[1], 0, 1}, {at[2], 0, 1}, 1, n); });
      return y;
    }
    const Shape shape = broadcast_shape(op, a.shape, b.shape);
    py::array_t<T> y = empty<T>(op, shape);
    T* y_data = data_of(y);
    if (b.size == 1 && shape == a.shape) {
      launch_elements<T, 2>(op, a.size, {y_data, a_data}, [kernel, b_data](const auto& at, int64_t n) {
        kernel(at[0], {at[1], 0, 1}, {b_data, 0, 0}, 1, n);
      });
      return y;
    }
    if (a.size == 1 && shape == b.shape) {
      launch_elements<T, 2>(op, b.size, {y_data, b_data}, [kernel, a_data](const auto& at, int64_t n) {
        kernel(at[0], {a_data, 0, 0}, {at[1], 0, 1}, 1, n);
      });
      return y;
    }
    const ops::Broadcast<2> g = broadcast(shape, a.shape, b.shape);
    launch([=, a = a.data, b = b.data] { ops::binary<T>(kernel, y_data, a, b, g); });
    return y;
  });
}

py::array pow(const py::array& a_array, const py::array& b_array) {
  return by_dtype("pow", "a", a_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> a = view<T>("pow", "a", a_array), b = view<T>("pow", "b", b_array);
    const Shape shape = broadcast_shape("pow", a.shape, b.shape);
    py::array_t<T> y = empty<T>("pow", shape);
    T* y_data = data_of(y);
    const ops::Broadcast<2> g = broadcast(shape, a.shape, b.shape);
    launch([=, a = a.data, b = b.data, n = b.size] { ops::pow(y_data, a, b, n, g); });
    return y;
  });
}

py::array where(const py::array& condition_array, const py::array& a_array, const py::array& b_array) {
  return by_dtype("where", "a", a_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<bool> condition = view<bool>("where", "condition", condition_array);
    const View<T> a = view<T>("where", "a", a_array), b = view<T>("where", "b", b_array);
    const Shape shape = broadcast_shape("where", broadcast_shape("where", condition.shape, a.shape), b.shape);
    py::array_t<T> y = empty<T>("where", shape);
    T* y_data = data_of(y);
    const ops::Broadcast<3> g(shape.data(), ndim(shape), {condition.shape.data(), a.shape.data(), b.shape.data()},
                              {ndim(condition.shape), ndim(a.shape), ndim(b.shape)});
    launch([=, condition = condition.data, a = a.data, b = b.data] { ops::where(y_data, condition, a, b, g); });
    return y;
  });
}

// Launches compute(da, db) on two new arrays of dy's shape.
template <class T, class Compute>
py::tuple two_gradients(const char* op, const Shape& shape, const Compute& compute) {
  py::array_t<T> da = empty<T>(op, shape), db = empty<T>(op, shape);
  T *da_data = data_of(da), *db_data = data_of(db);
  launch([=] { compute(da_data, db_data); });
  return py::make_tuple(da, db);
}

py::tuple binary_backward(const char* op, const py::array& dy_array, const py::array& a_array, const py::array& b_array,
                          BinaryBackward<float> f32, BinaryBackward<double> f64) {
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), a = view<T>(op, "a", a_array), b = view<T>(op, "b", b_array);
    require_shape(op, "dy", dy.shape, broadcast_shape(op, a.shape, b.shape));
    const ops::Broadcast<2> g = broadcast(dy.shape, a.shape, b.shape);
    return two_gradients<T>(op, dy.shape, [=, dy = dy.data, a = a.data, b = b.data](T* da, T* db) {
      if constexpr (sizeof(T) == 4) {
        ops::binary_backward<T>(kernels<T>().broadcast.*f32, da, db, dy, a, b, g);
      } else {
        ops::binary_backward<T>(kernels<T>().broadcast.*f64, da, db, dy, a, b, g);
      }
    });
  });
}

py::tuple pow_backward(const py::array& dy_array, const py::array& a_array, const py::array& b_array,
                       const py::array& y_array) {
  constexpr const char* op = "pow_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), a = view<T>(op, "a", a_array), b = view<T>(op, "b", b_array);
    const View<T> y = view<T>(op, "y", y_array);
    require_shape(op, "dy", dy.shape, broadcast_shape(op, a.shape, b.shape));
    require_shape(op, "y", y.shape, dy.shape);
    const ops::Broadcast<2> g = broadcast(dy.shape, a.shape, b.shape);
    return two_gradients<T>(op, dy.shape, [=, dy = dy.data, a = a.data, b = b.data, y = y.data](T* da, T* db) {
      ops::pow_backward(da, db, dy, a, b, y, g);
    });
  });
}

py::tuple where_backward(const py::array& dy_array, const py::array& condition_array) {
  constexpr const char* op = "where_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    const View<bool> condition = view<bool>(op, "condition", condition_array);
    require_shape(op, "dy", dy.shape, broadcast_shape(op, dy.shape, condition.shape));
    const ops::Broadcast<1> g(dy.shape.data(), ndim(dy.shape), {condition.shape.data()}, {ndim(condition.shape)});
    return two_gradients<T>(op, dy.shape, [=, dy = dy.data, condition = condition.data](T* da, T* db) {
      ops::where_backward(da, db, dy, condition, g);
    });
  });
}

py::array broadcast_to(const py::array& x_array, const Shape& shape) {
  return by_dtype("broadcast_to", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("broadcast_to", "x", x_array);
    if (x.shape.size() > shape.size() || broadcast_shape("broadcast_to", x.shape, shape) != shape) {
      throw_value("broadcast_to", "x " + to_string(x.shape) + " does not broadcast to " + to_string(shape));
    }
    py::array_t<T> y = empty<T>("broadcast_to", shape);
    T* y_data = data_of(y);
    const ops::Broadcast<1> g(shape.data(), ndim(shape), {x.shape.data()}, {ndim(x.shape)});
    launch([=, x = x.data] { ops::broadcast_to(y_data, x, g); });
    return y;
  });
}

}  // namespace

#define PYNN_BINARY(name)                                                                            \
  m.def(                                                                                             \
      #name,                                                                                         \
      [](const py::array& a, const py::array& b) {                                                   \
        return binary(#name, a, b, &BroadcastKernels<float>::name, &BroadcastKernels<double>::name); \
      },                                                                                             \
      py::arg("a"), py::arg("b"))
#define PYNN_BINARY_BACKWARD(name)                                                                                \
  m.def(                                                                                                          \
      #name,                                                                                                      \
      [](const py::array& dy, const py::array& a, const py::array& b) {                                           \
        return binary_backward(#name, dy, a, b, &BroadcastKernels<float>::name, &BroadcastKernels<double>::name); \
      },                                                                                                          \
      py::arg("dy"), py::arg("a"), py::arg("b"))

void bind_broadcast(py::module_& m) {
  PYNN_BINARY(add);
  PYNN_BINARY(sub);
  PYNN_BINARY(mul);
  PYNN_BINARY(div);
  PYNN_BINARY(maximum);
  PYNN_BINARY(minimum);
  PYNN_BINARY_BACKWARD(maximum_backward);
  PYNN_BINARY_BACKWARD(minimum_backward);
  m.def("pow", pow, py::arg("a"), py::arg("b"));
  m.def("pow_backward", pow_backward, py::arg("dy"), py::arg("a"), py::arg("b"), py::arg("y"));
  m.def("where", where, py::arg("condition"), py::arg("a"), py::arg("b"));
  m.def("where_backward", where_backward, py::arg("dy"), py::arg("condition"));
  m.def("broadcast_to", broadcast_to, py::arg("x"), py::arg("shape"));
}

}  // namespace pynn::bindings
