// One face, Vec<T>, for every instruction set. Only files in kernels/ include it; see HACKING.md for their rules.
//
//   Vec<T>::lanes                      how many T fit
//   Vec<T>(x)                          x in every lane; Vec<T>::zero()
//   Vec<T>::load(p), .store(p)         unaligned
//   Vec<T>::load(p, n), .store(p, n)   the first n lanes only, 0 <= n <= lanes; the other lanes load as 0
//   + - * /, fma(a, b, c)              a*b + c, fused where the machine fuses
//   max(a, b), min(a, b)               b where either is NaN, as in x86
//   a < b, a <= b, a == b              Mask<T>, false where either is NaN; & | ! on masks
//   select(m, a, b)                    m ? a : b
//   sqrt, abs, round                   round to nearest even
//   copysign(a, b)                     a with the sign of b, of zeros and NaN as well
//   exponent(a), mantissa(a)           float, a normal and positive: a = mantissa * 2^exponent with 1 <= mantissa < 2
//   exp2i(n)                           2^n for integral n; float: -126..127, double: -1022..1023
//   times_exp2i(a, n)                  float, a * 2^n for integral n in -252..254 and 1/2 < |a| < 2, rounded once
//   reduce_add, reduce_max             over the lanes, in a fixed order
//   compress_store(p, m, a)            the lanes in m, one after the other; writes a whole vector, returns how many
//   expand_load(to, p, bits)           the elements at p, to the lanes of `to` that are in bits; returns how many,
//                                      may read and write a whole vector
//   bits_of(m)                         the mask as an integer, whose bit i is lane i
//   in_register(a)                     a, loaded once: GCC repeats the load in every operation that can read memory
//   in_register(p)                     a pointer, added up once: some processors execute a multiply-add whose operand
//                                      in memory has an index register as two instructions, and GCC, left to
//                                      itself, gives it one wherever it can
//   widen(p, a)                        the bytes at p as integers, one per lane of a
//   gemm_rows                          rows of gemm's block of accumulators, by the number of registers
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__GNUC__)
#define PYNN_INLINE inline __attribute__((always_inline))
#define PYNN_RESTRICT __restrict__
#else
#error "pynn builds with GCC or Clang"
#endif

// Set by CMake for each instruction set: the namespace that keeps its code apart.
#ifndef PYNN_ISA
#error "files in kernels/ are compiled once per instruction set, with PYNN_ISA defined"
#endif

#if defined(__AVX512F__)
#include "simd/vec_avx512.h"
#elif defined(__AVX2__)
#include "simd/vec_avx2.h"
#elif defined(PYNN_ISA_NEON)
#include "simd/vec_neon.h"
#else
#include "simd/vec_generic.h"
#endif

