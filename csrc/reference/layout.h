// The naive twin of the layout kernels: the oracle of their tests.
#pragma once

#include <cstdint>
#include <vector>

namespace pynn::reference {

// dst[sum of i[a] * dst_strides[a]] = src[sum of i[a] * src_strides[a]] for every index i of the box
template <class T>
void strided_copy(T* dst, const T* src, const std::vector<int64_t>& sizes, const std::vector<int64_t>& dst_strides,
                  const std::vector<int64_t>& src_strides, size_t axis = 0) {
  if (axis == sizes.size()) {
    *dst = *src;
    return;
  }
  for (int64_t i = 0; i < sizes[axis]; ++i) {
    strided_copy(dst + i * dst_strides[axis], src + i * src_strides[axis], sizes, dst_strides, src_strides, axis + 1);
  }
}

}  // namespace pynn::reference
