// Elementwise operations of several operands with NumPy's broadcasting, split over the threads.
#pragma once

#include <cstdint>

#include "kernels/broadcast.h"

namespace pynn::ops {

constexpr int kMaxAxes = 64;  // as in NumPy

// The axes of a contiguous output and, for each of K contiguous operands that broadcast to it, the strides (0 where it
// is repeated). Axes of size 1 are dropped, and axes that no operand tells apart are merged.
template <int K>
struct Broadcast {
  int ndim;                     // at least 1
  int64_t size[kMaxAxes];       // [ndim]
  int64_t stride[K][kMaxAxes];  // [K, ndim]
  int64_t total;                // product of the sizes

  // shapes[k] has ndims[k] <= ndim axes, each of the output's size or 1, aligned at the last axis.
  Broadcast(const int64_t* shape, int ndim, const int64_t* const (&shapes)[K], const int (&ndims)[K]);
};

// The kernel is one of BroadcastKernels<T>.
template <class T>
void binary(typename BroadcastKernels<T>::Binary kernel, T* y, const T* a, const T* b, const Broadcast<2>& g);
template <class T>
void binary_backward(typename BroadcastKernels<T>::BinaryBackward kernel, T* da, T* db, const T* dy, const T* a,
                     const T* b, const Broadcast<2>& g);

// b_size == 1: an exponent for all elements, which may be one that needs no pow
template <class T>
void pow(T* y, const T* a, const T* b, int64_t b_size, const Broadcast<2>& g);
template <class T>
void pow_backward(T* da, T* db, const T* dy, const T* a, const T* b, const T* y, const Broadcast<2>& g);

template <class T>
void where(T* y, const bool* condition, const T* a, const T* b, const Broadcast<3>& g);
template <class T>
void where_backward(T* da, T* db, const T* dy, const bool* condition, const Broadcast<1>& g);

template <class T>
void broadcast_to(T* y, const T* x, const Broadcast<1>& g);

}  // namespace pynn::ops
