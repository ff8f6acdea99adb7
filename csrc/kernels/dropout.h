#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct DropoutKernels {};

}  // namespace pynn
