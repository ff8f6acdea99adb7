#include "ops/attention.h"

#include <pybind11/stl.h>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

struct Options {
  std::optional<int64_t> past;
  double scale, dropout;
  uint64_t seed, offset;
};

// Sizes, mask and options; no operands yet.
template <class T>
ops::AttentionArguments<T> arguments(const char* op, const Shape& query, const Shape& value, int64_t keys,
                                     const std::optional<py::array>& mask_array, const Options& options) {
  if (!(options.dropout >= 0 && options.dropout <= 1)) {
    throw_value(op, "dropout_p is " + number_text(options.dropout) + ", needs 0 to 1");
  }
  if (options.past && (*options.past < 0 || *options.past > keys)) {
    throw_value(op, "past is " + std::to_string(*options.past) + ", needs 0 to the " + std::to_string(keys) + " keys");
  }
  ops::AttentionArguments<T> a{};
  a.batch = query[0], a.heads = query[1], a.queries = query[2], a.keys = keys;
  a.features = query[3], a.value_features = value[3];
  a.causal = options.past.has_value(), a.past = options.past.value_or(0), a.scale = options.scale;
  a.dropout = options.dropout, a.seed = options.seed, a.offset = options.offset;
  if (!mask_array) return a;
  Shape shape;
  if (holds<bool>(*mask_array)) {
    const View<bool> mask = view<bool>(op, "attn_mask", *mask_array);
    a.mask.keep = reinterpret_cast<const uint8_t*>(mask.data);
    shape = mask.shape;
  } else {
    const View<T> mask = view<T>(op, "attn_mask", *mask_array);
    a.mask.add = mask.data;
    shape = mask.shape;
  }
  const Shape needed{a.batch, a.heads, a.queries, a.keys};
  bool fits = shape.size() == 4 && shape[3] == a.keys;
  for (size_t i = 0; fits && i < 3; ++i) fits = shape[i] == needed[i] || shape[i] == 1;
  if (!fits) {
    throw_value(op, "attn_mask " + to_string(shape) + " needs the shape " + to_string(needed) +
                        ", or 1 for any of its first three axes");
  }
  a.mask.row_stride = shape[2] == 1 ? 0 : a.keys;
  a.mask.head_stride = shape[1] == 1 ? 0 : shape[2] * a.keys;
  a.mask.batch_stride = shape[0] == 1 ? 0 : shape[1] * shape[2] * a.keys;
  return a;
}

// [N, H, L, E] as it lies in memory
template <class T>
ops::Heads<T> heads_of(T* data, const Shape& shape) {
  return {data, shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]};
}

template <class T>
struct Operands {
  View<T> query, key, value;

  Operands(const char* op, const py::array& q, const py::array& k, const py::array& v)
      : query(view<T>(op, "query", q)), key(view<T>(op, "key", k)), value(view<T>(op, "value", v)) {
    const bool fits = query.ndim() == 4 && key.ndim() == 4 && value.ndim() == 4 && key.shape[0] == query.shape[0] &&
                      key.shape[1] == query.shape[1] && key.shape[3] == query.shape[3] &&
                      value.shape[0] == query.shape[0] && value.shape[1] == query.shape[1] &&
                      value.shape[2] == key.shape[2];
    if (!fits) {
      throw_value(op, "query " + to_string(query.shape) + ", key " + to_string(key.shape) + " and value " +
                          to_string(value.shape) + " need the shapes [N, H, L, E], [N, H, S, E] and [N, H, S, Ev]");
    }
  }

  Shape y_shape() const { return {query.shape[0], query.shape[1], query.shape[2], value.shape[3]}; }
  Shape lse_shape() const { return {query.shape[0], query.shape[1], query.shape[2]}; }

  ops::AttentionArguments<T> arguments(const char* op, const std::optional<py::array>& mask,
                                       const Options& options) const {
    auto a = bindings::arguments<T>(op, query.shape, value.shape, key.shape[2], mask, options);
    a.query = heads_of(query.data, query.shape);
    a.key = heads_of(key.data, key.shape);
    a.value = heads_of(value.data, value.shape);
    return a;
  }
};

