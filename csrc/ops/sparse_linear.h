// A linear layer whose input is mostly zeros, as images on black ground and counted words are: only the other elements
// are multiplied. Results have the bits of products by dense blocks.
#pragma once

#include <cstdint>

#include "ops/gemm.h"

namespace pynn::ops {

// Whether x[rows, in] has so many zeros, and the layer is so large, that the functions below take less time.
template <class T>
bool zeros_pay(const T* x, int64_t rows, int64_t in, int64_t out);

// As linear in gemm.h, for rows, in, out > 0.
template <class T>
void sparse_linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
                   int64_t out);

// dweight and, unless it is null, dbias of linear_backward.
template <class T>
void sparse_dweight(T* dweight, T* dbias, const T* dy, const T* y, const T* x, Activation activation, int64_t rows,
                    int64_t in, int64_t out);

}  // namespace pynn::ops
