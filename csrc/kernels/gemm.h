// Matrix product of one block, and the packing that prepares it.
#pragma once

#include <cstdint>

namespace pynn {

// What a block of C starts from and ends with.
template <class T>
struct GemmEpilogue {
  const T* bias = nullptr;      // [n], where C starts; else it starts at 0
  const T* row_bias = nullptr;  // [m], the same for a C that is turned afterwards; blocks only
  bool accumulate = false;      // C starts at its own content instead
  bool relu = false;            // C ends as max(C, 0)
  // No part of C: so many rows of a row-major A, from the block's first on, may lie in another core's cache, and are
  // fetched ahead, also those behind the block.
  int64_t far_rows = 0;
};

// B for a block: panels of nr columns, element (p, j) of panel q at data[q * panel_stride + p * row_stride + j]. A
// row-major B is such a thing with row_stride = ldb and panel_stride = nr; a packed one has row_stride = nr,
// panel_stride = k * nr.
template <class T>
struct GemmPanels {
  const T* data;
  int64_t row_stride;
  int64_t panel_stride;
};

template <class T>
struct GemmKernels {
  int64_t mr, nr;                        // the block that stays in registers
  int64_t sparse_columns, sparse_depth;  // n and k of a sparse block, at most

  // C[m, n] = epilogue(op(A)[m, k] * B[k, n]); a_transposed: A is stored [k, m]
  void (*block)(T* c, int64_t ldc, const T* a, int64_t lda, bool a_transposed, GemmPanels<T> b,
                GemmEpilogue<T> epilogue, int64_t m, int64_t n, int64_t k);

  // Bit p of live[i] is whether A[i, p] is not 0, for an A stored [m, k] and k up to 64.
  void (*live_bits)(uint64_t* live, const T* a, int64_t lda, int64_t m, int64_t k);

  // The same as block for an A stored [m, k], of which `live` has the bits: without the terms whose element of A is 0.
  // No row_bias. The bits of C are the same where B is finite, for such a term is then 0.0 or -0.0, but of elements
  // that end as -0.0, which a term of 0.0 would have made 0.0. Returns whether they may differ: an element has become
  // -0.0 or, unless `met` is null, for a finite B, is not finite. Bit p of met is set if row p of B met a number that
  // is not 0: the caller looks at the others.
  bool (*sparse_block)(T* c, int64_t ldc, const T* a, int64_t lda, const uint64_t* live, const T* b, int64_t ldb,
                       uint64_t* met, GemmEpilogue<T> epilogue, int64_t m, int64_t n, int64_t k);
  void (*pack_columns)(T* packed, int64_t width, const T* b, int64_t ldb, int64_t k, int64_t n);  // from n on 0
  bool (*is_finite)(const T* b, int64_t size);
  bool (*has_negative_zero)(const T* c, int64_t ldc, int64_t m, int64_t n);

  // C = epilogue(A * B^T) for an A stored [m, k] and a B stored [n, k]: dot products of rows, nothing packed.
  void (*dot)(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, GemmEpilogue<T> epilogue, int64_t m,
              int64_t n, int64_t k);

  // packed = the panels of op(B)[k, n], [k, nr] each, one behind the other; columns from n on stay as they are;
  // b_transposed: B is stored [n, k]
  void (*pack_panel)(T* packed, const T* b, int64_t ldb, bool b_transposed, int64_t k, int64_t n);

  // packed[k, m] = A[m, k] transposed
  void (*pack_rows)(T* packed, const T* a, int64_t lda, int64_t m, int64_t k);

  // sums[cols] = sum over rows of x[rows, cols], whose rows are ldx apart
  void (*column_sums)(T* sums, const T* x, int64_t ldx, int64_t rows, int64_t cols);
};

}  // namespace pynn
