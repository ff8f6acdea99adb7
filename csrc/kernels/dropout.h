// Dropout by a counter-based generator: whether an element is kept follows from its position alone.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct DropoutKernels {
  // y[n] = x[n] * scale where the element's 24 random bits are >= threshold, else 0. The four words of Philox 4x32-10
  // under the key `seed` at counter `first_block` + b decide elements 4b..4b+3.
  void (*dropout)(T* y, const T* x, uint32_t threshold, T scale, uint64_t seed, uint64_t first_block, int64_t n);
};

}  // namespace pynn
