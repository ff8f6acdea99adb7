#include "ops/loss.h"

#include <pybind11/stl.h>

#include <string>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

struct Rows {
  int64_t rows, cols;
};

// The rows of the last axis.
Rows rows_of(const char* op, const char* name, const Shape& shape) {
  if (shape.empty()) throw_value(op, std::string(name) + " [] needs at least 1 axis, [..., C]");
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return {rows, shape.back()};
}

template <class T>
using Forward = void (*)(T*, const T*, int64_t, int64_t);
template <class T>
using Backward = void (*)(T*, const T*, const T*, int64_t, int64_t);

template <class T>
py::array apply_rows(const char* op, const py::array& x_array, Forward<T> forward) {
  const View<T> x = view<T>(op, "x", x_array);
  const Rows size = rows_of(op, "x", x.shape);
  py::array_t<T> y = empty<T>(op, x.shape);
  T* y_data = data_of(y);
  launch([=, x = x.data] { forward(y_data, x, size.rows, size.cols); });
  return y;
}

template <class T>
py::array apply_rows_backward(const char* op, const py::array& dy_array, const py::array& y_array,
                              Backward<T> backward) {
  const View<T> dy = view<T>(op, "dy", dy_array), y = view<T>(op, "y", y_array);
  const Rows size = rows_of(op, "y", y.shape);
  require_shape(op, "dy", dy.shape, y.shape);
  py::array_t<T> dx = empty<T>(op, y.shape);
  T* dx_data = data_of(dx);
  launch([=, dy = dy.data, y = y.data] { backward(dx_data, dy, y, size.rows, size.cols); });
  return dx;
}

py::array softmax(const py::array& x) {
  return by_dtype("softmax", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply_rows<T>("softmax", x, ops::softmax<T>);
  });
}

py::array softmax_backward(const py::array& dy, const py::array& y) {
  return by_dtype("softmax_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_rows_backward<T>("softmax_backward", dy, y, ops::softmax_backward<T>);
  });
}

py::array log_softmax(const py::array& x) {
  return by_dtype("log_softmax", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply_rows<T>("log_softmax", x, ops::log_softmax<T>);
  });
}

py::array log_softmax_backward(const py::array& dy, const py::array& y) {
  return by_dtype("log_softmax_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_rows_backward<T>("log_softmax_backward", dy, y, ops::log_softmax_backward<T>);
  });
}

ops::Reduction reduction_from_name(const char* op, const std::string& name) {
  if (name == "none") return ops::Reduction::none;
  if (name == "mean") return ops::Reduction::mean;
  if (name == "sum") return ops::Reduction::sum;
  throw_value(op, "reduction \"" + name + "\" is not one of none, mean, sum");
}

void require_targets(const char* op, const std::vector<int64_t>& target, int64_t classes, int64_t ignore_index) {
  for (size_t i = 0; i < target.size(); ++i) {
    const int64_t label = target[i];
    if ((label < 0 || label >= classes) && label != ignore_index) {
      throw_index(op, "target[" + std::to_string(i) + "] is " + std::to_string(label) + ", needs 0.." +
                          std::to_string(classes - 1) + " or ignore_index " + std::to_string(ignore_index));
    }
  }
}

// A loss of rows by their labels: compute(loss, dx, x, labels, weight, reduction, rows, classes), where dx and weight
// may be null.
template <class Compute>
py::tuple loss_of_rows(const char* op, const char* name, const py::array& x_array, const py::array& target_array,
                       int64_t ignore_index, const std::string& reduction_name, bool need_grad,
                       const std::optional<py::array>& weight_array, const Compute& compute) {
  return by_dtype(op, name, x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> x = view<T>(op, name, x_array);
    const View<int64_t> target = view<int64_t>(op, "target", target_array);
    const ops::Reduction reduction = reduction_from_name(op, reduction_name);
    if (x.ndim() != 2) throw_value(op, std::string(name) + " " + to_string(x.shape) + " needs 2 axes, [N, C]");
    const int64_t rows = x.shape[0], classes = x.shape[1];
    if (target.shape != Shape{rows}) {
      throw_value(op, std::string(name) + " " + to_string(x.shape) + " needs target " + to_string({rows}) + ", got " +
                          to_string(target.shape));
    }
    const T* weight = nullptr;
    if (weight_array) {
      const View<T> given = view<T>(op, "weight", *weight_array);
      if (given.shape != Shape{classes}) {
        throw_value(op,
                    "weight " + to_string(given.shape) + ", needs " + to_string({classes}) + ", one for each class");
      }
      weight = given.data;
    }
    py::array_t<T> loss = empty<T>(op, reduction == ops::Reduction::none ? Shape{rows} : Shape{});
    std::optional<py::array_t<T>> dx;
    if (need_grad) dx = empty<T>(op, x.shape);
    T *loss_data = data_of(loss), *dx_data = data_of(dx);
    launch([=, x = x.data, target = target.data] {
      const std::vector<int64_t> labels = copy_of(target, rows);
      require_targets(op, labels, classes, ignore_index);
      compute(loss_data, dx_data, x, labels.data(), weight, reduction, rows, classes);
    });
    return py::make_tuple(loss, dx);
  });
}

