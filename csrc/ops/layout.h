// Moving elements between arrays of different layout: transpose, slice, pad, concatenate are all one strided copy.
#pragma once

#include <cstdint>
#include <vector>

namespace pynn::ops {

// One axis of a box of elements, with the distance of neighbours (in elements) in each of two arrays.
struct CopyAxis {
  int64_t size;
  int64_t dst_stride;
  int64_t src_stride;
};

// dst[i . dst_strides] = src[i . src_strides] for every index i of the box; quickest with the axes in the order of dst.
template <class T>
void strided_copy(T* dst, const T* src, std::vector<CopyAxis> axes);

template <class T>
void fill(T* y, T value, int64_t n);

// y[i] = x[rows[i]] for rows of so many bytes: y [count, row_bytes]
void take_rows(void* y, const void* x, const int64_t* rows, int64_t count, int64_t row_bytes);

// dweight[indices[i]] += dy[i], in the order of i: dweight [rows, dim], dy [count, dim], its rows ldy apart
template <class T>
void embedding_backward(T* dweight, const T* dy, int64_t ldy, const int64_t* indices, int64_t count, int64_t dim);

}  // namespace pynn::ops
