#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct OptimKernels {};

}  // namespace pynn
