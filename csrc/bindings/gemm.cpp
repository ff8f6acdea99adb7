#include "ops/gemm.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "bindings/array.h"
#include "bindings/linear.h"

namespace pynn::bindings {

ops::Activation activation_from_name(const char* op, const std::string& name) {
  if (name == "none") return ops::Activation::none;
  if (name == "relu") return ops::Activation::relu;
  if (name == "leaky_relu") return ops::Activation::leaky_relu;
  if (name == "sigmoid") return ops::Activation::sigmoid;
  if (name == "tanh") return ops::Activation::tanh;
  throw_value(op, "activation \"" + name + "\" is not one of none, relu, leaky_relu, sigmoid, tanh");
}

LinearSizes linear_sizes(const char* op, const Shape& x, const Shape& weight) {
  if (weight.size() != 2) throw_value(op, "weight " + to_string(weight) + " needs 2 axes, [out, in]");
  if (x.empty()) throw_value(op, "x [] needs at least 1 axis, [..., in]");
  const int64_t in = weight[1], out = weight[0];
  if (x.back() != in) {
    throw_value(op, "x " + to_string(x) + " has " + std::to_string(x.back()) + " features, weight " +
                        to_string(weight) + " expects " + std::to_string(in));
  }
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < x.size(); ++i) rows *= x[i];
  return {rows, in, out};
}

namespace {

Shape batch_of(const Shape& shape) { return Shape(shape.begin(), shape.end() - 2); }

Shape broadcast_batch(const Shape& a, const Shape& b) {
  const Shape a_batch = batch_of(a), b_batch = batch_of(b);
  Shape batch(std::max(a_batch.size(), b_batch.size()));
  for (size_t i = 0; i < batch.size(); ++i) {  // counted from the last axis
    const int64_t from_a = i < a_batch.size() ? a_batch[a_batch.size() - 1 - i] : 1;
    const int64_t from_b = i < b_batch.size() ? b_batch[b_batch.size() - 1 - i] : 1;
    if (from_a != from_b && from_a != 1 && from_b != 1) {
      throw_value("matmul", "batch axes of a " + to_string(a) + " and b " + to_string(b) + " do not broadcast");
    }
    batch[batch.size() - 1 - i] = from_a == 1 ? from_b : from_a;
  }
  return batch;
}

// The element offset of each product's matrix in an operand whose batch axes broadcast to `batch`.
std::vector<int64_t> batch_offsets(const Shape& batch, int64_t count, const Shape& shape) {
  const int64_t matrix = shape[shape.size() - 2] * shape[shape.size() - 1];
  std::vector<int64_t> offsets(static_cast<size_t>(count));
  for (int64_t product = 0; product < count; ++product) {
    int64_t rest = product, offset = 0, step = matrix;
    for (size_t i = 0; i < batch.size(); ++i) {  // counted from the last axis
      const int64_t index = rest % batch[batch.size() - 1 - i];
      rest /= batch[batch.size() - 1 - i];
      if (i + 2 < shape.size()) {
        const int64_t size = shape[shape.size() - 3 - i];
        if (size != 1) offset += index * step;
        step *= size;
      }
    }
    offsets[static_cast<size_t>(product)] = offset;
  }
  return offsets;
}

py::array matmul(const py::array& a_array, const py::array& b_array, bool transpose_a, bool transpose_b) {
  return by_dtype("matmul", "a", a_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> a = view<T>("matmul", "a", a_array), b = view<T>("matmul", "b", b_array);
    if (a.ndim() < 2 || b.ndim() < 2) {
      throw_value("matmul", "a " + to_string(a.shape) + " and b " + to_string(b.shape) + " need at least 2 axes each");
    }
    const int64_t a_rows = a.shape[a.shape.size() - 2], a_cols = a.shape.back();
    const int64_t b_rows = b.shape[b.shape.size() - 2], b_cols = b.shape.back();
    const int64_t m = transpose_a ? a_cols : a_rows, k = transpose_a ? a_rows : a_cols;
    const int64_t k_of_b = transpose_b ? b_cols : b_rows, n = transpose_b ? b_rows : b_cols;
    if (k != k_of_b) {
      throw_value("matmul", "a " + to_string(a.shape) + (transpose_a ? " transposed" : "") + " has inner size " +
                                std::to_string(k) + ", b " + to_string(b.shape) + (transpose_b ? " transposed" : "") +
                                " has " + std::to_string(k_of_b));
    }
    if (a.ndim() == 2 && b.ndim() == 2) {
      py::array_t<T> c = empty<T>("matmul", {m, n});
      const ops::GemmArguments<T> g{data_of(c), n, a.data, a_cols, transpose_a, b.data, b_cols, transpose_b, m, n, k};
      if (m * n != 0) launch([=] { ops::gemm(g); });
      return c;
    }
    Shape shape = broadcast_batch(a.shape, b.shape);
    const Shape batch = shape;
    shape.insert(shape.end(), {m, n});
    const int64_t count = checked_size("matmul", batch);
    py::array_t<T> c = empty<T>("matmul", shape);
    const ops::GemmArguments<T> g{data_of(c), n, a.data, a_cols, transpose_a, b.data, b_cols, transpose_b, m, n, k};
    if (m * n == 0) return c;
    std::vector<int64_t> a_offsets = batch_offsets(batch, count, a.shape),
                         b_offsets = batch_offsets(batch, count, b.shape);
    launch([=, a_offsets = std::move(a_offsets), b_offsets = std::move(b_offsets)] {
      ops::batched_gemm(g, count, a_offsets.data(), b_offsets.data(), m * n);
    });
    return c;
  });
}

