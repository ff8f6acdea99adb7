#include "kernels/attention.h"

#include <math.h>

#include "kernels/table.h"
#include "simd/math.h"
#include "simd/pairs.h"
#include "simd/sum.h"

namespace pynn::PYNN_ISA {
namespace {

constexpr double kLog2E = 1.4426950408889634;

template <class T>
constexpr T infinity = static_cast<T>(__builtin_inff());

// e^x for x <= 0, where simd/math.h's exp would take half as long again; below 2^-127 it is 0. 2^f with |f| <= 1/2 is a
// minimax polynomial, 1 at 0, so that the largest score of a row weighs exactly 1. A score and the sum it is held
// against may both be large: their difference is rounded once, before it is taken to base 2.
PYNN_INLINE Vec<float> exp_of_negative(Vec<float> x) {
  x = max(Vec<float>(-127.0f), x * Vec<float>(static_cast<float>(kLog2E)));
  const Vec<float> n = round(x), f = x - n;
  const Vec<float> p =
      polynomial(f, {1.0f, 0.693147182f, 0.240226477f, 0.0555033237f, 0.00961843692f, 0.0013398875f, 0.00015353362f});
  return p * exp2i(n);
}
PYNN_INLINE Vec<double> exp_of_negative(Vec<double> x) { return exp(x); }

template <class T>
void bias_of_bool(T* PYNN_RESTRICT bias, int64_t ldbias, const uint8_t* PYNN_RESTRICT keep, int64_t ldkeep,
                  int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < cols; ++j) bias[r * ldbias + j] = keep[r * ldkeep + j] != 0 ? T(0) : -infinity<T>;
  }
}

template <class T>
PYNN_INLINE int64_t seen(AttentionScores<T> scores, int64_t row, int64_t cols) {
  const int64_t n = scores.visible >= cols ? cols : scores.visible + row;
  return n < 0 ? 0 : n < cols ? n : cols;
}

// The scores minus `base`.
template <bool Biased, class T, class Lanes>
PYNN_INLINE Vec<T> relative_score(const T* s, const T* bias, Vec<T> scale, Vec<T> base, int64_t j, Lanes lanes) {
  if constexpr (Biased) return fma(load(s + j, lanes), scale, load(bias + j, lanes)) - base;
  return fma(load(s + j, lanes), scale, Vec<T>::zero() - base);
}

// As many rows as a vector has lanes: what their maxima and sums take beside the elements is shared.
template <class T, bool Biased>
PYNN_INLINE void softmax_rows(T* s, int64_t lds, T* max_of_rows, T* sum_of_rows, T* y, int64_t ldy,
                              AttentionScores<T> scores, int64_t first, int rows, int64_t cols, int64_t features) {
  constexpr int lanes = Vec<T>::lanes;
  const Vec<T> scale(scores.scale), lowest(-infinity<T>);
  alignas(64) T parts[lanes * lanes], turned[lanes * lanes], base_of[lanes], factor_of[lanes];
  const auto bias_of = [&](int r) { return Biased ? scores.bias + r * scores.ldbias : nullptr; };
  const auto reduced = [&](Vec<T> start, auto combine) {  // lane r of the result is of row r
    transpose_block(turned, lanes, parts, lanes);
    for (int i = 0; i < lanes; ++i) start = combine(start, Vec<T>::load(turned + i * lanes));
    return start;
  };
  for (int r = 0; r < lanes; ++r) {
    Vec<T> largest = lowest;
    if (r < rows) {
      for_lanes<T>(seen(scores, first + r, cols), [&](int64_t j, auto n) {
        const Vec<T> z = relative_score<Biased>(s + r * lds, bias_of(r), scale, Vec<T>::zero(), j, n);
        largest = max(largest, first_or(z, n, -infinity<T>));
      });
    }
    largest.store(parts + r * lanes);
  }
  const Vec<T> before = Vec<T>::load(max_of_rows, rows);
  const Vec<T> after = reduced(before, [](Vec<T> a, Vec<T> b) { return max(b, a); });
  // A row that has seen no key has no maximum; of any other base its scores of -infinity become 0.
  const Vec<T> base = select(after == lowest, Vec<T>::zero(), after), factor = exp_of_negative(before - base);
  base.store(base_of);
  factor.store(factor_of);
  for (int r = 0; r < rows; ++r) {
    T* row = s + r * lds;
    const int64_t visible = seen(scores, first + r, cols);
    const Vec<T> base_of_row(base_of[r]);
    Vec<T> sum = Vec<T>::zero();
    for_lanes<T>(visible, [&](int64_t j, auto n) {
      const Vec<T> p = exp_of_negative(relative_score<Biased>(row, bias_of(r), scale, base_of_row, j, n));
      sum = sum + first_or(p, n, T(0));
      store(row + j, p, n);
    });
    for_lanes<T>(cols - visible, [&](int64_t j, auto n) { store(row + visible + j, Vec<T>::zero(), n); });
    sum.store(parts + r * lanes);
    if (y != nullptr && factor_of[r] != T(1)) {
      const Vec<T> rescale(factor_of[r]);
      for_lanes<T>(features, [&](int64_t j, auto n) { store(y + r * ldy + j, load(y + r * ldy + j, n) * rescale, n); });
    }
  }
  const Vec<T> old = Vec<T>::load(sum_of_rows, rows) * factor;
  after.store(max_of_rows, rows);
  reduced(old, [](Vec<T> a, Vec<T> b) { return a + b; }).store(sum_of_rows, rows);
}