py::tuple cross_entropy(const py::array& logits, const py::array& target, int64_t ignore_index, double label_smoothing,
                        const std::string& reduction_name, bool need_grad, const std::optional<py::array>& weight) {
  constexpr const char* op = "cross_entropy";
  if (!(label_smoothing >= 0 && label_smoothing <= 1)) {
    throw_value(op, "label_smoothing is " + number_text(label_smoothing) + ", needs 0..1");
  }
  return loss_of_rows(op, "logits", logits, target, ignore_index, reduction_name, need_grad, weight,
                      [=](auto* loss, auto* dx, const auto* x, const int64_t* labels, const auto* weights,
                          ops::Reduction reduction, int64_t rows, int64_t classes) {
                        ops::cross_entropy(loss, dx, x, labels, weights, ignore_index, label_smoothing, reduction, rows,
                                           classes);
                      });
}

py::tuple nll_loss(const py::array& log_probs, const py::array& target, int64_t ignore_index,
                   const std::string& reduction_name, bool need_grad, const std::optional<py::array>& weight) {
  return loss_of_rows("nll_loss", "log_probs", log_probs, target, ignore_index, reduction_name, need_grad, weight,
                      [=](auto* loss, auto* dx, const auto* x, const int64_t* labels, const auto* weights,
                          ops::Reduction reduction, int64_t rows, int64_t classes) {
                        ops::nll_loss(loss, dx, x, labels, weights, ignore_index, reduction, rows, classes);
                      });
}

// A loss of elements: compute(loss, dx, x, target, reduction, n), where dx may be null.
template <class Compute>
py::tuple elementwise_loss(const char* op, const py::array& x_array, const py::array& target_array,
                           const std::string& reduction_name, bool need_grad, const Compute& compute) {
  return by_dtype(op, "x", x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array), target = view<T>(op, "target", target_array);
    const ops::Reduction reduction = reduction_from_name(op, reduction_name);
    require_shape(op, "target", target.shape, x.shape);
    py::array_t<T> loss = empty<T>(op, reduction == ops::Reduction::none ? x.shape : Shape{});
    std::optional<py::array_t<T>> dx;
    if (need_grad) dx = empty<T>(op, x.shape);
    T *loss_data = data_of(loss), *dx_data = data_of(dx);
    launch([=, x = x.data, target = target.data, n = x.size] { compute(loss_data, dx_data, x, target, reduction, n); });
    return py::make_tuple(loss, dx);
  });
}

py::tuple loss_of_kind(const char* op, ops::ElementwiseLoss kind, const py::array& x, const py::array& target,
                       const std::string& reduction_name, bool need_grad) {
  return elementwise_loss(op, x, target, reduction_name, need_grad,
                          [kind](auto* loss, auto* dx, const auto* v, const auto* t, ops::Reduction reduction,
                                 int64_t n) { ops::elementwise_loss(kind, loss, dx, v, t, reduction, n); });
}

py::tuple kl_div(const py::array& x, const py::array& target, bool log_target, const std::string& reduction,
                 bool need_grad) {
  const auto kind = log_target ? ops::ElementwiseLoss::kl_div_log_target : ops::ElementwiseLoss::kl_div;
  return loss_of_kind("kl_div", kind, x, target, reduction, need_grad);
}

py::tuple smooth_l1_loss(const py::array& x, const py::array& target, double beta, const std::string& reduction_name,
                         bool need_grad) {
  constexpr const char* op = "smooth_l1_loss";
  if (!(beta >= 0)) throw_value(op, "beta is " + number_text(beta) + ", needs at least 0");
  return elementwise_loss(op, x, target, reduction_name, need_grad,
                          [beta](auto* loss, auto* dx, const auto* v, const auto* t, ops::Reduction reduction,
                                 int64_t n) { ops::smooth_l1_loss(loss, dx, v, t, beta, reduction, n); });
}

template <ops::ElementwiseLoss kind>
void bind_elementwise_loss(py::module_& m, const char* name) {
  m.def(
      name,
      [name](const py::array& x, const py::array& target, const std::string& reduction, bool need_grad) {
        return loss_of_kind(name, kind, x, target, reduction, need_grad);
      },
      py::arg("x"), py::arg("target"), py::arg("reduction"), py::arg("need_grad"));
}

}  // namespace

void bind_loss(py::module_& m) {
  m.def("softmax", softmax, py::arg("x"));
  m.def("softmax_backward", softmax_backward, py::arg("dy"), py::arg("y"));
  m.def("log_softmax", log_softmax, py::arg("x"));
  m.def("log_softmax_backward", log_softmax_backward, py::arg("dy"), py::arg("y"));
  m.def("cross_entropy", cross_entropy, py::arg("logits"), py::arg("target"), py::arg("ignore_index"),
        py::arg("label_smoothing"), py::arg("reduction"), py::arg("need_grad"), py::arg("weight") = py::none());
  bind_elementwise_loss<ops::ElementwiseLoss::mse>(m, "mse_loss");
  bind_elementwise_loss<ops::ElementwiseLoss::bce_with_logits>(m, "binary_cross_entropy_with_logits");
  bind_elementwise_loss<ops::ElementwiseLoss::hinge>(m, "hinge_loss");
  bind_elementwise_loss<ops::ElementwiseLoss::l1>(m, "l1_loss");
  m.def("nll_loss", nll_loss, py::arg("log_probs"), py::arg("target"), py::arg("ignore_index"), py::arg("reduction"),
        py::arg("need_grad"), py::arg("weight") = py::none());
  m.def("kl_div", kl_div, py::arg("x"), py::arg("target"), py::arg("log_target"), py::arg("reduction"),
        py::arg("need_grad"));
  m.def("smooth_l1_loss", smooth_l1_loss, py::arg("x"), py::arg("target"), py::arg("beta"), py::arg("reduction"),
        py::arg("need_grad"));
}

}  // namespace pynn::bindings
