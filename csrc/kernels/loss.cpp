#include "kernels/loss.h"

#include "kernels/narrow.h"
#include "kernels/table.h"
#include "simd/math.h"
#include "simd/sum.h"
#include "simd/transpose.h"

namespace pynn::PYNN_ISA {
namespace {

// NaN is passed over here: it comes back when the maximum is subtracted, as do infinite maxima.
template <class T>
PYNN_INLINE T row_max(const T* x, int64_t cols) {
  const T lowest = -static_cast<T>(INFINITY);
  Vec<T> largest(lowest);
  for_lanes<T>(cols,
               [&](int64_t j, auto lanes) { largest = max(first_or(load(x + j, lanes), lanes, lowest), largest); });
  return reduce_max(largest);
}

// e[cols] = exp(x - shift) unless e is null; returns its sum.
template <class T>
PYNN_INLINE T exp_row(T* e, const T* x, T shift, int64_t cols) {
  const double sum = sum_terms<T>(cols, [&](int64_t j, auto lanes) {
    const Vec<T> y = exp(load(x + j, lanes) - Vec<T>(shift));
    if (e != nullptr) store(e + j, y, lanes);
    return y;
  });
  return static_cast<T>(sum);
}

// For narrow rows: y = body(x, first row, rows) on the transpose of as many rows as a vector has lanes, in place. A row
// by itself would fill no vector, and reduce each over its lanes; and where it is read just after the row before it was
// written, by a masked store, it waits for that. A null y asks for no output.
template <class T, class Body>
PYNN_INLINE void for_turned(T* y, const T* x, int64_t rows, int64_t cols, Body body) {
  constexpr int64_t lanes = Vec<T>::lanes;
  T turned[kNarrow * lanes];
  for (int64_t r = 0; r < rows; r += lanes) {
    const int64_t count = rows - r < lanes ? rows - r : lanes;
    turn(turned, lanes, x + r * cols, cols, count, cols);
    body(turned, r, static_cast<int>(count));
    if (y != nullptr) turn(y + r * cols, cols, turned, lanes, cols, count);
  }
}

// e[cols, lanes] = exp(x - largest) unless e is null, with the maximum and the sum of each lane.
template <class T>
__attribute__((noinline)) void turned_exp(T* e, Vec<T>& largest, Vec<T>& sum, const T* x, int64_t cols) {
  constexpr int64_t lanes = Vec<T>::lanes;
  Vec<T> top(-static_cast<T>(INFINITY)), total = Vec<T>::zero();
  for (int64_t j = 0; j < cols; ++j) top = max(Vec<T>::load(x + j * lanes), top);
  for (int64_t j = 0; j < cols; ++j) {
    const Vec<T> y = exp(Vec<T>::load(x + j * lanes) - top);
    total = total + y;
    if (e != nullptr) y.store(e + j * lanes);
  }
  largest = top;
  sum = total;
}

template <class T>
void softmax(T* y, const T* x, int64_t rows, int64_t cols) {
  if (is_narrow<T>(cols)) {
    return for_turned(y, x, rows, cols, [=](T* turned, int64_t, int) {
      Vec<T> largest, sum;
      turned_exp(turned, largest, sum, turned, cols);
      const Vec<T> scale = Vec<T>(T(1)) / sum;
      for (int64_t j = 0; j < cols; ++j) {
        T* const at = turned + j * Vec<T>::lanes;
        (Vec<T>::load(at) * scale).store(at);
      }
    });
  }
  for (int64_t i = 0; i < rows; ++i, x += cols, y += cols) {
    const Vec<T> scale(T(1) / exp_row(y, x, row_max(x, cols), cols));
    for_lanes<T>(cols, [&](int64_t j, auto lanes) { store(y + j, load(y + j, lanes) * scale, lanes); });
  }
}

// dx = y (dy - sum(dy y))
template <class T>
void softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i, dx += cols, dy += cols, y += cols) {
    const double dot =
        sum_terms<T>(cols, [&](int64_t j, auto lanes) { return load(dy + j, lanes) * load(y + j, lanes); });
    const Vec<T> mean(static_cast<T>(dot));
    for_lanes<T>(
        cols, [&](int64_t j, auto lanes) { store(dx + j, load(y + j, lanes) * (load(dy + j, lanes) - mean), lanes); });
  }
}

