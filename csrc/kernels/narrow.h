// Which rows the kernels of reductions, softmax and losses work on turned.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int64_t kNarrow = 32;

// Whether rows of n elements are better worked on turned, so that a lane has a row, than by themselves: where blocks
// are transposed in registers.
template <class T>
constexpr bool is_narrow(int64_t n) {
  return sizeof(T) == sizeof(float) && Vec<T>::lanes >= 8 && n <= kNarrow;
}

}  // namespace
}  // namespace pynn::PYNN_ISA
