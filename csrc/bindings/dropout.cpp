#include "ops/dropout.h"

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

py::array dropout(const py::array& x_array, double p, uint64_t seed, uint64_t offset) {
  return by_dtype("dropout", "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>("dropout", "x", x_array);
    if (!(p >= 0 && p <= 1)) throw_value("dropout", "p is " + number_text(p) + ", needs 0 to 1");
    py::array_t<T> y = empty<T>("dropout", x.shape);
    T* y_data = data_of(y);
    launch([=, x = x.data, n = x.size] { ops::dropout(y_data, x, p, seed, offset, n); });
    return y;
  });
}

}  // namespace

void bind_dropout(py::module_& m) {
  m.def("dropout", dropout, py::arg("x"), py::arg("p"), py::arg("seed"), py::arg("offset"));
}

}  // namespace pynn::bindings
