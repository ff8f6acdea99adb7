#include "kernels/gemm.h"

#include "kernels/gemm_dot.h"
#include "kernels/gemm_sparse.h"
#include "kernels/table.h"
#include "simd/transpose.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int NV = 2;  // vectors per row of the register block

template <class T>
constexpr int64_t nr = NV * Vec<T>::lanes;

// C is written after so many steps: long enough to fetch it meanwhile.
constexpr int64_t kPrefetchDepth = 64;

// Rows of a transposed A that are fetched ahead: a hundred cycles' worth of products.
constexpr int64_t kAhead = 8;

// Floats of a cache line, and the lines of each far row that are fetched ahead, by the blocks that many rows are cut
// into: one line in each step, for many at once keep those of B waiting.
constexpr int64_t kLine = 64 / sizeof(float);
constexpr int64_t kLinesAhead = 3;
constexpr int kLeastFarBlock = 12;

// float64 serves gradient checks; a smaller block keeps the library small, and so do loops of one step.
template <class T>
constexpr int mr = sizeof(T) == 4 ? gemm_rows : 4;
constexpr int kLeastUnrolled = 4;  // rows of a block

// By one addition, hidden from GCC, which makes an address of its own for each place that a pointer goes to.
template <class Pointer>
PYNN_INLINE void move(Pointer& pointer, int64_t by) {
  pointer += by;
  __asm__("" : "+r"(pointer));
}

// c[MR, Vectors * lanes] += op(a) * b, all accumulators in registers. The last vector has `tail` lanes if Masked.
template <class T, int MR, int Vectors, bool ATransposed, bool Masked>
void micro_kernel(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, int64_t ldb, const GemmEpilogue<T>& epilogue,
                  int tail, int64_t k) {
  constexpr int lanes = Vec<T>::lanes;
  const auto load_vector = [tail](const T* p, int j) {
    return Masked && j == Vectors - 1 ? Vec<T>::load(p + j * lanes, tail) : Vec<T>::load(p + j * lanes);
  };
  Vec<T> sum[MR][Vectors];
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; ++j) {
    const Vec<T> start = epilogue.bias != nullptr ? load_vector(epilogue.bias, j) : Vec<T>::zero();
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      sum[i][j] = epilogue.accumulate            ? load_vector(c + i * ldc, j)
                  : epilogue.row_bias != nullptr ? Vec<T>(epilogue.row_bias[i])
                                                 : start;
    }
  }
  if (k >= kPrefetchDepth) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) __builtin_prefetch(c + i * ldc + j * lanes, 1);
    }
  }
  // Every fourth row of A has a pointer of its own: an index register for each row would be more than there are.
  const T* rows[(MR + 3) / 4];
#pragma GCC unroll 4
  for (int i = 0; i < (MR + 3) / 4; ++i) rows[i] = a + 4 * i * lda;
  const auto advance = [&](int64_t steps) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < (MR + 3) / 4; ++i) move(rows[i], steps);
  };
  // Step p of the sums, whose elements of a row-major A lie `behind` the pointers of its rows.
  const auto step = [&](int64_t p, int64_t behind) __attribute__((always_inline)) {
    Vec<T> row[Vectors];
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) row[j] = load_vector(b, j);
    if constexpr (ATransposed) {  // its rows are too far apart for the processor to fetch them by itself
      __builtin_prefetch(a + (p + kAhead) * lda);
      if constexpr (MR > 1) __builtin_prefetch(a + (p + kAhead) * lda + MR - 1);
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<T> scalar(ATransposed ? a[p * lda + i] : rows[i / 4][i % 4 * lda + behind]);
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) sum[i][j] = fma(scalar, row[j], sum[i][j]);
    }
    move(b, ldb);
  };
  int64_t p = 0;
  if constexpr (sizeof(T) == 4 && MR >= kLeastUnrolled && !ATransposed && !Masked && Vectors == NV) {
    // Two steps for each time that the pointers move: what the multiply-adds wait for is asked for earlier.
    if constexpr (MR >= kLeastFarBlock) {
      // The steps of a line fetch a line of each row, or of the next block's rows where these end.
      while (epilogue.far_rows && p + kLine <= k) {
        const int64_t column = p + kLinesAhead * kLine;
        const T* ahead = a + (column < k ? column : MR * lda + column - k);
#pragma GCC unroll 1
        for (int row = 0; row < kLine; row += 2, p += 2) {
          __builtin_prefetch(ahead);
          step(p, 0);
          advance(0);
          __builtin_prefetch(ahead + lda);
          ahead += row + 3 <= MR ? 2 * lda : 0;
          step(p + 1, 1);
          advance(2);
        }
      }
    }
    for (; p + 2 <= k; p += 2) {
      step(p, 0);
      advance(0);
      step(p + 1, 1);
      advance(2);
    }
  }
  for (; p < k; ++p) {
    step(p, 0);
    if constexpr (!ATransposed) advance(1);
  }
  const bool relu = epilogue.relu;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
      Vec<T> value = sum[i][j];
      if (relu) value = select(value < Vec<T>::zero(), Vec<T>::zero(), value);
      if (Masked && j == Vectors - 1) {
        value.store(c + i * ldc + j * lanes, tail);
      } else {
        value.store(c + i * ldc + j * lanes);
      }
    }
  }
}

