// The block of C for an A that is mostly zeros, whose terms are left out. The others are added in the order of the
// dense blocks, so that C has the same bits.
#pragma once

#include "kernels/gemm.h"
#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr int sparse_vectors = 8;  // of a row of C, whose sums stay in registers

// Of B: they stay in the first cache beside rows of A and C if they have that many vectors, and are bits of a word.
template <class T>
constexpr int64_t sparse_depth = 28672 / (sparse_vectors * int64_t(sizeof(T)) * Vec<T>::lanes) < 64
                                     ? 28672 / (sparse_vectors * int64_t(sizeof(T)) * Vec<T>::lanes)
                                     : 64;

// Rows whose elements are looked at before they are multiplied: which are 0 is then known ahead of the loops over the
// others, and a processor that has mispredicted the end of one has multiplications left to do.
constexpr int sparse_group = 8;

template <class T>
void block(T* c, int64_t ldc, const T* a, int64_t lda, bool a_transposed, GemmPanels<T> b, GemmEpilogue<T> epilogue,
           int64_t m, int64_t n, int64_t k);

// Bit p is whether row[p] is not 0, p < k <= 64.
template <class T>
PYNN_INLINE uint64_t live_bits(const T* row, int64_t k) {
  uint64_t bits = 0;
  for_lanes<T>(k, [&](int64_t p, auto n) { bits |= uint64_t(bits_of(!(load(row + p, n) == Vec<T>::zero()))) << p; });
  return bits;
}

// Rows of C; those of B are as many vectors. The last vector has `tail` lanes if Masked.
template <class T, int Vectors, bool Masked>
void sparse_rows(T* c, int64_t ldc, const T* a, int64_t lda, const T* b, GemmEpilogue<T> epilogue, int tail, int64_t m,
                 int64_t k) {
  constexpr int lanes = Vec<T>::lanes;
  const auto load_vector = [tail](const T* p, int v) {
    return Masked && v == Vectors - 1 ? Vec<T>::load(p + v * lanes, tail) : Vec<T>::load(p + v * lanes);
  };
  for (int64_t group = 0; group < m; group += sparse_group) {
    const int64_t rows = m - group < sparse_group ? m - group : sparse_group;
    uint64_t live[sparse_group];
    int64_t terms = 0;
    for (int64_t r = 0; r < rows; ++r) {
      live[r] = live_bits(a + (group + r) * lda, k);
      terms += __builtin_popcountll(live[r]);
    }
    if (2 * terms > rows * k) {  // the sample that chose these kernels was not of these rows
      block<T>(c + group * ldc, ldc, a + group * lda, lda, false, {b, Vectors * lanes, 2 * lanes}, epilogue, rows,
               (Vectors - 1) * lanes + (Masked ? tail : lanes), k);
      continue;
    }
    for (int64_t r = 0; r < rows; ++r) {
      uint64_t bits = live[r];
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
        const T* from = b + p * Vectors * lanes;
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sum[v] = fma(factor, Vec<T>::load(from + v * lanes), sum[v]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) {
        if (epilogue.relu) sum[v] = select(sum[v] < Vec<T>::zero(), Vec<T>::zero(), sum[v]);
        if (Masked && v == Vectors - 1) {
          sum[v].store(to + v * lanes, tail);
        } else {
          sum[v].store(to + v * lanes);
        }
      }
    }
  }
}

template <class T>
struct SparseRows {
  void (*rows[sparse_vectors][2])(T*, int64_t, const T*, int64_t, const T*, GemmEpilogue<T>, int, int64_t,
                                  int64_t);  // [vectors - 1][masked]
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

template <class T>
bool has_negative_zero(const T* c, int64_t ldc, int64_t m, int64_t n) {
  using Lanes = typename Integers<T>::Lanes;
  Lanes least = {};  // -0.0 has the bits of the least integer
  for (int64_t i = 0; i < m; ++i) {
    for_lanes<T>(n, [&](int64_t j, auto lanes) {
      const Lanes bits = (Lanes)load(c + i * ldc + j, lanes).v;
      least = bits < least ? bits : least;
    });
  }
  const Lanes negative_zero = (Lanes)Vec<T>(T(-0.0)).v;
  for (int i = 0; i < Vec<T>::lanes; ++i) {
    if (least[i] == negative_zero[i]) return true;
  }
  return false;
}

}  // namespace
}  // namespace pynn::PYNN_ISA