// One pass over the keys: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
template <class T>
void softmax_step(T* s, int64_t lds, T* max, T* sum, T* y, int64_t ldy, AttentionScores<T> scores, int64_t rows,
                  int64_t cols, int64_t features) {
  constexpr int64_t lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < rows; r += lanes) {
    const int here = static_cast<int>(rows - r < lanes ? rows - r : lanes);
    T* y_row = y == nullptr ? nullptr : y + r * ldy;
    AttentionScores<T> part = scores;
    if (part.bias != nullptr) {
      part.bias += r * part.ldbias;
      softmax_rows<T, true>(s + r * lds, lds, max + r, sum + r, y_row, ldy, part, r, here, cols, features);
    } else {
      softmax_rows<T, false>(s + r * lds, lds, max + r, sum + r, y_row, ldy, part, r, here, cols, features);
    }
  }
}

template <class T>
void softmax_finish(T* y, int64_t ldy, T* lse, const T* max, const T* sum, int64_t rows, int64_t features) {
  for (int64_t r = 0; r < rows; ++r) {
    const Vec<T> inverse(sum[r] == T(0) ? T(0) : T(1) / sum[r]);
    T* row = y + r * ldy;
    for_lanes<T>(features, [&](int64_t j, auto lanes) { store(row + j, load(row + j, lanes) * inverse, lanes); });
  }
  for_lanes<T>(rows, [&](int64_t r, auto lanes) {
    const Vec<T> total = load(sum + r, lanes);
    const Vec<T> value = load(max + r, lanes) + log(total);
    store(lse + r, select(total == Vec<T>::zero(), Vec<T>(infinity<T>), value), lanes);
  });
}

template <class T, bool Biased>
PYNN_INLINE void softmax_backward_row(T* s, T* dp, T lse, T delta, AttentionScores<T> scores, const T* bias, T factor,
                                      int64_t n, int64_t cols) {
  const Vec<T> scale(scores.scale), base(lse), shift(delta), slope(factor);
  for_lanes<T>(n, [&](int64_t j, auto lanes) {
    const Vec<T> p = exp_of_negative(relative_score<Biased>(s, bias, scale, base, j, lanes));
    store(s + j, p, lanes);
    store(dp + j, p * slope * (load(dp + j, lanes) - shift), lanes);
  });
  for_lanes<T>(cols - n, [&](int64_t j, auto lanes) {
    store(s + n + j, Vec<T>::zero(), lanes);
    store(dp + n + j, Vec<T>::zero(), lanes);
  });
}

template <class T>
void softmax_backward(T* s, T* dp, int64_t lds, const T* lse, const T* delta, AttentionScores<T> scores, T factor,
                      int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = seen(scores, r, cols), at = r * lds;
    if (scores.bias != nullptr) {
      const T* bias = scores.bias + r * scores.ldbias;
      softmax_backward_row<T, true>(s + at, dp + at, lse[r], delta[r], scores, bias, factor, n, cols);
    } else {
      softmax_backward_row<T, false>(s + at, dp + at, lse[r], delta[r], scores, nullptr, factor, n, cols);
    }
  }
}

template <class T>
void row_dots(T* dots, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> sum = Vec<T>::zero();
    for_lanes<T>(cols, [&](int64_t j, auto lanes) {
      sum = fma(load(a + r * lda + j, lanes), load(b + r * ldb + j, lanes), sum);
    });
    dots[r] = reduce_add(sum);
  }
}

template <class T>
void rotate_pairs(T* y, const T* x, const T* cos, const T* sin, int64_t pairs) {
  for_lanes<T>(pairs, [&](int64_t i, auto lanes) {
    const Pairs<T> p(x + 2 * i, lanes);
    const Vec<T> c = load(cos + i, lanes), s = load(sin + i, lanes);
    Pairs<T>(p.left * c - p.right * s, p.right * c + p.left * s).store(y + 2 * i, lanes);
  });
}

template <class T>
AttentionKernels<T> table() {
  return {bias_of_bool<T>, softmax_step<T>, softmax_finish<T>, softmax_backward<T>, row_dots<T>, rotate_pairs<T>};
}

}  // namespace

void register_attention(KernelSet& set) {
  set.f32.attention = table<float>();
  set.f64.attention = table<double>();
}

}  // namespace pynn::PYNN_ISA