// Rows whose maxima and sums are kept at a time, so that their logarithms fill vectors.
constexpr int kRows = 32;
constexpr int64_t kRowsElements = 4096;  // of a block of rows, which stays in the L1 cache

PYNN_INLINE int rows_of_block(int64_t rows, int64_t cols) {
  int64_t n = cols > 0 ? kRowsElements / cols : kRows;
  n = n < 1 ? 1 : n > kRows ? kRows : n;
  return static_cast<int>(n < rows ? n : rows);
}

template <class T>
PYNN_INLINE void log_in_place(T* x, int n) {
  for_lanes<T>(n, [&](int64_t i, auto lanes) { store(x + i, log(load(x + i, lanes)), lanes); });
}

template <class T>
void log_softmax(T* y, const T* x, int64_t rows, int64_t cols) {
  if (is_narrow<T>(cols)) {
    return for_turned(y, x, rows, cols, [=](T* turned, int64_t, int) {
      Vec<T> largest, sum;
      turned_exp<T>(nullptr, largest, sum, turned, cols);
      const Vec<T> log_sum = log(sum);
      for (int64_t j = 0; j < cols; ++j) {
        T* const at = turned + j * Vec<T>::lanes;
        ((Vec<T>::load(at) - largest) - log_sum).store(at);
      }
    });
  }
  T largest[kRows], log_sum[kRows];
  for (int64_t begin = 0; begin < rows;) {
    const int count = rows_of_block(rows - begin, cols);
    for (int r = 0; r < count; ++r) {
      largest[r] = row_max(x + r * cols, cols);
      log_sum[r] = exp_row<T>(nullptr, x + r * cols, largest[r], cols);
    }
    log_in_place(log_sum, count);
    for (int r = 0; r < count; ++r, x += cols, y += cols) {
      // Two steps: largest + log_sum would round away the sum of rows with large entries.
      for_lanes<T>(cols, [&](int64_t j, auto lanes) {
        store(y + j, (load(x + j, lanes) - Vec<T>(largest[r])) - Vec<T>(log_sum[r]), lanes);
      });
    }
    begin += count;
  }
}

// dx = dy - exp(y) sum(dy)
template <class T>
void log_softmax_backward(T* dx, const T* dy, const T* y, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i, dx += cols, dy += cols, y += cols) {
    const Vec<T> sum(static_cast<T>(sum_terms<T>(cols, [&](int64_t j, auto lanes) { return load(dy + j, lanes); })));
    for_lanes<T>(cols, [&](int64_t j, auto lanes) {
      store(dx + j, load(dy + j, lanes) - exp(load(y + j, lanes)) * sum, lanes);
    });
  }
}

// The same as cross_entropy, of narrow rows.
template <class T>
double turned_cross_entropy(T* loss, T* dlogits, const T* logits, const int64_t* target, CrossEntropyTerms<T> terms,
                            int64_t rows, int64_t cols) {
  constexpr int lanes = Vec<T>::lanes;
  T ones[kNarrow];
  for (T& one : ones) one = T(1);
  const T* weight = terms.weight != nullptr ? terms.weight : ones;
  double total = 0;
  for_turned(dlogits, logits, rows, cols, [&](T* turned, int64_t first, int count) {
    T labels[lanes] = {}, confidences[lanes] = {}, losses[lanes], e[kNarrow * lanes];
    for (int r = 0; r < count; ++r) {
      const int64_t label = target[first + r];
      const bool ignored = label == terms.ignore_index;
      labels[r] = ignored ? T(-1) : static_cast<T>(label);
      confidences[r] = ignored ? T(0) : terms.confidence * weight[label];
    }
    const Vec<T> label = Vec<T>::load(labels), confidence = Vec<T>::load(confidences), none = Vec<T>::zero();
    Vec<T> largest, sum, at_label = none, shifted = none;
    turned_exp(dlogits != nullptr ? e : nullptr, largest, sum, turned, cols);
    const Vec<T> log_sum = log(sum);
    for (int64_t j = 0; j < cols; ++j) {
      const Vec<T> x = Vec<T>::load(turned + j * lanes) - largest;
      at_label = select(label == Vec<T>(static_cast<T>(j)), x, at_label);
      shifted = fma(Vec<T>(weight[j]), x, shifted);
    }
    Vec<T> value = confidence * (log_sum - at_label);
    if (terms.uniform != T(0)) value = fma(Vec<T>(terms.uniform), Vec<T>(terms.weight_sum) * log_sum - shifted, value);
    const Mask<T> used = none <= label;
    select(used, value, none).store(losses);
    for (int r = 0; r < count; ++r) total += static_cast<double>(losses[r]);
    if (loss != nullptr) Vec<T>::load(losses).store(loss + first, count);
    if (dlogits == nullptr) return;
    // d loss / d logits = all softmax - (confidence onehot + uniform weight), of which `all` is the sum
    const Vec<T> scale(terms.scale), even(-terms.scale * terms.uniform), of_label = scale * confidence;
    Vec<T> factor = scale / sum;
    if (terms.weight != nullptr) factor = factor * (confidence + Vec<T>(terms.uniform * terms.weight_sum));
    for (int64_t j = 0; j < cols; ++j) {
      const Vec<T> d = fma(Vec<T>::load(e + j * lanes), factor, Vec<T>(weight[j]) * even);
      const Mask<T> here = label == Vec<T>(static_cast<T>(j));
      select(used, d - select(here, of_label, none), none).store(turned + j * lanes);
    }
  });
  return total;
}

