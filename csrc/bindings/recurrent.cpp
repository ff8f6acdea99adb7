#include "ops/recurrent.h"

#include <pybind11/stl.h>

#include <string>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

using Optional = std::optional<py::array>;

// The inputs of a layer, checked against each other, and the shapes of its arrays.
template <class T>
struct Layer {
  ops::RecurrentInputs<T> in{};
  const int64_t* indices = nullptr;
  ops::RecurrentSizes sizes{};
  Shape x, state, steps, gates, weight_ih, weight_hh, bias;

  Layer(const char* op, int64_t gate_count, const py::array& x_array, const Optional& h0,
        const py::array& weight_ih_array, const py::array& weight_hh_array, bool reverse) {
    const View<T> ih = view<T>(op, "weight_ih", weight_ih_array), hh = view<T>(op, "weight_hh", weight_hh_array);
    const std::string factor = gate_count == 1 ? "" : std::to_string(gate_count) + " ";
    if (ih.ndim() != 2 || ih.shape[0] % gate_count != 0) {
      throw_value(op, "weight_ih " + to_string(ih.shape) + " needs the shape [" + factor + "hidden, in]");
    }
    if (holds<int64_t>(x_array) && x_array.ndim() == 2) {
      const View<int64_t> values = view<int64_t>(op, "x", x_array);
      indices = values.data;
      x = {values.shape[0], values.shape[1], ih.shape[1]};
    } else {
      const View<T> values = view<T>(op, "x", x_array, "weight_ih");
      in.x = values.data;
      x = values.shape;
    }
    if (x.size() != 3) throw_value(op, "x " + to_string(x) + " needs 3 axes, [T, N, in]");
    if (x[2] != ih.shape[1]) {
      throw_value(op, "x " + to_string(x) + " has " + std::to_string(x[2]) + " features, weight_ih " +
                          to_string(ih.shape) + " expects " + std::to_string(ih.shape[1]));
    }
    const int64_t hidden = ih.shape[0] / gate_count;
    weight_ih = ih.shape;
    weight_hh = {ih.shape[0], hidden};
    require_shape(op, "weight_hh", hh.shape, weight_hh);
    state = {x[1], hidden};
    steps = {x[0], x[1], hidden};
    gates = {x[0], x[1], ih.shape[0]};
    bias = {ih.shape[0]};
    sizes = {x[0], x[1], x[2], hidden, reverse};
    in.weight_ih = ih.data;
    in.weight_hh = hh.data;
    in.h0 = optional_data<T>(op, "h0", h0, state, "weight_ih");
  }

  void set_biases(const char* op, const Optional& bias_ih, const Optional& bias_hh) {
    if (bias_ih.has_value() != bias_hh.has_value()) {
      throw_value(op, "bias_ih and bias_hh must both be given or both be None");
    }
    in.bias_ih = optional_data<T>(op, "bias_ih", bias_ih, bias);
    in.bias_hh = optional_data<T>(op, "bias_hh", bias_hh, bias);
  }
};

// Calls compute(inputs) with a copy of the indices, which no other thread can change once they are checked.
template <class T, class Compute>
void with_checked(const char* op, ops::RecurrentInputs<T> in, const int64_t* indices, ops::RecurrentSizes sizes,
                  const Compute& compute) {
  std::vector<int64_t> checked;
  if (indices != nullptr) {
    checked = copy_of(indices, sizes.steps * sizes.batch);
    for (size_t i = 0; i < checked.size(); ++i) {
      if (checked[i] < 0 || checked[i] >= sizes.input) {
        throw_index(op, "x has index " + std::to_string(checked[i]) + " at flat position " + std::to_string(i) +
                            ", needs 0 to " + std::to_string(sizes.input - 1));
      }
    }
    in.indices = checked.data();
  }
  compute(in);
}

// The outputs of a backward that were asked for.
template <class T>
struct Gradients {
  using Output = std::optional<py::array_t<T>>;
  Output dx, dh0, dc0, dweight_ih, dweight_hh, dbias_ih, dbias_hh;

  Gradients(const char* op, const Layer<T>& layer, bool need_dx, bool need_dh0, bool need_dc0, bool need_dweights,
            bool two_biases) {
    if (need_dx && layer.in.x != nullptr) dx = empty<T>(op, layer.x);
    if (need_dh0) dh0 = empty<T>(op, layer.state);
    if (need_dc0) dc0 = empty<T>(op, layer.state);
    if (!need_dweights) return;
    dweight_ih = empty<T>(op, layer.weight_ih);
    dweight_hh = empty<T>(op, layer.weight_hh);
    dbias_ih = empty<T>(op, layer.bias);
    if (two_biases) dbias_hh = empty<T>(op, layer.bias);
  }

