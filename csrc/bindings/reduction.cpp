#include "bindings/array.h"

namespace pynn::bindings {

void bind_reduction(py::module_&) {}

}  // namespace pynn::bindings
