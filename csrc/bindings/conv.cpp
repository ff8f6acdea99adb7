#include "bindings/array.h"

namespace pynn::bindings {

void bind_conv(py::module_&) {}

}  // namespace pynn::bindings
