#include "harness.h"
#include "ops/attention.h"
#include "reference/attention.h"

using namespace pynn;
using namespace pynn::test;

namespace {

// Heads that lie one after the other.
template <class T>
ops::Heads<T> heads_of(T* data, int64_t heads, int64_t rows, int64_t features) {
  return {data, heads * rows * features, rows * features, features};
}

template <class T>
void check_heads(int64_t heads, int64_t queries, int64_t keys, int64_t features, bool causal, bool masked, double p) {
  const int64_t width = features + 3;  // of values
  const double scale = 0.5;
  const Guarded<T> query = random_array<T>(heads * queries * features), key = random_array<T>(heads * keys * features),
                   value = random_array<T>(heads * keys * width), dy = random_array<T>(heads * queries * width);
  const Guarded<T> mask = random_array<T>(masked ? queries * keys : 0);
  Guarded<T> y(dy.size()), lse(heads * queries), dquery(query.size()), dkey(key.size()), dvalue(value.size());
  Guarded<double> want_y(y.size()), want_lse(lse.size()), want_dquery(query.size()), want_dkey(key.size()),
      want_dvalue(value.size());
  const uint64_t seed = generator()();

  ops::AttentionArguments<T> a{};
  a.query = heads_of(query.data(), heads, queries, features);
  a.key = heads_of(key.data(), heads, keys, features);
  a.value = heads_of(value.data(), heads, keys, width);
  if (masked) a.mask.add = mask.data(), a.mask.row_stride = keys;
  const int64_t past = causal ? int64_t(generator()() % uint64_t(keys)) : 0;
  a.past = past;
  a.causal = causal, a.scale = scale, a.batch = 1, a.heads = heads, a.queries = queries, a.keys = keys;
  a.features = features, a.value_features = width, a.dropout = p, a.seed = seed, a.offset = 7;
  const T *const_y = y.data(), *const_dy = dy.data();
  ops::attention(heads_of(y.data(), heads, queries, width), lse.data(), a);
  ops::attention_backward(heads_of(dquery.data(), heads, queries, features),
                          heads_of(dkey.data(), heads, keys, features), heads_of(dvalue.data(), heads, keys, width),
                          heads_of(const_dy, heads, queries, width), heads_of(const_y, heads, queries, width),
                          lse.data(), a);

  for (int64_t h = 0; h < heads; ++h) {
    const uint64_t offset = 7 + uint64_t(h * queries * ((keys + 3) / 4));
    const reference::AttentionSizes s{queries, keys, features, width, scale, causal, past, p, seed, offset};
    const T* m = masked ? mask.data() : nullptr;
    const T *q = query.data() + h * queries * features, *k = key.data() + h * keys * features,
            *v = value.data() + h * keys * width;
    reference::attention(want_y.data() + h * queries * width, want_lse.data() + h * queries, q, k, v, m, s);
    reference::attention_backward(want_dquery.data() + h * queries * features, want_dkey.data() + h * keys * features,
                                  want_dvalue.data() + h * keys * width, dy.data() + h * queries * width, q, k, v, m,
                                  s);
  }
  // Scores are at most features / 2 + 1, and their error one of the weights, which sum to 1, or 1 / (1 - p).
  const double score = double(features) / 2 + 1, kept = p < 1 ? 1 / (1 - p) : 1;
  const double y_error = rounding<T>(double(features) + score + 8, kept * score);
  check_close(y, want_y, y_error, "y");
  check_close(lse, want_lse, rounding<T>(double(features) + 4, score + std::log(double(keys))), "lse");
  const double d_error = y_error * kept * double(width) * scale;
  check_close(dquery, want_dquery, 2 * d_error, "dquery");
  check_close(dkey, want_dkey, 2 * d_error * double(queries), "dkey");
  check_close(dvalue, want_dvalue, y_error * double(queries), "dvalue");
}

}  // namespace

TEST_CASE_TEMPLATE("attention and its backward equal the naive ones", T, float, double) {
  for (const int64_t queries : {1, 7, 15, 33, 64, 257}) {
    for (const int64_t keys : {1, 9, 16, 65, 130, 300}) {
      const int64_t features = 1 + int64_t(generator()() % 40), heads = 1 + int64_t(generator()() % 3);
      CAPTURE(queries);
      CAPTURE(keys);
      CAPTURE(features);
      for (const bool causal : {false, true}) {
        check_heads<T>(heads, queries, keys, features, causal, false, 0);
        check_heads<T>(heads, queries, keys, features, causal, true, 0.3);
      }
    }
  }
}

TEST_CASE_TEMPLATE("the kernels' exponential is exact at 0 and vanishes far below", T, float, double) {
  const AttentionKernels<T>& kernel = kernels<T>().attention;
  const T inf = std::numeric_limits<T>::infinity();
  Guarded<T> s(4), max(1, -inf), sum(1), y(1, T(3));
  s[0] = 5, s[1] = 5 - 80, s[2] = -inf, s[3] = 5 - T(0.69314718055994531);
  kernel.softmax_step(s.data(), 4, max.data(), sum.data(), nullptr, 0, {T(1), nullptr, 0, 4}, 1, 4, 1);
  CHECK(s[0] == 1);
  CHECK(s[1] == doctest::Approx(std::exp(-80.0)).epsilon(1e-6));
  CHECK(s[2] == 0);
  CHECK(s[3] == doctest::Approx(0.5).epsilon(1e-6));
  CHECK(sum[0] == doctest::Approx(1.5).epsilon(1e-6));
  s[0] = s[1] = s[2] = s[3] = 5 + T(0.69314718055994531);  // a new maximum: what was summed before counts half
  kernel.softmax_step(s.data(), 4, max.data(), sum.data(), y.data(), 1, {T(1), nullptr, 0, 1}, 1, 4, 1);
  CHECK(max[0] == 5 + T(0.69314718055994531));
  CHECK(sum[0] == doctest::Approx(1.75).epsilon(1e-6));
  CHECK(y[0] == doctest::Approx(1.5).epsilon(1e-6));
  CHECK(s[1] == 0);  // not seen
}

TEST_CASE_TEMPLATE("rotate_pairs equals the naive one, and its inverse takes it back", T, float, double) {
  for (const int64_t sequences : {1, 3}) {
    for (const int64_t rows : {1, 5, 260}) {
      for (const int64_t pairs : {1, 3, 8, 16, 17, 33, 64}) {
        const int64_t n = sequences * rows * 2 * pairs;
        const Guarded<T> x = random_array<T>(n), angle = random_array<T>(rows * pairs, -9, 9);
        Guarded<T> y(n), back(n), cos(angle.size()), sin(angle.size()), minus(angle.size());
        for (int64_t i = 0; i < angle.size(); ++i) {
          cos[i] = std::cos(angle[i]);
          sin[i] = std::sin(angle[i]);
          minus[i] = -sin[i];
        }
        Guarded<double> want(n), same(n);
        for (int64_t s = 0; s < sequences; ++s) {
          const int64_t at = s * rows * 2 * pairs;
          reference::rotate_pairs(want.data() + at, x.data() + at, cos.data(), sin.data(), rows, pairs);
        }
        for (int64_t i = 0; i < n; ++i) same[i] = double(x[i]);
        ops::rotate_pairs(y.data(), x.data(), cos.data(), sin.data(), sequences, rows, pairs);
        check_close(y, want, rounding<T>(2, 1), "rotate_pairs");
        ops::rotate_pairs(back.data(), y.data(), cos.data(), minus.data(), sequences, rows, pairs);
        check_close(back, same, rounding<T>(6, 1), "and back");
      }
    }
  }
}