template <class T>
double cross_entropy(T* loss, T* dlogits, const T* logits, const int64_t* target, CrossEntropyTerms<T> terms,
                     int64_t rows, int64_t cols) {
  if (is_narrow<T>(cols)) return turned_cross_entropy(loss, dlogits, logits, target, terms, rows, cols);
  T largest[kRows], sum[kRows], log_sum[kRows];
  double total = 0;
  for (int64_t begin = 0; begin < rows;) {
    const int count = rows_of_block(rows - begin, cols);
    for (int r = 0; r < count; ++r) {
      const bool ignored = target[r] == terms.ignore_index;
      largest[r] = ignored ? T(0) : row_max(logits + r * cols, cols);
      T* e = dlogits != nullptr ? dlogits + r * cols : nullptr;
      sum[r] = ignored ? T(1) : exp_row(e, logits + r * cols, largest[r], cols);
      log_sum[r] = sum[r];
    }
    log_in_place(log_sum, count);
    for (int r = 0; r < count; ++r, logits += cols) {
      const bool ignored = target[r] == terms.ignore_index;
      const T* weight = terms.weight;
      const T confidence = terms.confidence * (weight != nullptr && !ignored ? weight[target[r]] : T(1));
      T row_loss = 0;
      if (!ignored) {
        row_loss = confidence * (log_sum[r] - (logits[target[r]] - largest[r]));
        if (terms.uniform != T(0)) {
          const double shifted = sum_terms<T>(cols, [&](int64_t j, auto lanes) {
            const Vec<T> x = load(logits + j, lanes) - Vec<T>(largest[r]);
            return weight != nullptr ? load(weight + j, lanes) * x : x;
          });
          row_loss += terms.uniform * (terms.weight_sum * log_sum[r] - static_cast<T>(shifted));
        }
      }
      total += static_cast<double>(row_loss);
      if (loss != nullptr) loss[r] = row_loss;
      if (dlogits == nullptr) continue;
      // d loss / d logits = total softmax - (confidence onehot + uniform weight), of which total is the sum
      const T total_weight = weight != nullptr ? confidence + terms.uniform * terms.weight_sum : T(1);
      const Vec<T> factor(terms.scale * total_weight / sum[r]), offset(-terms.scale * terms.uniform);
      for_lanes<T>(cols, [&](int64_t j, auto lanes) {
        const Vec<T> from = weight != nullptr ? load(weight + j, lanes) * offset : offset;
        store(dlogits + j, ignored ? Vec<T>::zero() : fma(load(dlogits + j, lanes), factor, from), lanes);
      });
      if (!ignored) dlogits[target[r]] -= terms.scale * confidence;
      dlogits += cols;
    }
    target += count;
    if (loss != nullptr) loss += count;
    begin += count;
  }
  return total;
}

// Elementwise losses: apply(&loss, &dx, x, target).

