// A loop that does nothing but what limits a kernel: the measure that the others are held against.
#pragma once

#include <cstdint>

namespace pynn {

template <class T>
struct PeakKernels {
  // Rounds of independent multiply-adds in registers; returns the operations, 2 per multiply-add and lane. `sink` gets
  // their sum, so that they count.
  int64_t (*multiply_add)(T* sink, int64_t rounds);
};

}  // namespace pynn
