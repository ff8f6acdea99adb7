// The block of C for an A that is mostly zeros, whose terms are left out. The others are added in the order of the
// dense blocks, so that C has the same bits.
#pragma once

#include "kernels/gemm.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int sparse_vectors = 8;  // of a row of C, whose sums stay in registers

// Of B: they stay in the L1 cache beside rows of A and C if they have that many vectors, and are bits of a word.
template <class T>
constexpr int64_t sparse_depth = 28672 / (sparse_vectors * int64_t(sizeof(T)) * Vec<T>::lanes) < 64
                                     ? 28672 / (sparse_vectors * int64_t(sizeof(T)) * Vec<T>::lanes)
                                     : 64;

// Rows that are multiplied densely together where too few of their elements are 0.
constexpr int64_t sparse_group = 8;

template <class T>
void block(T* c, int64_t ldc, const T* a, int64_t lda, bool a_transposed, GemmPanels<T> b, GemmEpilogue<T> epilogue,
           int64_t m, int64_t n, int64_t k);

// Which elements are 0 is known ahead of the loops over the others, so that a processor that has mispredicted the end
// of one has multiplications left to do.
template <class T>
void live_bits(uint64_t* live, const T* a, int64_t lda, int64_t m, int64_t k) {
  for (int64_t i = 0; i < m; ++i) {
    const T* row = a + i * lda;
    uint64_t bits = 0;
    for_lanes<T>(k, [&](int64_t p, auto n) { bits |= uint64_t(bits_of(!(load(row + p, n) == Vec<T>::zero()))) << p; });
    live[i] = bits;
  }
}

// -0.0 has the bits of the least integer: whether one is among those of which these are the least.
template <class T>
PYNN_INLINE bool is_negative_zero(typename Integers<T>::Lanes least) {
  const auto negative_zero = (typename Integers<T>::Lanes)Vec<T>(T(-0.0)).v;
  for (int i = 0; i < Vec<T>::lanes; ++i) {
    if (least[i] == negative_zero[i]) return true;
  }
  return false;
}

template <class T>
bool has_negative_zero(const T* c, int64_t ldc, int64_t m, int64_t n) {
  using Lanes = typename Integers<T>::Lanes;
  Lanes least = {};
  for (int64_t i = 0; i < m; ++i) {
    for_lanes<T>(n, [&](int64_t j, auto lanes) {
      const Lanes bits = (Lanes)load(c + i * ldc + j, lanes).v;
      least = bits < least ? bits : least;
    });
  }
  return is_negative_zero<T>(least);
}

template <class T>
bool is_finite(const T* b, int64_t size) {
  Vec<T> sum[4] = {Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero()};
  int64_t i = 0;
  for (; i + 4 * Vec<T>::lanes <= size; i += 4 * Vec<T>::lanes) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[v] = fma(Vec<T>::load(b + i + v * Vec<T>::lanes), Vec<T>::zero(), sum[v]);
  }
  for_lanes<T>(size - i, [&](int64_t j, auto n) { sum[0] = fma(load(b + i + j, n), Vec<T>::zero(), sum[0]); });
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3])) == T(0);
}

// Rows of C, which are as many vectors. The last vector has `tail` lanes if Masked.
template <class T, int Vectors, bool Masked>
bool sparse_rows(T* c, int64_t ldc, const T* a, int64_t lda, const uint64_t* live, const T* b, int64_t ldb,
                 uint64_t* met, GemmEpilogue<T> epilogue, int tail, int64_t m, int64_t k) {
  constexpr int lanes = Vec<T>::lanes;
  using Lanes = typename Integers<T>::Lanes;
  Lanes least = {};
  Vec<T> zeros = Vec<T>::zero();  // of sums that are finite
  bool may_differ = false;
  const auto load_vector = [tail](const T* p, int v) {
    return Masked && v == Vectors - 1 ? Vec<T>::load(p + v * lanes, tail) : Vec<T>::load(p + v * lanes);
  };
  for (int64_t group = 0; group < m; group += sparse_group) {
    const int64_t rows = m - group < sparse_group ? m - group : sparse_group;
    int64_t terms = 0;
    for (int64_t r = 0; r < rows; ++r) terms += __builtin_popcountll(live[group + r]);
    const int64_t n = (Vectors - 1) * lanes + (Masked ? tail : lanes);
    if (4 * terms > 3 * rows * k) {  // the sample that chose these kernels was not of these rows
      block<T>(c + group * ldc, ldc, a + group * lda, lda, false, {b, ldb, 2 * lanes}, epilogue, rows, n, k);
      may_differ |= has_negative_zero(c + group * ldc, ldc, rows, n);
      if (met == nullptr) continue;
      *met |= ~uint64_t(0) >> (64 - k);
      for (int64_t r = 0; r < rows; ++r) may_differ |= !is_finite(c + (group + r) * ldc, n);
      continue;
    }
    for (int64_t r = 0; r < rows; ++r) {
      uint64_t bits = live[group + r];
      if (met != nullptr) *met |= bits;
      if (bits == 0 && epilogue.accumulate && !epilogue.relu) continue;
      const T* row = a + (group + r) * lda;
      T* to = c + (group + r) * ldc;
      Vec<T> sum[Vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        sum[v] = epilogue.accumulate        ? load_vector(to, v)
                 : epilogue.bias != nullptr ? load_vector(epilogue.bias, v)
                                            : Vec<T>::zero();
      }
      while (bits != 0) {
        const int64_t p = __builtin_ctzll(bits);
        bits &= bits - 1;
        const Vec<T> factor(row[p]);
        const T* from = in_register(b + p * ldb);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sum[v] = fma(factor, load_vector(from, v), sum[v]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        if (epilogue.relu) sum[v] = select(sum[v] < Vec<T>::zero(), Vec<T>::zero(), sum[v]);
        const Lanes integers = (Lanes)sum[v].v;
        least = integers < least ? integers : least;
        if (met != nullptr) zeros = fma(sum[v], Vec<T>::zero(), zeros);
        if (Masked && v == Vectors - 1) {
          sum[v].store(to + v * lanes, tail);
        } else {
          sum[v].store(to + v * lanes);
        }
      }
    }
  }
  return may_differ || is_negative_zero<T>(least) || reduce_add(zeros) != T(0);
}

template <class T>
struct SparseRows {
  bool (*rows[sparse_vectors][2])(T*, int64_t, const T*, int64_t, const uint64_t*, const T*, int64_t, uint64_t*,
                                  GemmEpilogue<T>, int, int64_t, int64_t);  // [vectors - 1][masked]
  constexpr SparseRows() : rows() { fill<sparse_vectors>(); }

 private:
  template <int V>
  constexpr void fill() {
    rows[V - 1][0] = sparse_rows<T, V, false>;
    rows[V - 1][1] = sparse_rows<T, V, true>;
    if constexpr (V > 1) fill<V - 1>();
  }
};

template <class T>
constexpr SparseRows<T> sparse_rows_of;

// packed[k, width] = B[k, n] with columns of 0 from n on, width whole vectors
template <class T>
void pack_columns(T* packed, int64_t width, const T* b, int64_t ldb, int64_t k, int64_t n) {
  constexpr int lanes = Vec<T>::lanes;
  const int tail = static_cast<int>(n % lanes);
  for (int64_t p = 0; p < k; ++p) {
    const T* from = b + p * ldb;
    T* to = packed + p * width;
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) Vec<T>::load(from + j).store(to + j);
    if (tail != 0) Vec<T>::load(from + j, tail).store(to + j);
  }
}

}  // namespace
}  // namespace pynn::PYNN_ISA
