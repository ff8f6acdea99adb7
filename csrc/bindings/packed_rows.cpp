#include "ops/packed_rows.h"

#include <mutex>
#include <new>
#include <variant>

#include "bindings/array.h"
#include "bindings/linear.h"

namespace pynn::bindings {
namespace {

template <class T>
using Packed = std::shared_ptr<const ops::PackedRows<T>>;

// What a recorded step knows, while the matrix may be another one in each replay. A computation keeps the one that it
// began with.
class PackedRows {
 public:
  template <class T>
  void set(Packed<T> packed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    content_ = std::move(packed);
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    content_ = std::monostate();
  }
  std::variant<std::monostate, Packed<float>, Packed<double>> content() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return content_;
  }

  // The rows for an operation with a weight of so many rows; may be called without the GIL.
  template <class T>
  Packed<T> get(const char* op, int64_t columns) const {
    const auto now = content();
    const auto* packed = std::get_if<Packed<T>>(&now);
    if (packed == nullptr) throw_value(op, "x holds no rows of the weight's dtype");
    if ((*packed)->columns() != columns) {
      throw_value(op, "x has " + std::to_string((*packed)->columns()) + " columns, weight " + std::to_string(columns));
    }
    return *packed;
  }

 private:
  mutable std::mutex mutex_;
  std::variant<std::monostate, Packed<float>, Packed<double>> content_;
};

using Handle = std::shared_ptr<PackedRows>;

// Puts what pack() makes in its place, unless that is null: whether it was not.
template <class Pack>
bool set_packed(const char* op, PackedRows& self, const Shape& shape, const Pack& pack) {
  try {
    auto packed = [&] {
      const Computing scope;
      return pack();
    }();
    if (packed == nullptr) return false;
    self.set(std::move(packed));
    return true;
  } catch (const std::bad_alloc&) {
    throw_memory(op, "no memory to pack " + to_string(shape) + ", which takes a bit for each element and its values");
  }
}

bool pack(PackedRows& self, const py::array& x_array) {
  constexpr const char* op = "PackedRows.pack";
  return by_dtype(op, "x", x_array, [&](auto zero) {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array);
    if (x.ndim() != 2) throw_value(op, "x " + to_string(x.shape) + " needs 2 axes, [rows, columns]");
    return set_packed(op, self, x.shape, [&] { return ops::PackedRows<T>::of_dense(x.data, x.shape[0], x.shape[1]); });
  });
}

bool pack_csr(PackedRows& self, const py::array& offsets_array, const py::array& indices_array,
              const py::array& values_array, int64_t columns) {
  constexpr const char* op = "PackedRows.pack_csr";
  return by_dtype(op, "values", values_array, [&](auto zero) {
    using T = decltype(zero);
    const View<T> values = view<T>(op, "values", values_array);
    const View<int64_t> offsets = view<int64_t>(op, "offsets", offsets_array);
    const View<int64_t> indices = view<int64_t>(op, "indices", indices_array);
    if (offsets.ndim() != 1 || offsets.size < 1) {
      throw_value(op, "offsets " + to_string(offsets.shape) + " needs 1 axis, [rows + 1]");
    }
    require_shape(op, "indices", indices.shape, {values.size});
    require_shape(op, "values", values.shape, {values.size});
    const int64_t rows = offsets.size - 1;
    checked_size(op, {rows, columns});
    return set_packed(op, self, {rows, columns}, [&] {
      return ops::PackedRows<T>::of_csr(offsets.data, indices.data, values.data, values.size, rows, columns);
    });
  });
}

py::object shape(const PackedRows& self) {
  const auto now = self.content();
  const auto of = [](const auto& packed) -> py::object { return py::make_tuple(packed->rows(), packed->columns()); };
  if (const auto* packed = std::get_if<Packed<float>>(&now)) return of(*packed);
  if (const auto* packed = std::get_if<Packed<double>>(&now)) return of(*packed);
  return py::none();
}

View<int64_t> numbers_of(const char* op, const py::array& numbers_array) {
  View<int64_t> numbers = view<int64_t>(op, "rows", numbers_array);
  if (numbers.ndim() != 1) throw_value(op, "rows " + to_string(numbers.shape) + " needs 1 axis");
  return numbers;
}