  ops::RecurrentGradients<T> pointers() {
    return {data_of(dx), data_of(dh0), data_of(dweight_ih), data_of(dweight_hh), data_of(dbias_ih), data_of(dbias_hh)};
  }
};

template <class T>
const T* plain_data(const char* op, const char* name, const py::array& array, const Shape& needed) {
  const View<T> v = view<T>(op, name, array);
  require_shape(op, name, v.shape, needed);
  return v.data;
}

py::tuple rnn(const py::array& x, const Optional& h0, const py::array& weight_ih, const py::array& weight_hh,
              const Optional& bias_ih, const Optional& bias_hh, bool relu, bool reverse) {
  constexpr const char* op = "rnn";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Layer<T> layer(op, 1, x, h0, weight_ih, weight_hh, reverse);
    layer.set_biases(op, bias_ih, bias_hh);
    py::array_t<T> y = empty<T>(op, layer.steps), h_n = empty<T>(op, layer.state);
    T *y_data = data_of(y), *h_n_data = data_of(h_n);
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::rnn(y_data, h_n_data, checked, relu, sizes);
      });
    });
    return py::make_tuple(y, h_n);
  });
}

py::tuple rnn_backward(const Optional& dy_array, const Optional& dh_n_array, const py::array& y_array,
                       const py::array& x, const Optional& h0, const py::array& weight_ih, const py::array& weight_hh,
                       bool relu, bool reverse, bool need_dx, bool need_dh0, bool need_dweights) {
  constexpr const char* op = "rnn_backward";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Layer<T> layer(op, 1, x, h0, weight_ih, weight_hh, reverse);
    const T* dy = optional_data<T>(op, "dy", dy_array, layer.steps);
    const T* dh_n = optional_data<T>(op, "dh_n", dh_n_array, layer.state);
    const T* y = plain_data<T>(op, "y", y_array, layer.steps);
    Gradients<T> out(op, layer, need_dx, need_dh0, false, need_dweights, false);
    const ops::RecurrentGradients<T> to = out.pointers();
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::rnn_backward(to, dy, dh_n, y, checked, relu, sizes);
      });
    });
    return py::make_tuple(out.dx, out.dh0, out.dweight_ih, out.dweight_hh, out.dbias_ih);
  });
}

py::tuple lstm(const py::array& x, const Optional& h0, const Optional& c0_array, const py::array& weight_ih,
               const py::array& weight_hh, const Optional& bias_ih, const Optional& bias_hh, bool reverse) {
  constexpr const char* op = "lstm";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Layer<T> layer(op, 4, x, h0, weight_ih, weight_hh, reverse);
    layer.set_biases(op, bias_ih, bias_hh);
    const T* c0 = optional_data<T>(op, "c0", c0_array, layer.state, "weight_ih");
    py::array_t<T> y = empty<T>(op, layer.steps), h_n = empty<T>(op, layer.state), c_n = empty<T>(op, layer.state);
    py::array_t<T> gates = empty<T>(op, layer.gates), cells = empty<T>(op, layer.steps);
    T *y_data = data_of(y), *h_n_data = data_of(h_n), *c_n_data = data_of(c_n), *gates_data = data_of(gates),
      *cells_data = data_of(cells);
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::lstm(y_data, h_n_data, c_n_data, gates_data, cells_data, checked, c0, sizes);
      });
    });
    return py::make_tuple(y, h_n, c_n, gates, cells);
  });
}

py::tuple lstm_backward(const Optional& dy_array, const Optional& dh_n_array, const Optional& dc_n_array,
                        const py::array& gates_array, const py::array& cells_array, const py::array& y_array,
                        const py::array& x, const Optional& h0, const Optional& c0_array, const py::array& weight_ih,
                        const py::array& weight_hh, bool reverse, bool need_dx, bool need_dh0, bool need_dc0,
                        bool need_dweights) {
  constexpr const char* op = "lstm_backward";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Layer<T> layer(op, 4, x, h0, weight_ih, weight_hh, reverse);
    const T* c0 = optional_data<T>(op, "c0", c0_array, layer.state, "weight_ih");
    const T* dy = optional_data<T>(op, "dy", dy_array, layer.steps);
    const T* dh_n = optional_data<T>(op, "dh_n", dh_n_array, layer.state);
    const T* dc_n = optional_data<T>(op, "dc_n", dc_n_array, layer.state);
    const T* gates = plain_data<T>(op, "gates", gates_array, layer.gates);
    const T* cells = plain_data<T>(op, "cells", cells_array, layer.steps);
    const T* y = plain_data<T>(op, "y", y_array, layer.steps);
    Gradients<T> out(op, layer, need_dx, need_dh0, need_dc0, need_dweights, false);
    const ops::RecurrentGradients<T> to = out.pointers();
    T* dc0 = data_of(out.dc0);
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::lstm_backward(to, dc0, dy, dh_n, dc_n, gates, cells, y, checked, c0, sizes);
      });
    });
    return py::make_tuple(out.dx, out.dh0, out.dc0, out.dweight_ih, out.dweight_hh, out.dbias_ih);
  });
}

