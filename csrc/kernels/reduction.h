#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct ReductionKernels {};

}  // namespace pynn
