// Scaled dot-product attention, blockwise: memory beside the outputs does not grow with queries times keys.
#pragma once

#include <cstdint>

namespace pynn::ops {

// The rows of one head among others: [batch, heads, rows, features] or any other order of these axes but the last.
template <class T>
struct Heads {
  T* data;
  int64_t batch_stride, head_stride, row_stride;

  T* at(int64_t batch, int64_t head, int64_t row) const {
    return data + batch * batch_stride + head * head_stride + row * row_stride;
  }
};

// Which scores count, [batch, heads, queries, keys]; strides of axes that are broadcast are 0. At most one is not null.
template <class T>
struct AttentionMask {
  const uint8_t* keep = nullptr;  // those that are not 0
  const T* add = nullptr;         // is added to the scores
  int64_t batch_stride = 0, head_stride = 0, row_stride = 0;
};

template <class T>
struct AttentionArguments {
  Heads<const T> query, key, value;
  AttentionMask<T> mask;
  bool causal;       // query i sees keys 0..past + i
  int64_t past = 0;  // keys before that of the first query, at most all
  double scale;
  int64_t batch, heads, queries, keys, features, value_features;
  double dropout = 0;  // of the weights, 0 <= p <= 1; a query uses ceil(keys / 4) counters from `offset` on
  uint64_t seed = 0, offset = 0;
};

// y[queries, value_features] = dropout(softmax(query key^T scale + mask)) value for each head; rows that see no key
// become 0. lse [batch, heads, queries] is the logarithm of each softmax' denominator, infinity where it is 0.
template <class T>
void attention(Heads<T> y, T* lse, const AttentionArguments<T>& a);

template <class T>
void attention_backward(Heads<T> dquery, Heads<T> dkey, Heads<T> dvalue, Heads<const T> dy, Heads<const T> y,
                        const T* lse, const AttentionArguments<T>& a);

// y, x [sequences, rows, 2 pairs]; cos, sin [rows, pairs]: each pair (a, b) of neighbours in a row becomes
// (a cos - b sin, b cos + a sin). With -sin it is its own transpose.
template <class T>
void rotate_pairs(T* y, const T* x, const T* cos, const T* sin, int64_t sequences, int64_t rows, int64_t pairs);

}  // namespace pynn::ops
