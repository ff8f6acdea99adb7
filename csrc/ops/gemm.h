// Matrix products on contiguous row-major matrices, split over the threads.
#pragma once

#include <cstdint>

namespace pynn::ops {

enum class Activation { none, relu, leaky_relu, sigmoid, tanh };

constexpr double kLeakySlope = 0.01;  // of Activation::leaky_relu

// C[m, n] = op(A)[m, k] * op(B)[k, n] (+ C if accumulate). A is stored [m, k], or [k, m] if a_transposed; likewise B.
// The leading dimensions are the distances of stored rows.
template <class T>
struct GemmArguments {
  T* c;
  int64_t ldc;
  const T* a;
  int64_t lda;
  bool a_transposed;
  const T* b;
  int64_t ldb;
  bool b_transposed;
  int64_t m, n, k;
  const T* bias = nullptr;  // [n]
  Activation activation = Activation::none;
  bool accumulate = false;
  bool b_is_weight = false;  // an optimiser will write to B, so that threads had better share none of it
};

template <class T>
void gemm(const GemmArguments<T>& g);

// batch products; offsets count elements, one per product
template <class T>
void batched_gemm(const GemmArguments<T>& first, int64_t batch, const int64_t* a_offsets, const int64_t* b_offsets,
                  int64_t c_step);

// y[rows, out] = activation(x[rows, in] * weight[out, in]^T + bias[out]). trained: an optimiser will write to weight.
template <class T>
void linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
            int64_t out, bool trained = true);

// dz = dy * activation'(y); dx[rows, in] = dz * weight; dweight[out, in] = dz^T * x; dbias[out] = sum of dz over rows.
// Each of dx, dweight, dbias may be null.
template <class T>
void linear_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const T* x, const T* weight,
                     Activation activation, int64_t rows, int64_t in, int64_t out);

// The last two for a dz whose rows are ldz apart, added to what is there if accumulate. dweight must not be null, dbias
// may be.
template <class T>
void linear_dweight(T* dweight, T* dbias, const T* dz, int64_t ldz, const T* x, int64_t rows, int64_t in, int64_t out,
                    bool accumulate);
template <class T>
void linear_dbias(T* dbias, const T* dz, int64_t ldz, int64_t rows, int64_t out, bool accumulate);

}  // namespace pynn::ops