namespace pynn::PYNN_ISA {
namespace {

template <class T>
PYNN_INLINE Vec<T> in_register(Vec<T> a) {
#if defined(__AVX2__)
  __asm__("" : "+v"(a.v));
#endif
  return a;
}

template <class T>
PYNN_INLINE const T* in_register(const T* p) {
#if defined(__AVX2__)
  __asm__("" : "+r"(p));
#endif
  return p;
}

#if !defined(__AVX512F__)  // which has an instruction for it
// In two factors: 2^n itself may be out of range.
PYNN_INLINE Vec<float> times_exp2i(Vec<float> a, Vec<float> n) {
  const Vec<float> half = round(n * Vec<float>(0.5f));
  return a * exp2i(half) * exp2i(n - half);
}
#endif

// A lane-wise call of a scalar function: for float64, whose accuracy matters more than its speed.
template <class T, class Function>
PYNN_INLINE Vec<T> map_lanes(Vec<T> x, Function f) {
  T lanes[Vec<T>::lanes];
  x.store(lanes);
  for (int i = 0; i < Vec<T>::lanes; ++i) lanes[i] = f(lanes[i]);
  return Vec<T>::load(lanes);
}

// for_lanes calls body(i, n) for each group of lanes of 0..size-1: whole vectors with n = AllLanes{}, then one tail
// with n the number that is left; load(p, n) and store(p, v, n) take either. A tail uses the same lane arithmetic as
// the body, so that an element's bits do not depend on where the threads split a range.
struct AllLanes {};

template <class T>
PYNN_INLINE Vec<T> load(const T* p, AllLanes) {
  return Vec<T>::load(p);
}
template <class T>
PYNN_INLINE Vec<T> load(const T* p, int n) {
  return Vec<T>::load(p, n);
}
template <class T>
PYNN_INLINE void store(T* p, Vec<T> v, AllLanes) {
  v.store(p);
}
template <class T>
PYNN_INLINE void store(T* p, Vec<T> v, int n) {
  v.store(p, n);
}

template <class T, class Body>
PYNN_INLINE void for_lanes(int64_t size, Body body) {
  constexpr int64_t lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) body(i, AllLanes{});
  if (i < size) body(i, static_cast<int>(size - i));
}

// Writes the block at src, transposed, to dst: lanes x lanes, or [rows, cols] with both at most lanes. Some instruction
// sets have a float one in registers.
template <class T>
PYNN_INLINE void transpose_block(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int rows, int cols) {
  for (int i = 0; i < cols; ++i) {
    for (int j = 0; j < rows; ++j) dst[i * dst_stride + j] = src[j * src_stride + i];
  }
}
template <class T>
PYNN_INLINE void transpose_block(T* dst, int64_t dst_stride, const T* src, int64_t src_stride) {
  transpose_block(dst, dst_stride, src, src_stride, Vec<T>::lanes, Vec<T>::lanes);
}

// As many integers as a Vec<T> has lanes, of the size of T.
template <class T>
struct Integers;
template <>
struct Integers<float> {
  using Lanes __attribute__((vector_size(4 * Vec<float>::lanes))) = int32_t;
  using Bytes __attribute__((vector_size(Vec<float>::lanes))) = uint8_t;
};
template <>
struct Integers<double> {
  using Lanes __attribute__((vector_size(8 * Vec<double>::lanes))) = int64_t;
  using Bytes __attribute__((vector_size(Vec<double>::lanes))) = uint8_t;
};

// a with the sign of b.
template <class T>
PYNN_INLINE Vec<T> copysign(Vec<T> a, Vec<T> b) {
  using Lanes = typename Integers<T>::Lanes;
  const Lanes sign = (Lanes)Vec<T>(T(-0.0)).v;
  return Vec<T>((decltype(a.v))(((Lanes)a.v & ~sign) | ((Lanes)b.v & sign)));
}

// Bytes as the integers that fill a Vec<T>; some instruction sets have one instruction for it.
template <class T>
PYNN_INLINE typename Integers<T>::Lanes widen(const uint8_t* p, Vec<T>) {
  typename Integers<T>::Bytes bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return __builtin_convertvector(bytes, typename Integers<T>::Lanes);
}

// The lanes in the mask, one after the other; the face says more. Bits may be those of another type.
template <class T>
PYNN_INLINE int compress_store(T* p, Mask<T> m, Vec<T> a) {
  T lanes[Vec<T>::lanes], in_mask[Vec<T>::lanes];
  a.store(lanes);
  select(m, Vec<T>(T(1)), Vec<T>::zero()).store(in_mask);
  int count = 0;
  for (int i = 0; i < Vec<T>::lanes; ++i) {
    std::memcpy(p + count, lanes + i, sizeof(T));
    count += in_mask[i] != T(0);
  }
  return count;
}

// The other way round; the lanes between may be written.
template <class T>
PYNN_INLINE int expand_load(T* to, const T* p, unsigned bits) {
  int count = 0;
  for (; bits != 0; bits &= bits - 1) to[__builtin_ctz(bits)] = p[count++];
  return count;
}

// A mask as an integer; some instruction sets have one instruction for it.
template <class T>
PYNN_INLINE unsigned bits_of(Mask<T> m) {
  T in_mask[Vec<T>::lanes];
  select(m, Vec<T>(T(1)), Vec<T>::zero()).store(in_mask);
  unsigned bits = 0;
  for (int i = 0; i < Vec<T>::lanes; ++i) bits |= unsigned(in_mask[i] != T(0)) << i;
  return bits;
}

}  // namespace
}  // namespace pynn::PYNN_ISA
