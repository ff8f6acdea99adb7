// Reductions over any set of axes of a contiguous array. The order of every sum is fixed by the shape alone.
#pragma once

#include <cstdint>

#include "kernels/reduction.h"

namespace pynn::ops {

// x [outer, n, inner] -> y [outer, inner]
struct Middle {
  int64_t outer, n, inner;
};

// `kernel` reduces elements to partial results, `combine` these to one; center [outer, inner] or null.
template <class T>
void reduce(const Reducer<T>& kernel, const Reducer<T>& combine, T* y, const T* x, const T* center, Middle size);

// An array of which some axes are reduced; y holds the others. reduced[axis] says which.
struct Axes {
  const int64_t* shape;  // [ndim]
  const bool* reduced;   // [ndim]
  int ndim;
  int64_t count;  // product of the reduced axes
  int64_t kept;   // product of the others
};

template <class T>
void sum(T* y, const T* x, const Axes& axes);
template <class T>
void mean(T* y, const T* x, const Axes& axes);
template <class T>
void max(T* y, const T* x, const Axes& axes);
template <class T>
void min(T* y, const T* x, const Axes& axes);

// sum of (x - mean)^2 over max(count - correction, 0)
template <class T>
void var(T* y, const T* x, int64_t correction, const Axes& axes);

// y [outer, inner]: where along n the first of the largest is; a NaN counts as larger than all
template <class T>
void argmax(int64_t* y, const T* x, Middle size);

// Gradients [shape] of reductions; dy and y as the reductions leave them.
template <class T>
void extremum_backward(T* dx, const T* dy, const T* x, const T* y, const Axes& axes);
template <class T>
void var_backward(T* dx, const T* dy, const T* x, int64_t correction, const Axes& axes);

}  // namespace pynn::ops
