// The naive twin of attention: all scores of a head, in double. One head, operands [queries or keys, features].
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "reference/dropout.h"

namespace pynn::reference {

struct AttentionSizes {
  int64_t queries, keys, features, value_features;
  double scale;
  bool causal;
  int64_t past;
  double dropout;
  uint64_t seed, offset;  // of this head's first query
};

// kept[queries, keys] = 1 / (1 - p) or 0
inline std::vector<double> attention_dropout(const AttentionSizes& s) {
  std::vector<double> kept(size_t(s.queries * s.keys)), ones(size_t(s.keys), 1.0);
  const uint64_t counters = uint64_t((s.keys + 3) / 4);
  for (int64_t i = 0; i < s.queries; ++i) {
    dropout(kept.data() + i * s.keys, ones.data(), s.dropout, s.seed, s.offset + uint64_t(i) * counters, s.keys);
  }
  return kept;
}

// mask[queries, keys] is added, or null
template <class T>
std::vector<double> attention_weights(double* lse, const T* query, const T* key, const T* mask,
                                      const AttentionSizes& s) {
  std::vector<double> p(size_t(s.queries * s.keys));
  for (int64_t i = 0; i < s.queries; ++i) {
    double* row = p.data() + i * s.keys;
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < s.keys; ++j) {
      double dot = 0;
      for (int64_t e = 0; e < s.features; ++e)
        dot += double(query[i * s.features + e]) * double(key[j * s.features + e]);
      row[j] = s.causal && j > s.past + i ? -std::numeric_limits<double>::infinity()
                                          : dot * s.scale + (mask != nullptr ? double(mask[i * s.keys + j]) : 0.0);
      max = std::max(max, row[j]);
    }
    for (int64_t j = 0; j < s.keys; ++j) sum += row[j] = std::isinf(row[j]) ? 0.0 : std::exp(row[j] - max);
    for (int64_t j = 0; j < s.keys; ++j) row[j] /= sum == 0 ? 1 : sum;
    lse[i] = sum == 0 ? std::numeric_limits<double>::infinity() : max + std::log(sum);
  }
  return p;
}

template <class T>
void attention(double* y, double* lse, const T* query, const T* key, const T* value, const T* mask,
               const AttentionSizes& s) {
  const std::vector<double> p = attention_weights(lse, query, key, mask, s), kept = attention_dropout(s);
  for (int64_t i = 0; i < s.queries; ++i) {
    for (int64_t e = 0; e < s.value_features; ++e) {
      double sum = 0;
      for (int64_t j = 0; j < s.keys; ++j) {
        const size_t at = size_t(i * s.keys + j);
        sum += p[at] * kept[at] * double(value[j * s.value_features + e]);
      }
      y[i * s.value_features + e] = sum;
    }
  }
}

// Sets dquery, dkey and dvalue, which begin at 0.
template <class T>
void attention_backward(double* dquery, double* dkey, double* dvalue, const T* dy, const T* query, const T* key,
                        const T* value, const T* mask, const AttentionSizes& s) {
  std::vector<double> lse(size_t(s.queries)), dp(size_t(s.keys));
  const std::vector<double> p = attention_weights(lse.data(), query, key, mask, s), kept = attention_dropout(s);
  for (int64_t i = 0; i < s.queries; ++i) {
    double mean = 0;
    for (int64_t j = 0; j < s.keys; ++j) {
      const size_t at = size_t(i * s.keys + j);
      double dot = 0;
      for (int64_t e = 0; e < s.value_features; ++e) {
        const double g = double(dy[i * s.value_features + e]);
        dot += g * double(value[j * s.value_features + e]);
        dvalue[j * s.value_features + e] += p[at] * kept[at] * g;
      }
      dp[size_t(j)] = dot * kept[at];
      mean += p[at] * dp[size_t(j)];
    }
    for (int64_t j = 0; j < s.keys; ++j) {
      const double ds = p[size_t(i * s.keys + j)] * (dp[size_t(j)] - mean) * s.scale;
      for (int64_t e = 0; e < s.features; ++e) {
        dquery[i * s.features + e] += ds * double(key[j * s.features + e]);
        dkey[j * s.features + e] += ds * double(query[i * s.features + e]);
      }
    }
  }
}

// y, x [rows, 2 pairs]; cos, sin [rows, pairs]
template <class T>
void rotate_pairs(double* y, const T* x, const T* cos, const T* sin, int64_t rows, int64_t pairs) {
  for (int64_t i = 0; i < rows * pairs; ++i) {
    const double a = double(x[2 * i]), b = double(x[2 * i + 1]), c = double(cos[i]), s = double(sin[i]);
    y[2 * i] = a * c - b * s;
    y[2 * i + 1] = b * c + a * s;
  }
}

}  // namespace pynn::reference