py::tuple gru(const py::array& x, const Optional& h0, const py::array& weight_ih, const py::array& weight_hh,
              const Optional& bias_ih, const Optional& bias_hh, bool reverse) {
  constexpr const char* op = "gru";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    Layer<T> layer(op, 3, x, h0, weight_ih, weight_hh, reverse);
    layer.set_biases(op, bias_ih, bias_hh);
    py::array_t<T> y = empty<T>(op, layer.steps), h_n = empty<T>(op, layer.state);
    py::array_t<T> gates = empty<T>(op, layer.gates), hn = empty<T>(op, layer.steps);
    T *y_data = data_of(y), *h_n_data = data_of(h_n), *gates_data = data_of(gates), *hn_data = data_of(hn);
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::gru(y_data, h_n_data, gates_data, hn_data, checked, sizes);
      });
    });
    return py::make_tuple(y, h_n, gates, hn);
  });
}

py::tuple gru_backward(const Optional& dy_array, const Optional& dh_n_array, const py::array& gates_array,
                       const py::array& hn_array, const py::array& y_array, const py::array& x, const Optional& h0,
                       const py::array& weight_ih, const py::array& weight_hh, bool reverse, bool need_dx,
                       bool need_dh0, bool need_dweights) {
  constexpr const char* op = "gru_backward";
  return by_dtype(op, "weight_ih", weight_ih, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const Layer<T> layer(op, 3, x, h0, weight_ih, weight_hh, reverse);
    const T* dy = optional_data<T>(op, "dy", dy_array, layer.steps);
    const T* dh_n = optional_data<T>(op, "dh_n", dh_n_array, layer.state);
    const T* gates = plain_data<T>(op, "gates", gates_array, layer.gates);
    const T* hn = plain_data<T>(op, "hn", hn_array, layer.steps);
    const T* y = plain_data<T>(op, "y", y_array, layer.steps);
    Gradients<T> out(op, layer, need_dx, need_dh0, false, need_dweights, true);
    const ops::RecurrentGradients<T> to = out.pointers();
    launch([=, in = layer.in, indices = layer.indices, sizes = layer.sizes] {
      with_checked<T>(op, in, indices, sizes, [&](const ops::RecurrentInputs<T>& checked) {
        ops::gru_backward(to, dy, dh_n, gates, hn, y, checked, sizes);
      });
    });
    return py::make_tuple(out.dx, out.dh0, out.dweight_ih, out.dweight_hh, out.dbias_ih, out.dbias_hh);
  });
}

}  // namespace

void bind_recurrent(py::module_& m) {
  m.def("rnn", rnn, py::arg("x"), py::arg("h0"), py::arg("weight_ih"), py::arg("weight_hh"), py::arg("bias_ih"),
        py::arg("bias_hh"), py::arg("relu"), py::arg("reverse"));
  m.def("rnn_backward", rnn_backward, py::arg("dy"), py::arg("dh_n"), py::arg("y"), py::arg("x"), py::arg("h0"),
        py::arg("weight_ih"), py::arg("weight_hh"), py::arg("relu"), py::arg("reverse"), py::arg("need_dx"),
        py::arg("need_dh0"), py::arg("need_dweights"));
  m.def("lstm", lstm, py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("weight_ih"), py::arg("weight_hh"),
        py::arg("bias_ih"), py::arg("bias_hh"), py::arg("reverse"));
  m.def("lstm_backward", lstm_backward, py::arg("dy"), py::arg("dh_n"), py::arg("dc_n"), py::arg("gates"),
        py::arg("cells"), py::arg("y"), py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("weight_ih"),
        py::arg("weight_hh"), py::arg("reverse"), py::arg("need_dx"), py::arg("need_dh0"), py::arg("need_dc0"),
        py::arg("need_dweights"));
  m.def("gru", gru, py::arg("x"), py::arg("h0"), py::arg("weight_ih"), py::arg("weight_hh"), py::arg("bias_ih"),
        py::arg("bias_hh"), py::arg("reverse"));
  m.def("gru_backward", gru_backward, py::arg("dy"), py::arg("dh_n"), py::arg("gates"), py::arg("hn"), py::arg("y"),
        py::arg("x"), py::arg("h0"), py::arg("weight_ih"), py::arg("weight_hh"), py::arg("reverse"), py::arg("need_dx"),
        py::arg("need_dh0"), py::arg("need_dweights"));
}

}  // namespace pynn::bindings
