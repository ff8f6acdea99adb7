#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct LossKernels {};

}  // namespace pynn
