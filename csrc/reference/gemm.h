// The naive twin of the matrix kernels: the oracle of their tests.
#pragma once

#include <cstdint>

namespace pynn::reference {

// c[m, n] = op(a)[m, k] * op(b)[k, n] + bias[n], in double
template <class T>
void gemm(double* c, const T* a, bool a_transposed, const T* b, bool b_transposed, const T* bias, int64_t m, int64_t n,
          int64_t k) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = bias != nullptr ? static_cast<double>(bias[j]) : 0.0;
      for (int64_t p = 0; p < k; ++p) {
        const T x = a_transposed ? a[p * m + i] : a[i * k + p], w = b_transposed ? b[j * k + p] : b[p * n + j];
        sum += static_cast<double>(x) * static_cast<double>(w);
      }
      c[i * n + j] = sum;
    }
  }
}

// dx = dy * weight, dweight = dy^T * x, dbias = column sums of dy
template <class T>
void linear_backward(double* dx, double* dweight, double* dbias, const T* dy, const T* x, const T* weight, int64_t rows,
                     int64_t in, int64_t out) {
  gemm(dx, dy, false, weight, false, static_cast<const T*>(nullptr), rows, in, out);
  gemm(dweight, dy, true, x, false, static_cast<const T*>(nullptr), out, in, rows);
  for (int64_t j = 0; j < out; ++j) {
    dbias[j] = 0;
    for (int64_t i = 0; i < rows; ++i) dbias[j] += static_cast<double>(dy[i * out + j]);
  }
}

}  // namespace pynn::reference
