#include "ops/labels.h"

#include <type_traits>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

template <class Integer>
bool try_int64(const py::array& x_array, py::object& result) {
  constexpr const char* op = "as_int64";
  if (!holds<Integer>(x_array)) return false;
  const View<Integer> x = view<Integer>(op, "x", x_array);
  py::array_t<int64_t> y = empty<int64_t>(op, x.shape);
  int64_t* y_data = data_of(y);
  launch([=, x = x.data, n = x.size] {
    if constexpr (std::is_same<Integer, uint64_t>::value) {
      for (int64_t i = 0; i < n; ++i) {
        if (x[i] > static_cast<uint64_t>(INT64_MAX)) {
          throw_index(op, "x has " + std::to_string(x[i]) + ", needs at most " + std::to_string(INT64_MAX));
        }
      }
    }
    ops::to_int64(y_data, x, n);
  });
  result = y;
  return true;
}

py::object as_int64(const py::array& x) {
  py::object y;
  if (try_int64<int32_t>(x, y) || try_int64<uint8_t>(x, y) || try_int64<int64_t>(x, y) || try_int64<int16_t>(x, y) ||
      try_int64<int8_t>(x, y) || try_int64<uint16_t>(x, y) || try_int64<uint32_t>(x, y) || try_int64<uint64_t>(x, y)) {
    return y;
  }
  throw_type("as_int64", "x is " + dtype_name(x) + ", needs integers in the byte order of the machine");
}

py::array equal(const py::array& a_array, const py::array& b_array) {
  constexpr const char* op = "equal";
  const View<int64_t> a = view<int64_t>(op, "a", a_array), b = view<int64_t>(op, "b", b_array);
  const bool one = b.shape.empty();
  if (!one) require_shape(op, "b", b.shape, a.shape);
  py::array_t<bool> y = empty<bool>(op, a.shape);
  bool* y_data = data_of(y);
  launch([=, a = a.data, b = b.data, n = a.size] { ops::equal(y_data, a, b, one, n); });
  return y;
}

py::array count(const py::array& x_array) {
  const View<bool> x = view<bool>("count", "x", x_array);
  py::array_t<int64_t> y = empty<int64_t>("count", {});
  int64_t* y_data = data_of(y);
  launch([=, x = x.data, n = x.size] { *y_data = ops::count(x, n); });
  return y;
}

py::array share(const py::array& x_array) {
  const View<bool> x = view<bool>("share", "x", x_array);
  py::array_t<double> y = empty<double>("share", {});
  double* y_data = data_of(y);
  launch([=, x = x.data, n = x.size] { *y_data = ops::share(x, n); });
  return y;
}

}  // namespace

void bind_labels(py::module_& m) {
  m.def("as_int64", as_int64, py::arg("x"));
  m.def("equal", equal, py::arg("a"), py::arg("b"));
  m.def("count", count, py::arg("x"));
  m.def("share", share, py::arg("x"));
}

}  // namespace pynn::bindings