// The epilogue by reference: a copy for each call would load in one piece what has just been stored in several, which
// waits for the stores.
template <class T>
using MicroKernel = void (*)(T*, int64_t, const T*, int64_t, const T*, int64_t, const GemmEpilogue<T>&, int, int64_t);

// [rows - 1][transposed A][vectors and tail: 2 full, 2 masked, 1 full, 1 masked]
template <class T, int MR>
struct MicroKernels {
  MicroKernel<T> rows[MR][2][4];
  constexpr MicroKernels() : rows() { fill<MR>(); }

 private:
  template <int R>
  constexpr void fill() {
    fill_row<R, false>();
    fill_row<R, true>();
    if constexpr (R > 1) fill<R - 1>();
  }
  template <int R, bool ATransposed>
  constexpr void fill_row() {
    auto& row = rows[R - 1][ATransposed];
    row[0] = micro_kernel<T, R, 2, ATransposed, false>;
    row[1] = micro_kernel<T, R, 2, ATransposed, true>;
    row[2] = micro_kernel<T, R, 1, ATransposed, false>;
    row[3] = micro_kernel<T, R, 1, ATransposed, true>;
  }
};

template <class T>
constexpr MicroKernels<T, mr<T>> micro_kernels;

// The block of a tile of A, whose rows are as long as the block is high, and a whole packed panel of B: steps without
// strides, two at a time. The C that lies next_c behind c is fetched meanwhile. No row_bias.
template <int MR>
void tile_kernel(float* c, int64_t ldc, const float* a, const float* b, GemmEpilogue<float> epilogue, int64_t next_c,
                 int64_t k) {
  constexpr int lanes = Vec<float>::lanes;
  static constexpr float zeros[nr<float>] = {};
  const float* start = epilogue.accumulate ? c : epilogue.bias != nullptr ? epilogue.bias : zeros;
  const int64_t start_stride = epilogue.accumulate ? ldc : 0;
  const Vec<float> least(epilogue.relu ? 0.0f : -__builtin_inff());
  Vec<float> sum[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i, move(start, start_stride)) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) sum[i][j] = Vec<float>::load(start + j * lanes);
  }
  const float* ahead = c + next_c;
#pragma GCC unroll 1
  for (int i = 0; i < MR; ++i, ahead += ldc) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) __builtin_prefetch(ahead + j * lanes, 1);
  }
  const auto step = [&](const float* of_a, const float* of_b) __attribute__((always_inline)) {
    Vec<float> row[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) row[j] = in_register(Vec<float>::load(of_b + j * lanes));
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<float> scalar(of_a[i]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) sum[i][j] = fma(scalar, row[j], sum[i][j]);
    }
  };
  for (; k >= 2; k -= 2, a += 2 * MR, b += 2 * nr<float>) {
    step(a, b);
    step(a + MR, b + nr<float>);
  }
  if (k > 0) step(a, b);
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i, move(c, ldc)) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) max(least, sum[i][j]).store(c + j * lanes);
  }
}

// For tiles as high as those of many rows are: [mr - rows].
constexpr decltype(&tile_kernel<1>) tile_kernels[] = {tile_kernel<mr<float>>, tile_kernel<mr<float> - 1>,
                                                      tile_kernel<mr<float> - 2>};
constexpr int64_t kLeastTile = mr<float> - 2;

