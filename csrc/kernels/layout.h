#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct LayoutKernels {};

}  // namespace pynn
