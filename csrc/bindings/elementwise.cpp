#include "bindings/array.h"

namespace pynn::bindings {

void bind_elementwise(py::module_&) {}

}  // namespace pynn::bindings