template <class T>
void block(T* c, int64_t ldc, const T* a, int64_t lda, bool a_transposed, GemmPanels<T> b, GemmEpilogue<T> epilogue,
           int64_t m, int64_t n, int64_t k) {
  constexpr int lanes = Vec<T>::lanes;
  // Rows in blocks of nearly equal height: 128 rows are eight of 13 and two of 12 rather than nine of 14 and one of 2.
  const int64_t row_blocks = (m + mr<T> - 1) / mr<T>;
  for (int64_t j = 0; j < n; j += nr<T>) {
    const int64_t columns = n - j < nr<T> ? n - j : nr<T>;
    const int tail = static_cast<int>(columns % lanes);
    const int shape = (columns > lanes ? 0 : 2) + (tail != 0 ? 1 : 0);
    GemmEpilogue<T> here = epilogue;
    if (here.bias != nullptr) here.bias += j;
    for (int64_t r = 0; r < row_blocks; ++r) {
      const int64_t i = m * r / row_blocks, rows = m * (r + 1) / row_blocks - i;
      if (here.row_bias != nullptr) here.row_bias = epilogue.row_bias + i;
      here.far_rows = j == 0 && i + rows < epilogue.far_rows;
      if constexpr (sizeof(T) == sizeof(float)) {
        const bool tile = a_transposed && lda == m && m >= kLeastTile && m <= mr<T>;
        if (tile && b.row_stride == nr<T> && columns == nr<T> && epilogue.row_bias == nullptr) {
          // A C that is added to is read first, so that the block before has to fetch it.
          const int64_t next_c = epilogue.accumulate && n - j > nr<T> ? nr<T> : 0;
          tile_kernels[mr<T> - m](c + j, ldc, a, b.data + j / nr<T> * b.panel_stride, here, next_c, k);
          continue;
        }
      }
      micro_kernels<T>.rows[rows - 1][a_transposed][shape](c + i * ldc + j, ldc, a + (a_transposed ? i : i * lda), lda,
                                                           b.data + j / nr<T> * b.panel_stride, b.row_stride, here,
                                                           tail, k);
    }
  }
}

template <class T>
bool sparse_block(T* c, int64_t ldc, const T* a, int64_t lda, const uint64_t* live, const T* b, int64_t ldb,
                  uint64_t* met, GemmEpilogue<T> epilogue, int64_t m, int64_t n, int64_t k) {
  constexpr int lanes = Vec<T>::lanes;
  const int tail = static_cast<int>(n % lanes);
  return sparse_rows_of<T>.rows[(n + lanes - 1) / lanes - 1][tail != 0](c, ldc, a, lda, live, b, ldb, met, epilogue,
                                                                        tail, m, k);
}

template <class T>
void pack_panel(T* packed, const T* b, int64_t ldb, bool b_transposed, int64_t k, int64_t n) {
  if (b_transposed) {
    for (int64_t j = 0; j < n; j += nr<T>) {
      transpose(packed + j * k, nr<T>, b + j * ldb, ldb, n - j < nr<T> ? n - j : nr<T>, k);
    }
    return;
  }
  // Row by row, for far caches deliver at twice the rate what lies side by side.
  for (int64_t p = 0; p < k; ++p) {
    const T* row = b + p * ldb;
    T* to = packed + p * nr<T>;
    int64_t j = 0;
    for (; j + nr<T> <= n; j += nr<T>, to += k * nr<T>) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) Vec<T>::load(row + j + v * Vec<T>::lanes).store(to + v * Vec<T>::lanes);
    }
    for_lanes<T>(n - j, [&](int64_t i, auto lanes) { store(to + i, load(row + j + i, lanes), lanes); });
  }
}

template <class T>
void pack_rows(T* packed, const T* a, int64_t lda, int64_t m, int64_t k) {
  transpose(packed, m, a, lda, m, k);
}

// Four rows at a time into accumulators of their own, added in a fixed order.
template <class T>
void column_sums(T* sums, const T* x, int64_t ldx, int64_t rows, int64_t cols) {
  for_lanes<T>(cols, [&](int64_t j, auto lanes) {
    Vec<T> sum[4] = {Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero()};
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      for (int r = 0; r < 4; ++r) sum[r] = sum[r] + load(x + (i + r) * ldx + j, lanes);
    }
    for (; i < rows; ++i) sum[0] = sum[0] + load(x + i * ldx + j, lanes);
    store(sums + j, (sum[0] + sum[1]) + (sum[2] + sum[3]), lanes);
  });
}

template <class T>
GemmKernels<T> table() {
  return {mr<T>,
          nr<T>,
          sparse_vectors * Vec<T>::lanes,
          sparse_depth<T>,
          block<T>,
          live_bits<T>,
          sparse_block<T>,
          pack_columns<T>,
          is_finite<T>,
          has_negative_zero<T>,
          dot<T>,
          pack_panel<T>,
          pack_rows<T>,
          column_sums<T>};
}

}  // namespace

void register_gemm(KernelSet& set) {
  set.f32.gemm = table<float>();
  set.f64.gemm = table<double>();
}

}  // namespace pynn::PYNN_ISA