struct Mse {
  template <class T>
  static PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) {
    const Vec<T> difference = x - target;
    loss = difference * difference;
    dx = difference + difference;
  }
};

// loss = max(x, 0) - x target + log(1 + e) = |x| off + log(1 + e) with e = exp(-|x|) and off = x < 0 ? target : 1 -
// target, so that an infinite x meets no other infinity, and no factor of 0. dx = sigmoid(x) - target.
struct BceWithLogits {
  template <class T>
  static PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) {
    const Vec<T> zero = Vec<T>::zero(), one(T(1)), size = abs(x), e = exp(zero - size), u = one + e;
    const Mask<T> negative = x < zero;
    const Vec<T> off = select(negative, target, one - target);
    loss = select(off == zero, zero, size * off) + log1p(e);
    dx = select(negative, e, one) / u - target;
  }
};

struct Hinge {
  template <class T>
  static PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) {
    const Vec<T> zero = Vec<T>::zero(), margin = Vec<T>(T(1)) - target * x;
    loss = select(margin <= zero, zero, margin);
    dx = select(margin <= zero, zero, zero - target);
  }
};

// loss = target (log(target) - x), 0 for target 0; dx = -target. With LogTarget, target stands for its logarithm.
template <bool LogTarget>
struct KlDiv {
  template <class T>
  static PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) {
    const Vec<T> zero = Vec<T>::zero();
    if constexpr (LogTarget) {
      const Vec<T> p = exp(target);
      loss = p * (target - x);
      dx = zero - p;
    } else {
      loss = select(target == zero, zero, target * (log(target) - x));
      dx = zero - target;
    }
  }
};

struct L1 {
  template <class T>
  static PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) {
    const Vec<T> zero = Vec<T>::zero(), one(T(1)), difference = x - target;
    loss = abs(difference);
    dx = select(zero < difference, one, select(difference < zero, zero - one, difference));  // 0 at 0, NaN at NaN
  }
};

// loss = d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2: with c = min(d, beta), c (d - c / 2) / beta
template <class T>
struct SmoothL1 {
  T beta;

  PYNN_INLINE void apply(Vec<T>& loss, Vec<T>& dx, Vec<T> x, Vec<T> target) const {
    const Vec<T> one(T(1)), minus_one(T(-1)), half(T(0.5)), width(beta), difference = x - target;
    const Vec<T> distance = abs(difference), c = min(width, distance);
    loss = c * (distance - half * c) / width;
    dx = max(minus_one, min(one, difference / width));
  }
};

template <class T, class Loss>
PYNN_INLINE double sum_losses(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n, Loss terms) {
  return sum_terms<T>(n, [&](int64_t i, auto lanes) {
    Vec<T> value, gradient;
    terms.apply(value, gradient, load(x + i, lanes), load(target + i, lanes));
    if (loss != nullptr) store(loss + i, value, lanes);
    if (dx != nullptr) store(dx + i, gradient * Vec<T>(scale), lanes);
    return value;
  });
}

template <class Loss, class T>
double elementwise_loss(T* loss, T* dx, const T* x, const T* target, T scale, int64_t n) {
  return sum_losses(loss, dx, x, target, scale, n, Loss{});
}

template <class T>
double smooth_l1(T* loss, T* dx, const T* x, const T* target, T beta, T scale, int64_t n) {
  if (beta == T(0)) return sum_losses(loss, dx, x, target, scale, n, L1{});
  return sum_losses(loss, dx, x, target, scale, n, SmoothL1<T>{beta});
}

template <class T>
LossKernels<T> table() {
  return {softmax<T>,
          softmax_backward<T>,
          log_softmax<T>,
          log_softmax_backward<T>,
          cross_entropy<T>,
          elementwise_loss<Mse, T>,
          elementwise_loss<BceWithLogits, T>,
          elementwise_loss<Hinge, T>,
          elementwise_loss<L1, T>,
          elementwise_loss<KlDiv<false>, T>,
          elementwise_loss<KlDiv<true>, T>,
          smooth_l1<T>};
}

}  // namespace

void register_loss(KernelSet& set) {
  set.f32.loss = table<float>();
  set.f64.loss = table<double>();
}

}  // namespace pynn::PYNN_ISA
