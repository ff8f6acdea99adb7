#include "bindings/array.h"

namespace pynn::bindings {

void bind_norm(py::module_&) {}

}  // namespace pynn::bindings
