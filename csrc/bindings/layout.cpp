#include "bindings/array.h"

namespace pynn::bindings {

void bind_layout(py::module_&) {}

}  // namespace pynn::bindings
