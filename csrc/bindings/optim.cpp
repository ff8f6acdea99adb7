#include "bindings/array.h"

namespace pynn::bindings {

void bind_optim(py::module_&) {}

}  // namespace pynn::bindings
