#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct PoolKernels {};

}  // namespace pynn