py::array linear(const py::array& x_array, const py::array& weight_array, const std::optional<py::array>& bias_array,
                 const std::string& activation_name, bool trained) {
  return by_dtype("linear", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("linear", "x", x_array), weight = view<T>("linear", "weight", weight_array);
    const ops::Activation activation = activation_from_name("linear", activation_name);
    const LinearSizes size = linear_sizes("linear", x.shape, weight.shape);
    const T* bias = optional_data<T>("linear", "bias", bias_array, {size.out});
    Shape shape = x.shape;
    shape.back() = size.out;
    py::array_t<T> y = empty<T>("linear", shape);
    T* y_data = data_of(y);
    launch([=, x = x.data, weight = weight.data] {
      ops::linear(y_data, x, weight, bias, activation, size.rows, size.in, size.out, trained);
    });
    return y;
  });
}

py::tuple linear_backward(const py::array& dy_array, const py::array& y_array, const py::array& x_array,
                          const py::array& weight_array, const std::string& activation_name, bool need_dx,
                          bool need_dweight, bool need_dbias) {
  constexpr const char* op = "linear_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array), x = view<T>(op, "x", x_array);
    const View<T> weight = view<T>(op, "weight", weight_array);
    const ops::Activation activation = activation_from_name(op, activation_name);
    const LinearSizes size = linear_sizes(op, x.shape, weight.shape);
    Shape y_shape = x.shape;
    y_shape.back() = size.out;
    require_shape(op, "dy", dy.shape, y_shape);
    require_shape(op, "y", y.shape, y_shape);
    std::optional<py::array_t<T>> dx, dweight, dbias;
    if (need_dx) dx = empty<T>(op, x.shape);
    if (need_dweight) dweight = empty<T>(op, weight.shape);
    if (need_dbias) dbias = empty<T>(op, {size.out});
    T *dx_data = data_of(dx), *dweight_data = data_of(dweight), *dbias_data = data_of(dbias);
    launch([=, dy = dy.data, y = y.data, x = x.data, weight = weight.data] {
      ops::linear_backward(dx_data, dweight_data, dbias_data, dy, y, x, weight, activation, size.rows, size.in,
                           size.out);
    });
    return py::make_tuple(dx, dweight, dbias);
  });
}

}  // namespace

void bind_gemm(py::module_& m) {
  m.def("matmul", matmul, py::arg("a"), py::arg("b"), py::arg("transpose_a") = false, py::arg("transpose_b") = false);
  m.def("linear", linear, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("activation") = "none",
        py::arg("trained") = true);
  m.def("linear_backward", linear_backward, py::arg("dy"), py::arg("y"), py::arg("x"), py::arg("weight"),
        py::arg("activation"), py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
}

}  // namespace pynn::bindings
