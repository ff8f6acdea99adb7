#include "bindings/array.h"

namespace pynn::bindings {

void bind_pool(py::module_&) {}

}  // namespace pynn::bindings
