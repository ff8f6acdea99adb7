#include "bindings/array.h"

namespace pynn::bindings {

void bind_loss(py::module_&) {}

}  // namespace pynn::bindings
