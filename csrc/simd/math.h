// exp, log, tanh, sigmoid and the normal distribution: float in vectors, double by the C library lane by lane.
//
// Errors in float stay below 1.0 (exp), 0.9 (log), 1.4 (tanh), 2.4 (sigmoid) and 2.5 (gate_tanh) units in the last
// place; tests/test_math.cpp holds them to it. Denormal results are gradual, and NaN passes through.
//
// The method is the usual one (Cody and Waite, Software Manual for the Elementary Functions, 1980; Muller, Elementary
// Functions, 3rd ed. 2016): reduce the argument exactly to a short interval, evaluate a polynomial there, scale back.
// The polynomials are minimax approximations of the relative error, computed for these intervals by Remez's algorithm.
#pragma once

#include <math.h>

#include "simd/vec.h"

namespace pynn::PYNN_ISA {
namespace {

// c[0] + c[1] x + ... by Horner's rule
template <int N>
PYNN_INLINE Vec<float> polynomial(Vec<float> x, const float (&c)[N]) {
  Vec<float> sum(c[N - 1]);
#pragma GCC unroll 10
  for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, Vec<float>(c[i]));
  return sum;
}

// ln 2 = high + low; high has 9 bits, so that n * high is exact for the n that occur.
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// e^x = 2^n e^r with |r| <= ln 2 / 2.
struct Reduced {
  Vec<float> n, r;
};
PYNN_INLINE Reduced reduce(Vec<float> x) {
  const Vec<float> n = round(x * Vec<float>(1.44269504f));
  return {n, fma(n, Vec<float>(-kLn2Low), fma(n, Vec<float>(-kLn2High), x))};
}

// e^r - 1 for |r| <= ln 2 / 2. The polynomial is off by 0.02 units of e^r, or 0.1 with a term less. Its terms are added
// in pairs: by Horner's rule, each waits for the one before.
PYNN_INLINE Vec<float> expm1_reduced(Vec<float> r) {
  const Vec<float> square = r * r, last = polynomial(r, {0.0013944758f, 0.00019790244f});
  const Vec<float> middle = polynomial(r, {0.041666295f, 0.008333498f}), first = polynomial(r, {0.5f, 0.16666666f});
  return fma(square, fma(fma(last, square, middle), square, first), r);
}
PYNN_INLINE Vec<float> short_expm1_reduced(Vec<float> r) {
  const Vec<float> square = r * r, last(0.0013940561f);
  const Vec<float> middle = polynomial(r, {0.041666403f, 0.008366457f}), first = polynomial(r, {0.5f, 0.16666545f});
  return fma(square, fma(fma(last, square, middle), square, first), r);
}

// Beyond -104 and 89 the result is infinity or rounds to 0; the order of operands keeps NaN.
PYNN_INLINE Vec<float> exp(Vec<float> x) {
  const Reduced parts = reduce(max(Vec<float>(-104.0f), min(Vec<float>(89.0f), x)));
  const Vec<float> y = expm1_reduced(parts.r) + Vec<float>(1.0f);
  return times_exp2i(y, parts.n);  // n reaches 128, and -150 where the result is denormal
}

// log(1 + f) + e ln 2 with sqrt(1/2) <= 1 + f < sqrt(2)
PYNN_INLINE Vec<float> log_of_parts(Vec<float> f, Vec<float> e) {
  const Vec<float> p = polynomial(f, {0.33333313f, -0.2500001f, 0.20002119f, -0.16667996f, 0.14219552f, -0.124055885f,
                                      0.11888159f, -0.11675654f, 0.06746651f});
  const Vec<float> square = f * f;
  const Vec<float> tail = fma(square * f, p, fma(e, Vec<float>(kLn2Low), square * Vec<float>(-0.5f)));
  return fma(e, Vec<float>(kLn2High), f + tail);
}

// x = 2^e (1 + f)
PYNN_INLINE Vec<float> log(Vec<float> x) {
  const Vec<float> zero = Vec<float>::zero(), one(1.0f);
  const Mask<float> denormal = x < Vec<float>(1.17549435e-38f);
  const Vec<float> normal = select(denormal, x * Vec<float>(8388608.0f), x);  // 2^23
  Vec<float> e = exponent(normal) - select(denormal, Vec<float>(23.0f), zero), m = mantissa(normal);
  const Mask<float> high = Vec<float>(1.41421356f) < m;
  e = e + select(high, one, zero);
  const Vec<float> f = select(high, m * Vec<float>(0.5f), m) - one;
  Vec<float> y = log_of_parts(f, e);
  y = select(x == Vec<float>(INFINITY), x, y);
  y = select(x == zero, Vec<float>(-INFINITY), y);
  return select(zero <= x, y, select(x == x, Vec<float>(NAN), x));
}

// e^2|x| = 2^n (1 + expm1), for |x| up to 10, where tanh is 1: n is so small that ln 2 needs no second part.
struct TanhParts {
  Vec<float> scale, expm1;
};
PYNN_INLINE TanhParts tanh_parts(Vec<float> size) {
  size = min(Vec<float>(10.0f), size);
  const Vec<float> n = round(size * Vec<float>(2 * 1.44269504f));
  return {exp2i(n), short_expm1_reduced(fma(n, Vec<float>(-0.693147181f), size + size))};
}

// x + x^3 P(x^2) near 0, where 1 - 2 / (e^2|x| + 1) would cancel.
PYNN_INLINE Vec<float> tanh(Vec<float> x) {
  const Vec<float> one(1.0f), two(2.0f), size = abs(x), square = x * x;
  const Vec<float> p = polynomial(square, {-0.3333328f, 0.13331442f, -0.053739715f, 0.020639088f, -0.005704987f});
  const TanhParts parts = tanh_parts(size);
  const Vec<float> large = one - two / (fma(parts.scale, parts.expm1, parts.scale) + one);
  return select(size < Vec<float>(0.625f), fma(square * x, p, x), copysign(large, x));
}

// e / (e + 2) with e = e^2|x| - 1, in two thirds of the time: for gates, which multiply it by a sigmoid.
PYNN_INLINE Vec<float> gate_tanh(Vec<float> x) {
  const TanhParts parts = tanh_parts(abs(x));
  const Vec<float> e = fma(parts.scale, parts.expm1, parts.scale - Vec<float>(1.0f));
  return copysign(e / (e + Vec<float>(2.0f)), x);
}

// e^x / (1 + e^x)
PYNN_INLINE Vec<float> sigmoid(Vec<float> x) {
  const Vec<float> one(1.0f);
  const Reduced parts = reduce(max(Vec<float>(-104.0f), min(Vec<float>(88.0f), x)));
  const Vec<float> e = times_exp2i(short_expm1_reduced(parts.r) + one, parts.n);
  return e / (one + e);
}

// sigmoid(x) and sigmoid(-x), which is 1 - sigmoid(x) without the cancellation
template <class T>
struct SigmoidPair {
  Vec<T> plus, minus;
};

template <class T>
PYNN_INLINE SigmoidPair<T> sigmoid_pair(Vec<T> x) {
  const Vec<T> one(T(1)), e = exp(Vec<T>::zero() - abs(x)), large = one / (one + e), small = e * large;
  const auto negative = x < Vec<T>::zero();
  return {select(negative, small, large), select(negative, large, small)};
}

// log(1 + x) for 0 <= x <= 1, where 1 + x lies in the two intervals that log reduces to: exponent 0 or 1, no division.
PYNN_INLINE Vec<float> log1p(Vec<float> x) {
  const Vec<float> one(1.0f);
  const Mask<float> high = Vec<float>(0.41421356f) < x;
  return log_of_parts(select(high, (x - one) * Vec<float>(0.5f), x), select(high, one, Vec<float>::zero()));
}

// The normal distribution function Phi(x), and e^(-x^2 / 2), which its density needs as well. The tail Phi(-|x|) is
// t P(t) e^(-x^2 / 2) with t = 1 / (1 + 0.39 |x| / sqrt 2): the form of Abramowitz and Stegun 7.1.26, fitted anew to
// 4e-9.
template <class T>
struct Normal {
  Vec<T> cdf, exp;
};

PYNN_INLINE Normal<float> normal(Vec<float> x) {
  const Vec<float> one(1.0f), e = exp(x * x * Vec<float>(-0.5f));
  const Vec<float> t = one / fma(abs(x), Vec<float>(0.27577164466275352f), one);
  const Vec<float> p =
      polynomial(t, {0.117662624f, 0.0456941133f, 0.324779934f, -0.317700429f, 0.443332361f, -0.113768605f});
  const Vec<float> tail = t * p * e;
  return {select(x < Vec<float>::zero(), tail, one - tail), e};
}

PYNN_INLINE Vec<double> exp(Vec<double> x) {
  return map_lanes(x, [](double v) { return ::exp(v); });
}
PYNN_INLINE Vec<double> log(Vec<double> x) {
  return map_lanes(x, [](double v) { return ::log(v); });
}
PYNN_INLINE Vec<double> log1p(Vec<double> x) {
  return map_lanes(x, [](double v) { return ::log1p(v); });
}
PYNN_INLINE Vec<double> tanh(Vec<double> x) {
  return map_lanes(x, [](double v) { return ::tanh(v); });
}
PYNN_INLINE Vec<double> gate_tanh(Vec<double> x) { return tanh(x); }
// e^-|x| never overflows: sigmoid = 1 / (1 + e^-x) for x >= 0, and e^x / (1 + e^x) below.
PYNN_INLINE Vec<double> sigmoid(Vec<double> x) {
  const Vec<double> one(1.0), e = exp(Vec<double>::zero() - abs(x));
  return select(x < Vec<double>::zero(), e, one) / (one + e);
}
// erfc keeps the digits of the lower tail.
PYNN_INLINE Normal<double> normal(Vec<double> x) {
  return {map_lanes(x, [](double v) { return 0.5 * ::erfc(-v * 0.70710678118654752440); }),
          map_lanes(x, [](double v) { return ::exp(-0.5 * v * v); })};
}

}  // namespace
}  // namespace pynn::PYNN_ISA