py::tuple scaled_dot_product_attention(const py::array& query, const py::array& key, const py::array& value,
                                       const std::optional<py::array>& mask, std::optional<int64_t> past, double scale,
                                       double p, uint64_t seed, uint64_t offset) {
  constexpr const char* op = "scaled_dot_product_attention";
  return by_dtype(op, "query", query, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Operands<T> x(op, query, key, value);
    const ops::AttentionArguments<T> a = x.arguments(op, mask, {past, scale, p, seed, offset});
    py::array_t<T> y = empty<T>(op, x.y_shape()), lse = empty<T>(op, x.lse_shape());
    const ops::Heads<T> to = heads_of(data_of(y), x.y_shape());
    T* lse_data = data_of(lse);
    launch([=] { ops::attention(to, lse_data, a); });
    return py::make_tuple(y, lse);
  });
}

py::tuple scaled_dot_product_attention_backward(const py::array& dy_array, const py::array& y_array,
                                                const py::array& lse_array, const py::array& query,
                                                const py::array& key, const py::array& value,
                                                const std::optional<py::array>& mask, std::optional<int64_t> past,
                                                double scale, double p, uint64_t seed, uint64_t offset) {
  constexpr const char* op = "scaled_dot_product_attention_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array), lse = view<T>(op, "lse", lse_array);
    const Operands<T> x(op, query, key, value);
    require_shape(op, "dy", dy.shape, x.y_shape());
    require_shape(op, "y", y.shape, x.y_shape());
    require_shape(op, "lse", lse.shape, x.lse_shape());
    const ops::AttentionArguments<T> a = x.arguments(op, mask, {past, scale, p, seed, offset});
    py::array_t<T> dquery = empty<T>(op, x.query.shape), dkey = empty<T>(op, x.key.shape),
                   dvalue = empty<T>(op, x.value.shape);
    const ops::Heads<T> dq = heads_of(data_of(dquery), x.query.shape), dk = heads_of(data_of(dkey), x.key.shape),
                        dv = heads_of(data_of(dvalue), x.value.shape);
    const ops::Heads<const T> from_dy = heads_of(dy.data, dy.shape), from_y = heads_of(y.data, y.shape);
    launch([=, lse = lse.data] { ops::attention_backward(dq, dk, dv, from_dy, from_y, lse, a); });
    return py::make_tuple(dquery, dkey, dvalue);
  });
}

// Queries, keys and values of all heads beside each other: [N, L, 3 H E].
template <class T>
struct Packed {
  View<T> qkv;
  int64_t batch, length, heads, features;

  Packed(const char* op, const py::array& array, int64_t num_heads) : qkv(view<T>(op, "qkv", array)) {
    if (qkv.ndim() != 3 || num_heads < 1 || qkv.shape[2] % 3 != 0 || qkv.shape[2] / 3 % num_heads != 0) {
      throw_value(op, "qkv " + to_string(qkv.shape) + " with " + std::to_string(num_heads) +
                          " heads needs the shape [N, L, 3 H E] with H >= 1");
    }
    batch = qkv.shape[0], length = qkv.shape[1], heads = num_heads, features = qkv.shape[2] / 3 / num_heads;
  }

  Shape y_shape() const { return {batch, length, heads * features}; }
  Shape lse_shape() const { return {batch, heads, length}; }

  // Those of the queries, keys or values (which: 0, 1, 2) in an array of `count` of them
  template <class U>
  ops::Heads<U> at(U* data, int64_t which, int64_t count) const {
    const int64_t width = heads * features;
    return {data + which * width, length * count * width, features, count * width};
  }

  ops::AttentionArguments<T> arguments(const char* op, const std::optional<py::array>& mask,
                                       const Options& options) const {
    const Shape shape{batch, heads, length, features};
    auto a = bindings::arguments<T>(op, shape, shape, length, mask, options);
    a.query = at(qkv.data, 0, 3);
    a.key = at(qkv.data, 1, 3);
    a.value = at(qkv.data, 2, 3);
    return a;
  }
};

