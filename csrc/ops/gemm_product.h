// One matrix product, planned: which operand lies in the lanes, what is packed, and how C is cut into tasks.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"
#include "ops/gemm.h"

namespace pynn::ops {

// y = activation(y) over n elements, but for none and relu, which the kernels' epilogue does.
template <class T>
void activate(Activation activation, T* y, int64_t n);

// dz = dy * activation'(y) over n elements; dz may be dy. Activation::none copies, and does not read y.
template <class T>
void activation_backward(Activation activation, T* dz, const T* dy, const T* y, int64_t n);

// Whether the product is made of dot products of rows: by the shape alone, for the forms add in different orders.
template <class T>
bool dot_pays(const GemmArguments<T>& g);

// Whether the product is made of tiles of bfloat16 parts, which needs a processor that multiplies those: by the shape
// alone.
template <class T>
bool split_pays(int64_t m, int64_t n, int64_t k, bool b_transposed);

// Of the k that a block goes through before C is written.
int64_t pass_depth(int64_t k);

// Whether rows that are so many elements apart all fall on one set of the L1 cache; and how far apart to copy rows
// of this size.
bool bad_row_stride(int64_t stride);
int64_t good_row_stride(int64_t size);

// Whether a row-major B of so many elements is better packed than read in place.
template <class T>
bool bad_to_read(int64_t ldb, int64_t size);

// What else happens to A on the way: A stands for A * activation'(y), with y laid out as A is, and row_sums[m] become
// the sums of op(A) over k, or have them added if C has.
template <class T>
struct GemmSource {
  Activation activation = Activation::none;
  const T* y = nullptr;
  T* row_sums = nullptr;
  bool zeros = false;  // A * activation'(y) has so many that their terms are left out; B is stored [k, n]
};

// Tasks are independent, may run in any order on any thread, and pack what they read into their thread's scratch: no
// task waits for another. The cut depends on the number of threads, the sums do not.
template <class T>
class Product {
 public:
  Product() = default;  // without tasks
  Product(const GemmArguments<T>& g, const GemmSource<T>& source, int64_t threads);

  int64_t tasks() const { return row_parts_ * column_parts_; }
  void run(int64_t task) const;

 private:
  // A range of rows or columns of C.
  struct Range {
    int64_t begin, size;
  };
  // Rows of op(A) for the block kernel; or, if in_tiles_, tiles of kernel.mr rows or fewer, transposed, one behind the
  // other.
  struct Rows {
    const T* data;
    int64_t stride;
    bool transposed;
  };

  void choose_form();
  void choose_cut(int64_t threads);
  void run_dot(Range rows, Range columns) const;
  void run_blocks(Range rows, Range columns, bool are_far) const;  // the rows: see GemmEpilogue::far_rows
  void run_sparse(Range rows, Range columns) const;
  void run_split(Range rows, Range columns) const;
  int64_t column_unit() const;
  bool prepares_rows() const;
  int64_t prepared_size(int64_t rows, int64_t depth) const;
  Rows prepare_rows(Range rows, Range depth, T* packed, bool prepared) const;  // prepared: they are there already
  Rows tile_of(Rows a, int64_t first, int64_t rows, int64_t depth) const;
  void add_row_sums(Rows a, Range rows, Range depth) const;
  void finish(Range rows, Range columns) const;

  GemmArguments<T> g_{};
  GemmSource<T> source_{};
  bool dot_ = false;     // dot products of rows, nothing packed
  bool sparse_ = false;  // blocks without the zeros of A
  bool split_ = false;   // tiles of bfloat16 parts
  bool turned_ = false;  // A and B have changed places: blocks make C's transpose, which is turned at the end
  bool pack_a_ = false, pack_b_ = false;
  bool in_tiles_ = false;  // how A is packed
  int64_t depth_ = 0;      // k of one pass
  int64_t row_parts_ = 0, column_parts_ = 0, threads_ = 1;
};

}  // namespace pynn::ops
