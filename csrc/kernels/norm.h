#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct NormKernels {};

}  // namespace pynn
