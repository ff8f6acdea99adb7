#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct ConvKernels {};

}  // namespace pynn
