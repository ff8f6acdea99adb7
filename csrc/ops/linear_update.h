// The gradient of a linear layer's weight, made where an optimiser uses it: a part is updated while it is in the cache
// of the thread that made it.
#pragma once

#include <cstdint>
#include <functional>

#include "ops/gemm.h"

namespace pynn::ops {

// As in linear_backward.
template <class T>
struct LinearGradient {
  const T *dy, *y, *x;  // [rows, out], [rows, out], [rows, in]
  Activation activation;
  int64_t rows, in, out;
  T *dweight, *dbias;  // [out, in], [out]: null unless somebody else reads them
};

// Takes the n elements of dweight from `begin` on.
template <class T>
using UseGradient = std::function<void(int64_t begin, const T* dweight, int64_t n)>;

// Calls use for parts that make up dweight, on any thread, after it has written dbias. Same bits as linear_backward.
template <class T>
void for_gradient(const LinearGradient<T>& gradient, const UseGradient<T>& use);

}  // namespace pynn::ops
