#include <pybind11/stl.h>

#include <functional>
#include <string_view>

#include "bindings/array.h"
#include "ops/layout.h"

namespace pynn::bindings {
namespace {

void require_indices(const char* op, const std::vector<int64_t>& indices, int64_t rows) {
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= rows) {
      throw_index(op, "index " + std::to_string(indices[i]) + " at flat position " + std::to_string(i) +
                          " is not one of the " + std::to_string(rows) + " rows of the table");
    }
  }
}

py::array embedding(const py::array& weight_array, const py::array& indices_array) {
  return by_dtype("embedding", "weight", weight_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> weight = view<T>("embedding", "weight", weight_array);
    const View<int64_t> indices = view<int64_t>("embedding", "indices", indices_array);
    if (weight.ndim() != 2) throw_value("embedding", "weight " + to_string(weight.shape) + " needs 2 axes, [V, D]");
    const int64_t rows = weight.shape[0], dim = weight.shape[1];
    Shape shape = indices.shape;
    shape.push_back(dim);
    py::array_t<T> y = empty<T>("embedding", shape);
    T* y_data = data_of(y);
    launch([=, weight = weight.data, indices = indices.data, n = indices.size] {
      const std::vector<int64_t> checked = copy_of(indices, n);
      require_indices("embedding", checked, rows);
      ops::take_rows(y_data, weight, checked.data(), n, dim * int64_t(sizeof(T)));
    });
    return y;
  });
}

py::array embedding_backward(const py::array& dy_array, const py::array& indices_array, int64_t num_embeddings) {
  constexpr const char* op = "embedding_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array);
    const View<int64_t> indices = view<int64_t>(op, "indices", indices_array);
    Shape leading = dy.shape;
    if (!leading.empty()) leading.pop_back();
    if (dy.shape.empty() || leading != indices.shape) {
      throw_value(
          op, "dy " + to_string(dy.shape) + " needs the axes of indices " + to_string(indices.shape) + " and one more");
    }
    const int64_t dim = dy.shape.back();
    py::array_t<T> dweight = empty<T>(op, {num_embeddings, dim});
    T* dweight_data = data_of(dweight);
    launch([=, dy = dy.data, indices = indices.data, n = indices.size] {
      const std::vector<int64_t> checked = copy_of(indices, n);
      require_indices(op, checked, num_embeddings);
      ops::fill(dweight_data, T(0), num_embeddings * dim);
      ops::embedding_backward(dweight_data, dy, dim, checked.data(), n, dim);
    });
    return dweight;
  });
}

// ValueError or TypeError unless `out` has this shape, the dtype of x, and none of its memory.
void require_output(const char* op, const py::array& out, const Shape& shape, const py::array& x) {
  if (!out.dtype().equal(x.dtype())) throw_type(op, "out is " + dtype_name(out) + ", x " + dtype_name(x));
  require_shape(op, "out", shape_of(out), shape);
  require_writeable(op, "out", out);
  const auto *to = static_cast<const char*>(out.data()), *from = static_cast<const char*>(x.data());
  if (std::less<>()(to, from + x.nbytes()) && std::less<>()(from, to + out.nbytes())) {
    throw_value(op, "out shares memory with x, needs its own");
  }
}

// As x[rows], with rows counted from the end where they are negative.
py::array take_rows(const py::array& x, const py::array& rows_array, const std::optional<py::array>& out) {
  constexpr const char* op = "take";  // what pynn.data calls it
  const View<int64_t> rows = view<int64_t>(op, "rows", rows_array);
  if (rows.ndim() != 1) throw_value(op, "rows " + to_string(rows.shape) + " needs 1 axis");
  if (x.ndim() == 0) throw_value(op, "x [] needs at least 1 axis, [N, ...]");
  constexpr std::string_view plain = "biufcSUmM";  // other kinds may refer to objects, or strings (T) elsewhere
  if (plain.find(x.dtype().kind()) == plain.npos && py::cast<bool>(x.dtype().attr("hasobject"))) {
    throw_type(op, "x is " + dtype_name(x) + ", needs plain elements");
  }
  require_layout(op, "x", x);
  Shape shape = shape_of(x);
  const int64_t count = shape[0];
  shape[0] = rows.size;
  if (out && recorder() != nullptr) throw_value(op, "writes to no array of the caller while it is captured");
  if (out) require_output(op, *out, shape, x);
  py::array y = out ? *out : empty_of(op, shape, x.dtype());
  const int64_t row_bytes = count == 0 ? 0 : static_cast<int64_t>(x.nbytes()) / count;
  void* y_data = y.mutable_data();
  const void* x_data = x.data();
  launch([=, rows = rows.data, n = rows.size] {
    std::vector<int64_t> checked = copy_of(rows, n);
    for (size_t i = 0; i < checked.size(); ++i) {
      if (checked[i] < -count || checked[i] >= count) {
        throw_index(op, "row " + std::to_string(checked[i]) + " at position " + std::to_string(i) +
                            " is not one of the " + std::to_string(count) + " rows of x");
      }
      if (checked[i] < 0) checked[i] += count;
    }
    ops::take_rows(y_data, x_data, checked.data(), n, row_bytes);
  });
  return y;
}

}  // namespace

void bind_embedding(py::module_& m) {
  m.def("take_rows", take_rows, py::arg("x"), py::arg("rows"), py::arg("out") = py::none());
  m.def("embedding", embedding, py::arg("weight"), py::arg("indices"));
  m.def("embedding_backward", embedding_backward, py::arg("dy"), py::arg("indices"), py::arg("num_embeddings"));
}

}  // namespace pynn::bindings
