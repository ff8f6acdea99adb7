#include "bindings/array.h"

namespace pynn::bindings {

void bind_dropout(py::module_&) {}

}  // namespace pynn::bindings