py::tuple self_attention(const py::array& qkv, int64_t num_heads, const std::optional<py::array>& mask,
                         std::optional<int64_t> past, double scale, double p, uint64_t seed, uint64_t offset) {
  constexpr const char* op = "self_attention";
  return by_dtype(op, "qkv", qkv, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Packed<T> x(op, qkv, num_heads);
    const ops::AttentionArguments<T> a = x.arguments(op, mask, {past, scale, p, seed, offset});
    py::array_t<T> y = empty<T>(op, x.y_shape()), lse = empty<T>(op, x.lse_shape());
    const ops::Heads<T> to = x.at(data_of(y), 0, 1);
    T* lse_data = data_of(lse);
    launch([=] { ops::attention(to, lse_data, a); });
    return py::make_tuple(y, lse);
  });
}

py::array self_attention_backward(const py::array& dy_array, const py::array& y_array, const py::array& lse_array,
                                  const py::array& qkv, int64_t num_heads, const std::optional<py::array>& mask,
                                  std::optional<int64_t> past, double scale, double p, uint64_t seed, uint64_t offset) {
  constexpr const char* op = "self_attention_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array), lse = view<T>(op, "lse", lse_array);
    const Packed<T> x(op, qkv, num_heads);
    require_shape(op, "dy", dy.shape, x.y_shape());
    require_shape(op, "y", y.shape, x.y_shape());
    require_shape(op, "lse", lse.shape, x.lse_shape());
    const ops::AttentionArguments<T> a = x.arguments(op, mask, {past, scale, p, seed, offset});
    py::array_t<T> dqkv = empty<T>(op, x.qkv.shape);
    T* data = data_of(dqkv);
    const ops::Heads<T> dq = x.at(data, 0, 3), dk = x.at(data, 1, 3), dv = x.at(data, 2, 3);
    const ops::Heads<const T> from_dy = x.at(dy.data, 0, 1), from_y = x.at(y.data, 0, 1);
    launch([=, lse = lse.data] { ops::attention_backward(dq, dk, dv, from_dy, from_y, lse, a); });
    return dqkv;
  });
}

py::array rotate_pairs(const py::array& x_array, const py::array& cos_array, const py::array& sin_array) {
  constexpr const char* op = "rotate_pairs";
  return by_dtype(op, "x", x_array, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array), cos = view<T>(op, "cos", cos_array),
                  sin = view<T>(op, "sin", sin_array);
    if (x.ndim() < 2 || x.shape.back() % 2 != 0) {
      throw_value(op, "x " + to_string(x.shape) + " needs [..., L, E] with an even E");
    }
    const int64_t rows = x.shape[x.shape.size() - 2], pairs = x.shape.back() / 2;
    require_shape(op, "cos", cos.shape, {rows, pairs});
    require_shape(op, "sin", sin.shape, {rows, pairs});
    py::array_t<T> y = empty<T>(op, x.shape);
    T* y_data = data_of(y);
    const int64_t sequences = x.size == 0 ? 0 : x.size / (2 * rows * pairs);
    launch([=, x = x.data, cos = cos.data, sin = sin.data] {
      ops::rotate_pairs(y_data, x, cos, sin, sequences, rows, pairs);
    });
    return y;
  });
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def("rotate_pairs", rotate_pairs, py::arg("x"), py::arg("cos"), py::arg("sin"));
  m.def("scaled_dot_product_attention", scaled_dot_product_attention, py::arg("query"), py::arg("key"),
        py::arg("value"), py::arg("attn_mask"), py::arg("past"), py::arg("scale"), py::arg("dropout_p"),
        py::arg("seed"), py::arg("offset"));
  m.def("scaled_dot_product_attention_backward", scaled_dot_product_attention_backward, py::arg("dy"), py::arg("y"),
        py::arg("lse"), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask"), py::arg("past"),
        py::arg("scale"), py::arg("dropout_p"), py::arg("seed"), py::arg("offset"));
  m.def("self_attention", self_attention, py::arg("qkv"), py::arg("num_heads"), py::arg("attn_mask"), py::arg("past"),
        py::arg("scale"), py::arg("dropout_p"), py::arg("seed"), py::arg("offset"));
  m.def("self_attention_backward", self_attention_backward, py::arg("dy"), py::arg("y"), py::arg("lse"), py::arg("qkv"),
        py::arg("num_heads"), py::arg("attn_mask"), py::arg("past"), py::arg("scale"), py::arg("dropout_p"),
        py::arg("seed"), py::arg("offset"));
}

}  // namespace pynn::bindings
