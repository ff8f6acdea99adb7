#include "kernels/norm.h"

#include <math.h>

#include "kernels/table.h"
#include "simd/sum.h"

namespace pynn::PYNN_ISA {
namespace {

// The parameter of the elements from column j on: one number for a channel, one for each column otherwise.
template <bool Columns, class T, class Lanes>
PYNN_INLINE Vec<T> parameter(const T* p, int64_t j, Lanes lanes) {
  if constexpr (Columns) {
    return load(p + j, lanes);
  } else {
    return Vec<T>(*p);
  }
}

template <class T>
void channel_moments(double* sum, double* product, const T* x, const T* shift, int64_t stride, int64_t n, int64_t l) {
  const Vec<T> origin(*shift);
  const SumPair sums = sum_pair<T>(stride, n, l, [&](int64_t at, auto lanes, Vec<T>& a, Vec<T>& b) {
    b = load(x + at, lanes) - origin;
    a = first_or(b, lanes, T(0));
  });
  *sum = sums.a;
  *product = sums.b;
}

template <class T>
void channel_backward_sums(double* sum, double* product, const T* dy, const T* x, const T* mean, int64_t stride,
                           int64_t n, int64_t l) {
  const Vec<T> origin(*mean);
  const SumPair sums = sum_pair<T>(stride, n, l, [&](int64_t at, auto lanes, Vec<T>& a, Vec<T>& b) {
    a = load(dy + at, lanes);
    b = load(x + at, lanes) - origin;
  });
  *sum = sums.a;
  *product = sums.b;
}

// sum[j], product[j] = the sums over rows of a and a * b, where terms(at, j, lanes, a, b) sets both.
template <int Width, class T, class Lanes, class Terms>
PYNN_INLINE void vectors_sums(double* sum, double* product, int64_t stride, int64_t n, int64_t j, int64_t columns,
                              Lanes lanes, Terms terms) {
  constexpr int most = Vec<T>::lanes;
  for (int64_t q = 0; q < columns; ++q) sum[j + q] = product[j + q] = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = n - begin < kSumBlock ? n : begin + kSumBlock;
    Vec<T> sum_a[Width], sum_b[Width];
#pragma GCC unroll 4
    for (int w = 0; w < Width; ++w) sum_a[w] = sum_b[w] = Vec<T>::zero();
    for (int64_t i = begin; i < end; ++i) {
#pragma GCC unroll 4
      for (int w = 0; w < Width; ++w) {
        Vec<T> a, b;
        terms(i * stride + j + w * most, j + w * most, lanes, a, b);
        sum_a[w] = sum_a[w] + a;
        sum_b[w] = fma(a, b, sum_b[w]);
      }
    }
    T lane_a[Width * most], lane_b[Width * most];
#pragma GCC unroll 4
    for (int w = 0; w < Width; ++w) {
      sum_a[w].store(lane_a + w * most);
      sum_b[w].store(lane_b + w * most);
    }
    for (int64_t q = 0; q < columns; ++q) {
      sum[j + q] += static_cast<double>(lane_a[q]);
      product[j + q] += static_cast<double>(lane_b[q]);
    }
  }
}
template <class T, class Terms>
PYNN_INLINE void column_sums(double* sum, double* product, int64_t stride, int64_t n, int64_t l, Terms terms) {
  constexpr int64_t lanes = Vec<T>::lanes, wide = 4 * lanes;  // whole cache lines, side by side
  int64_t j = 0;
  for (; j + wide <= l; j += wide) vectors_sums<4, T>(sum, product, stride, n, j, wide, AllLanes{}, terms);
  for (; j + lanes <= l; j += lanes) vectors_sums<1, T>(sum, product, stride, n, j, lanes, AllLanes{}, terms);
  if (j < l) vectors_sums<1, T>(sum, product, stride, n, j, l - j, static_cast<int>(l - j), terms);
}

template <class T>
void columns_moments(double* sum, double* product, const T* x, const T* shift, int64_t stride, int64_t n, int64_t l) {
  column_sums<T>(sum, product, stride, n, l, [&](int64_t at, int64_t j, auto lanes, Vec<T>& a, Vec<T>& b) {
    a = b = load(x + at, lanes) - load(shift + j, lanes);
  });
}

template <class T>
void columns_backward_sums(double* sum, double* product, const T* dy, const T* x, const T* mean, int64_t stride,
                           int64_t n, int64_t l) {
  column_sums<T>(sum, product, stride, n, l, [&](int64_t at, int64_t j, auto lanes, Vec<T>& a, Vec<T>& b) {
    a = load(dy + at, lanes);
    b = load(x + at, lanes) - load(mean + j, lanes);
  });
}

template <bool Columns, class T>
void apply(T* y, const T* x, const T* mean, const T* scale, const T* bias, int64_t stride, int64_t n, int64_t l) {
  for (int64_t i = 0; i < n; ++i, x += stride, y += stride) {
    for_lanes<T>(l, [&](int64_t j, auto lanes) {
      const Vec<T> centred = load(x + j, lanes) - parameter<Columns>(mean, j, lanes);
      store(y + j, fma(centred, parameter<Columns>(scale, j, lanes), parameter<Columns>(bias, j, lanes)), lanes);
    });
  }
}

template <bool Columns, class T>
void backward(T* dx, const T* dy, const T* x, const T* mean, const T* scale, const T* slope, const T* bias,
              int64_t stride, int64_t n, int64_t l) {
  for (int64_t i = 0; i < n; ++i, dx += stride, dy += stride, x += stride) {
    for_lanes<T>(l, [&](int64_t j, auto lanes) {
      const Vec<T> centred = load(x + j, lanes) - parameter<Columns>(mean, j, lanes);
      const Vec<T> rest = fma(centred, parameter<Columns>(slope, j, lanes), parameter<Columns>(bias, j, lanes));
      store(dx + j, fma(load(dy + j, lanes), parameter<Columns>(scale, j, lanes), rest), lanes);
    });
  }
}

// Two passes over a row in cache: the mean, then the variance around it, corrected by what the mean's rounding left.
template <class T>
void layer_norm(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, double eps, int64_t rows,
                int64_t cols) {
  const double size = static_cast<double>(cols);
  for (int64_t i = 0; i < rows; ++i, x += cols, y += cols) {
    const double rough = sum_terms<T>(cols, [&](int64_t j, auto lanes) { return load(x + j, lanes); }) / size;
    const T centre = static_cast<T>(rough);
    double sum, product;
    channel_moments(&sum, &product, x, &centre, cols, 1, cols);
    const double rest = sum / size, var = product / size - rest * rest;
    const double inverse = 1 / ::sqrt((var < 0 ? 0 : var) + eps);
    mean[i] = static_cast<T>(static_cast<double>(centre) + rest);
    rstd[i] = static_cast<T>(inverse);
    const Vec<T> origin(centre), scale(static_cast<T>(inverse)), offset(static_cast<T>(-rest * inverse));
    for_lanes<T>(cols, [&](int64_t j, auto lanes) {
      Vec<T> v = fma(load(x + j, lanes) - origin, scale, offset);
      if (weight != nullptr) v = fma(v, load(weight + j, lanes), load(bias + j, lanes));
      store(y + j, v, lanes);
    });
  }
}

// dx = rstd (g - mean(g) - xhat mean(g xhat)) with g = dy weight, xhat = (x - mean) rstd
template <class T>
void layer_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* weight, const T* mean,
                         const T* rstd, int64_t rows, int64_t cols) {
  const double size = static_cast<double>(cols);
  for (int64_t i = 0; i < rows; ++i, dx += cols, dy += cols, x += cols) {
    const Vec<T> origin(mean[i]), scale(rstd[i]);
    const auto weighted = [&](int64_t j, auto lanes) {
      const Vec<T> g = load(dy + j, lanes);
      return weight != nullptr ? g * load(weight + j, lanes) : g;
    };
    const SumPair sums = sum_pair<T>(cols, 1, cols, [&](int64_t j, auto lanes, Vec<T>& a, Vec<T>& b) {
      a = weighted(j, lanes);
      b = (load(x + j, lanes) - origin) * scale;
    });
    const Vec<T> minus_g(static_cast<T>(-sums.a / size)), minus_g_xhat(static_cast<T>(-sums.b / size));
    for_lanes<T>(cols, [&](int64_t j, auto lanes) {
      const Vec<T> xhat = (load(x + j, lanes) - origin) * scale, d = load(dy + j, lanes);
      store(dx + j, scale * (weighted(j, lanes) + fma(xhat, minus_g_xhat, minus_g)), lanes);
      store(dweight + j, fma(d, xhat, load(dweight + j, lanes)), lanes);
      store(dbias + j, load(dbias + j, lanes) + d, lanes);
    });
  }
}

template <class T>
NormKernels<T> table() {
  return {channel_moments<T>, columns_moments<T>,    channel_backward_sums<T>, columns_backward_sums<T>,
          apply<false, T>,    apply<true, T>,        backward<false, T>,       backward<true, T>,
          layer_norm<T>,      layer_norm_backward<T>};
}

}  // namespace

void register_norm(KernelSet& set) {
  set.f32.norm = table<float>();
  set.f64.norm = table<double>();
}

}  // namespace pynn::PYNN_ISA
