// A matrix that is mostly zeros, packed once, and the first layer of a network on some of its rows. The weight is
// stored turned, [columns, width], so that what is multiplied by an element of x lies side by side; width is a number
// of whole cache lines, and the columns that follow those of the outputs are to be 0.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/gemm.h"
#include "runtime/arena.h"

namespace pynn::ops {

template <class T>
class PackedRows {
 public:
  // x[rows, columns]; null if it is not mostly zeros, or holds NaN or infinity.
  static std::shared_ptr<const PackedRows> of_dense(const T* x, int64_t rows, int64_t columns);

  // Row i has values[p] in columns[p] for offsets[i] <= p < offsets[i + 1], in any order, those of one column added up;
  // std::out_of_range where that leaves the arrays or the matrix.
  static std::shared_ptr<const PackedRows> of_csr(const int64_t* offsets, const int64_t* indices, const T* values,
                                                  int64_t count, int64_t rows, int64_t columns);

  int64_t rows() const { return static_cast<int64_t>(starts_.size()); }
  int64_t columns() const { return columns_; }
  const uint64_t* record(int64_t row) const { return memory_.get() + starts_[static_cast<size_t>(row)]; }

 private:
  // room(begin, end): how many values those rows may have; row(i): [columns]
  template <class Room, class Row>
  static std::shared_ptr<const PackedRows> of_rows(int64_t rows, int64_t columns, const Room& room, const Row& row);
  PackedRows(int64_t rows, int64_t columns, int64_t words);

  int64_t columns_;
  arena::Buffer<uint64_t> memory_;
  std::vector<int64_t> starts_;  // of each row's record, see kernels/packed_rows.h
};

// Elements of a cache line, which width is a multiple of.
template <class T>
constexpr int64_t kPackedLine = 64 / int64_t(sizeof(T));

// y[count, out] = activation(x[numbers] * weight[columns, width] + bias[out]); std::out_of_range for a number that is
// not a row of x.
template <class T>
void packed_linear(T* y, const PackedRows<T>& x, const int64_t* numbers, const T* weight, const T* bias,
                   Activation activation, int64_t count, int64_t out, int64_t width);

// dweight[columns, width] and dbias[out]
template <class T>
void packed_linear_backward(T* dweight, T* dbias, const T* dy, const T* y, const PackedRows<T>& x,
                            const int64_t* numbers, Activation activation, int64_t count, int64_t out, int64_t width);

}  // namespace pynn::ops
