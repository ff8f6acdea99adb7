#include "bindings/array.h"

namespace pynn::bindings {

void bind_embedding(py::module_&) {}

}  // namespace pynn::bindings
