// Maximum of windows of 2 x 2 and the tap that it came from, as pooling and convolution with pooling share them.
#pragma once

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// Indices of the windows in the lanes of a Vec. `room` is how many bytes are left in the array: where it allows, whole
// vectors are moved, since the bytes behind the n first are read for nothing or written again by the next windows.
template <class T>
PYNN_INLINE void store_indices(uint8_t* p, Vec<T> v, int n, int64_t room) {
  constexpr int lanes = Vec<T>::lanes;
  using Ints = typename Integers<T>::Lanes;
  using Bytes = typename Integers<T>::Bytes;
  const Bytes bytes = __builtin_convertvector(__builtin_convertvector(v.v, Ints), Bytes);
  if (room >= lanes) {
    std::memcpy(p, &bytes, lanes);
  } else {
    for (int i = 0; i < n; ++i) p[i] = bytes[i];
  }
}

template <class T>
PYNN_INLINE int count(AllLanes) {
  return Vec<T>::lanes;
}
template <class T>
PYNN_INLINE int count(int n) {
  return n;
}

// The first of ties wins, and the first NaN over all: PyTorch's rule.
template <class T>
struct WindowMax {
  Vec<T> best, index;  // 0..3: 2 * row + column

  PYNN_INLINE WindowMax(Vec<T> top_left, Vec<T> top_right, Vec<T> bottom_left, Vec<T> bottom_right)
      : best(top_left), index(Vec<T>::zero()) {
    keep_better(top_right, Vec<T>(T(1)));
    WindowMax bottom(bottom_left, bottom_right);
    keep_better(bottom.best, bottom.index);
  }

 private:
  PYNN_INLINE WindowMax(Vec<T> left, Vec<T> right) : best(left), index(Vec<T>(T(2))) {
    keep_better(right, Vec<T>(T(3)));
  }
  PYNN_INLINE void keep_better(Vec<T> value, Vec<T> tap) {
    const Mask<T> better = (!(value <= best)) & (best == best);
    best = select(better, value, best);
    index = select(better, tap, index);
  }
};

// The maximum alone.
template <class T>
PYNN_INLINE Vec<T> window_max(Vec<T> top_left, Vec<T> top_right, Vec<T> bottom_left, Vec<T> bottom_right) {
  const auto larger = [](Vec<T> best, Vec<T> value) { return select(value == value, max(value, best), value); };
  return larger(larger(top_left, top_right), larger(bottom_left, bottom_right));
}

}  // namespace
}  // namespace pynn::PYNN_ISA