template <class T>
void require_weight(const char* op, const Shape& weight, int64_t out) {
  if (weight.size() != 2 || weight[1] < out || weight[1] % ops::kPackedLine<T> != 0) {
    throw_value(op, "weight " + to_string(weight) + " needs 2 axes, the second a multiple of " +
                        std::to_string(ops::kPackedLine<T>) + " and at least " + std::to_string(out) + ", the outputs");
  }
}

py::array packed_linear(const Handle& x, const py::array& numbers_array, const py::array& weight_array,
                        const py::array& bias_array, const std::string& activation_name) {
  constexpr const char* op = "packed_linear";
  return by_dtype(op, "weight", weight_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<int64_t> numbers = numbers_of(op, numbers_array);
    const View<T> weight = view<T>(op, "weight", weight_array), bias = view<T>(op, "bias", bias_array);
    const ops::Activation activation = activation_from_name(op, activation_name);
    if (bias.ndim() != 1) throw_value(op, "bias " + to_string(bias.shape) + " needs 1 axis, [out]");
    const int64_t out = bias.size;
    require_weight<T>(op, weight.shape, out);
    const int64_t columns = weight.shape[0], width = weight.shape[1];
    py::array_t<T> y = empty<T>(op, {numbers.size, out});
    T* y_data = data_of(y);
    launch([=, numbers = numbers.data, weight = weight.data, bias = bias.data, count = numbers.size] {
      const Packed<T> rows = x->get<T>(op, columns);
      ops::packed_linear(y_data, *rows, numbers, weight, bias, activation, count, out, width);
    });
    return y;
  });
}

py::tuple packed_linear_backward(const py::array& dy_array, const py::array& y_array, const Handle& x,
                                 const py::array& numbers_array, const py::array& weight_array,
                                 const std::string& activation_name) {
  constexpr const char* op = "packed_linear_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array);
    const View<T> weight = view<T>(op, "weight", weight_array);
    const View<int64_t> numbers = numbers_of(op, numbers_array);
    const ops::Activation activation = activation_from_name(op, activation_name);
    if (dy.ndim() != 2) throw_value(op, "dy " + to_string(dy.shape) + " needs 2 axes, [rows, out]");
    require_shape(op, "dy", dy.shape, {numbers.size, dy.shape[1]});
    require_shape(op, "y", y.shape, dy.shape);
    const int64_t out = dy.shape[1];
    require_weight<T>(op, weight.shape, out);
    const int64_t columns = weight.shape[0], width = weight.shape[1];
    py::array_t<T> dweight = empty<T>(op, weight.shape), dbias = empty<T>(op, {out});
    T *dweight_data = data_of(dweight), *dbias_data = data_of(dbias);
    launch([=, dy = dy.data, y = y.data, numbers = numbers.data, count = numbers.size] {
      const Packed<T> rows = x->get<T>(op, columns);
      ops::packed_linear_backward(dweight_data, dbias_data, dy, y, *rows, numbers, activation, count, out, width);
    });
    return py::make_tuple(dweight, dbias);
  });
}

}  // namespace

void bind_packed_rows(py::module_& m) {
  py::class_<PackedRows, Handle>(m, "PackedRows")
      .def(py::init<>())
      .def("pack", pack, py::arg("x"))
      .def("pack_csr", pack_csr, py::arg("offsets"), py::arg("indices"), py::arg("values"), py::arg("columns"))
      .def("clear", &PackedRows::clear)
      .def(
          "take",
          [](PackedRows& self, PackedRows& other) {
            std::visit(
                [&](auto packed) {
                  if constexpr (std::is_same<decltype(packed), std::monostate>::value) {
                    self.clear();
                  } else {
                    self.set(std::move(packed));
                  }
                },
                other.content());
            if (&self != &other) other.clear();
          },
          py::arg("other"))
      .def_property_readonly("shape", shape);
  m.def("packed_linear", packed_linear, py::arg("x"), py::arg("rows"), py::arg("weight"), py::arg("bias"),
        py::arg("activation"));
  m.def("packed_linear_backward", packed_linear_backward, py::arg("dy"), py::arg("y"), py::arg("x"), py::arg("rows"),
        py::arg("weight"), py::arg("activation"));
}

}  // namespace pynn::bindings
