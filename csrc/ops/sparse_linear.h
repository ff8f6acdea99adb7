// A linear layer whose input is mostly zeros, as images on black ground and counted words are: only the other elements
// are multiplied. Results have the bits of products by dense blocks.
#pragma once

#include <cstdint>

#include "ops/gemm.h"

namespace pynn::ops {

// Whether x[rows, in] has so many zeros, and the layer is so large, that sparse_linear takes less time.
template <class T>
bool zeros_pay(const T* x, int64_t rows, int64_t in, int64_t out);

// As linear in gemm.h, for rows, in, out > 0.
template <class T>
void sparse_linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
                   int64_t out);

// The same of sparse_dweight, beside products that leave out the zeros of dz, if it has many.
template <class T>
bool dweight_zeros_pay(const T* x, Activation activation, const T* dy, const T* y, int64_t rows, int64_t in,
                       int64_t out);

// dweight and, unless it is null, dbias of linear_backward.
template <class T>
void sparse_dweight(T* dweight, T* dbias, const T* dy, const T* y, const T* x, Activation activation, int64_t rows,
                    int64_t in, int64_t out);

// Whether dz = dy * activation'(y), [rows, out], has so many zeros, and the products with it are so large, that
// products without their terms take less time: what a ReLU leaves of gradients. Of a sample of dz at most most_live
// percent are not 0.
template <class T>
bool gradient_zeros_pay(Activation activation, const T* dy, const T* y, int64_t rows, int64_t in, int64_t out,
                        int64_t most_live = 100);

// C[m, n] = A[m, k] * B[k, n] without the terms whose element of A is 0, on this thread, for m, n, k > 0. Packs B.
template <class T>
void sparse_multiply(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t m, int64_t n,
                     int64_t k);

}  // namespace pynn::ops
