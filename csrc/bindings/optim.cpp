#include "ops/optim.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "bindings/array.h"
#include "bindings/linear.h"

namespace pynn::bindings {
namespace {

// A list of arrays: held, so that they outlive the time without the GIL, whatever happens to the caller's list.
class Arrays {
 public:
  // Where `params` are given, these are their gradients, and may be tuples (see gradients).
  Arrays(const char* op, const char* name, const py::sequence& list, const Arrays* params = nullptr)
      : op_(op), name_(name) {
    const size_t length = py::len(list);
    arrays_.reserve(length);
    for (size_t i = 0; i < length; ++i) {
      const py::object item = list[i];
      if (!py::isinstance<py::array>(item)) {
        if (params != nullptr && i < params->size() && py::isinstance<py::tuple>(item)) {
          arrays_.push_back((*params)[i]);  // in its place
          linear_.emplace_back(i, py::reinterpret_borrow<py::tuple>(item));
          continue;
        }
        throw_type(op_, element(i) + " is " + std::string(py::str(py::type::of(item).attr("__name__"))) +
                            ", needs a NumPy array");
      }
      arrays_.push_back(py::reinterpret_borrow<py::array>(item));
    }
  }

  size_t size() const { return arrays_.size(); }
  const py::array& operator[](size_t i) const { return arrays_[i]; }
  std::string element(size_t i) const { return std::string(name_) + "[" + std::to_string(i) + "]"; }

  // Their pointers, each checked for element type and layout.
  template <class T>
  ops::ArrayList<T> checked(bool written) const {
    ops::ArrayList<T> list;
    list.data.reserve(size());
    list.sizes.reserve(size());
    for (size_t i = 0; i < size(); ++i) {
      const py::array& array = arrays_[i];
      if (!holds<T>(array)) {
        throw_type(op_, element(i) + " is " + dtype_name(array) + ", needs " + dtype_name(py::array_t<T>(0)));
      }
      if (!is_plain(array, written)) {  // asked first, because it takes time to put the name together
        if (written) {
          require_writeable(op_, element(i).c_str(), array);
        } else {
          require_layout(op_, element(i).c_str(), array);
        }
      }
      list.data.push_back(static_cast<T*>(const_cast<void*>(array.data())));
      list.sizes.push_back(static_cast<int64_t>(array.size()));
    }
    return list;
  }

  // The same of gradients. A tuple (dy, y, x, activation, dweight, dbias) is the gradient of a linear layer's weight as
  // linear_backward makes it, which also goes to dweight, and that of the bias to dbias, unless these are None.
  template <class T>
  ops::Gradients<T> gradients() const {
    ops::Gradients<T> list{checked<T>(false)};
    for (const auto& [i, items] : linear_) {
      list.arrays.data[i] = nullptr;
      list.linear.emplace_back(i, linear_gradient<T>(shape_of(arrays_[i]), items));
    }
    return list;
  }

  // ValueError unless both lists have arrays of the same shapes.
  void require_like(const Arrays& other) const {
    if (size() != other.size()) {
      throw_value(op_, std::string(name_) + " has " + std::to_string(size()) + " arrays, " + other.name_ + " has " +
                           std::to_string(other.size()));
    }
    for (size_t i = 0; i < size(); ++i) {
      const py::array &a = arrays_[i], &b = other.arrays_[i];
      if (a.ndim() != b.ndim() || !std::equal(a.shape(), a.shape() + a.ndim(), b.shape())) {
        throw_value(op_, element(i) + " is " + to_string(shape_of(a)) + ", " + other.element(i) + " is " +
                             to_string(shape_of(b)));
      }
    }
  }

  // The same of momentum buffers, of which there are none for momentum 0.
  void require_momentum(const Arrays& params, double momentum) const {
    if (momentum != 0) {
      require_like(params);
    } else if (size() != 0) {
      throw_value(op_, std::string(name_) + " has " + std::to_string(size()) + " arrays, needs none for momentum 0");
    }
  }

  // Calls fn(T{}) with the element type of the first array; float32 for an empty list.
  template <class Function>
  auto by_dtype(const Function& fn) const {
    if (arrays_.empty() || holds<float>(arrays_[0])) return fn(float{});
    return bindings::by_dtype(op_, element(0).c_str(), arrays_[0], fn);  // a name that takes time to put together
  }

 private:
  template <class T>
  ops::LinearGradient<T> linear_gradient(const Shape& weight, const py::tuple& items) const {
    if (items.size() != 6) {
      throw_type(op_, "a gradient is a tuple of " + std::to_string(items.size()) +
                          ", needs (dy, y, x, activation, dweight, dbias)");
    }
    const auto array = [&](size_t i) {
      const py::object item = items[i];
      if (!py::isinstance<py::array>(item)) throw_type(op_, "item " + std::to_string(i) + " of a gradient is no array");
      return py::reinterpret_borrow<py::array>(item);
    };
    const View<T> dy = view<T>(op_, "dy", array(0)), y = view<T>(op_, "y", array(1)), x = view<T>(op_, "x", array(2));
    const LinearSizes size = linear_sizes(op_, x.shape, weight);
    Shape shape = x.shape;
    shape.back() = size.out;
    require_shape(op_, "dy", dy.shape, shape);
    require_shape(op_, "y", y.shape, shape);
    const auto kept = [&](size_t i, const char* name, const Shape& needed) -> T* {
      if (items[i].is_none()) return nullptr;
      const View<T> v = view<T>(op_, name, array(i));
      require_shape(op_, name, v.shape, needed);
      require_writeable(op_, name, array(i));
      return const_cast<T*>(v.data);
    };
    if (!py::isinstance<py::str>(items[3])) throw_type(op_, "item 3 of a gradient is no name of an activation");
    const ops::Activation activation = activation_from_name(op_, items[3].cast<std::string>());
    return {dy.data,
            y.data,
            x.data,
            activation,
            size.rows,
            size.in,
            size.out,
            kept(4, "dweight", weight),
            kept(5, "dbias", {size.out})};
  }

  const char* op_;
  const char* name_;
  std::vector<py::array> arrays_;
  std::vector<std::pair<size_t, py::tuple>> linear_;
};

void require_finite(const char* op, const char* name, double value) {
  if (!std::isfinite(value))
    throw_value(op, std::string(name) + " is " + number_text(value) + ", needs a finite number");
}

void require_decay(const char* op, const char* name, double beta) {
  if (!(beta >= 0 && beta < 1)) {
    throw_value(op, std::string(name) + " is " + number_text(beta) + ", needs at least 0 and less than 1");
  }
}

void sgd(const py::sequence& params, const py::sequence& grads, const py::sequence& momentum_buffers, double lr,
         double momentum, double dampening, double weight_decay, bool nesterov, bool first) {
  constexpr const char* op = "sgd_";
  require_finite(op, "lr", lr);
  require_finite(op, "momentum", momentum);
  require_finite(op, "dampening", dampening);
  require_finite(op, "weight_decay", weight_decay);
  const Arrays p(op, "params", params), g(op, "grads", grads, &p), b(op, "momentum_buffers", momentum_buffers);
  g.require_like(p);
  b.require_momentum(p, momentum);
  p.by_dtype([&](auto zero) {
    using T = decltype(zero);
    const ops::Gradients<T> grad = g.gradients<T>();
    const ops::ArrayList<T> param = p.checked<T>(true), buffer = b.checked<T>(true);
    launch([=] { ops::sgd(param, grad, buffer, {lr, momentum, dampening, weight_decay, nesterov, first}); });
  });
}

void adam(const py::sequence& params, const py::sequence& grads, const py::sequence& exp_avgs,
          const py::sequence& exp_avg_sqs, int64_t step, double lr, double beta1, double beta2, double eps,
          double weight_decay, bool decoupled) {
  constexpr const char* op = "adam_";
  if (step < 1) throw_value(op, "step is " + std::to_string(step) + ", needs at least 1");
  require_finite(op, "lr", lr);
  require_decay(op, "beta1", beta1);
  require_decay(op, "beta2", beta2);
  require_finite(op, "eps", eps);
  require_finite(op, "weight_decay", weight_decay);
  const Arrays p(op, "params", params), g(op, "grads", grads, &p);
  const Arrays m(op, "exp_avgs", exp_avgs), v(op, "exp_avg_sqs", exp_avg_sqs);
  g.require_like(p);
  m.require_like(p);
  v.require_like(p);
  p.by_dtype([&](auto zero) {
    using T = decltype(zero);
    const ops::Gradients<T> grad = g.gradients<T>();
    const ops::ArrayList<T> param = p.checked<T>(true);
    const ops::ArrayList<T> exp_avg = m.checked<T>(true), exp_avg_sq = v.checked<T>(true);
    launch(
        [=] { ops::adam(param, grad, exp_avg, exp_avg_sq, {step, lr, beta1, beta2, eps, weight_decay, decoupled}); });
  });
}

void rmsprop(const py::sequence& params, const py::sequence& grads, const py::sequence& square_avgs,
             const py::sequence& grad_avgs, const py::sequence& momentum_buffers, double lr, double alpha, double eps,
             double weight_decay, double momentum) {
  constexpr const char* op = "rmsprop_";
  require_finite(op, "lr", lr);
  require_decay(op, "alpha", alpha);
  require_finite(op, "eps", eps);
  require_finite(op, "weight_decay", weight_decay);
  require_finite(op, "momentum", momentum);
  const Arrays p(op, "params", params), g(op, "grads", grads, &p), v(op, "square_avgs", square_avgs);
  const Arrays m(op, "grad_avgs", grad_avgs), b(op, "momentum_buffers", momentum_buffers);
  g.require_like(p);
  v.require_like(p);
  if (m.size() != 0) m.require_like(p);
  b.require_momentum(p, momentum);
  p.by_dtype([&](auto zero) {
    using T = decltype(zero);
    const ops::Gradients<T> grad = g.gradients<T>();
    const ops::ArrayList<T> param = p.checked<T>(true), square_avg = v.checked<T>(true);
    const ops::ArrayList<T> grad_avg = m.checked<T>(true), buffer = b.checked<T>(true);
    launch([=] { ops::rmsprop(param, grad, square_avg, grad_avg, buffer, {lr, alpha, eps, weight_decay, momentum}); });
  });
}

void adagrad(const py::sequence& params, const py::sequence& grads, const py::sequence& sums, int64_t step, double lr,
             double lr_decay, double eps, double weight_decay) {
  constexpr const char* op = "adagrad_";
  if (step < 1) throw_value(op, "step is " + std::to_string(step) + ", needs at least 1");
  require_finite(op, "lr", lr);
  require_finite(op, "lr_decay", lr_decay);
  require_finite(op, "eps", eps);
  require_finite(op, "weight_decay", weight_decay);
  const Arrays p(op, "params", params), g(op, "grads", grads, &p), s(op, "sums", sums);
  g.require_like(p);
  s.require_like(p);
  p.by_dtype([&](auto zero) {
    using T = decltype(zero);
    const ops::Gradients<T> grad = g.gradients<T>();
    const ops::ArrayList<T> param = p.checked<T>(true), sum = s.checked<T>(true);
    launch([=] { ops::adagrad(param, grad, sum, {step, lr, lr_decay, eps, weight_decay}); });
  });
}

void adadelta(const py::sequence& params, const py::sequence& grads, const py::sequence& square_avgs,
              const py::sequence& acc_deltas, double lr, double rho, double eps, double weight_decay) {
  constexpr const char* op = "adadelta_";
  require_finite(op, "lr", lr);
  require_decay(op, "rho", rho);
  require_finite(op, "eps", eps);
  require_finite(op, "weight_decay", weight_decay);
  const Arrays p(op, "params", params), g(op, "grads", grads, &p);
  const Arrays v(op, "square_avgs", square_avgs), u(op, "acc_deltas", acc_deltas);
  g.require_like(p);
  v.require_like(p);
  u.require_like(p);
  p.by_dtype([&](auto zero) {
    using T = decltype(zero);
    const ops::Gradients<T> grad = g.gradients<T>();
    const ops::ArrayList<T> param = p.checked<T>(true);
    const ops::ArrayList<T> square_avg = v.checked<T>(true), acc_delta = u.checked<T>(true);
    launch([=] { ops::adadelta(param, grad, square_avg, acc_delta, {lr, rho, eps, weight_decay}); });
  });
}

double l2_norm(const py::sequence& arrays) {
  const Arrays a("l2_norm", "arrays", arrays);
  return a.by_dtype([&](auto zero) {
    const auto list = a.checked<decltype(zero)>(false);
    const Computing scope;
    return ops::l2_norm(list);
  });
}

// As l2_norm and scale_ by max_norm / norm, in one call that can be recorded.
py::array clip_norm(const py::sequence& arrays, double max_norm) {
  const Arrays a("clip_norm_", "arrays", arrays);
  py::array_t<double> norm = empty<double>("clip_norm_", {});
  double* norm_data = data_of(norm);
  a.by_dtype([&](auto zero) {
    const auto list = a.checked<decltype(zero)>(true);
    launch([=] {
      *norm_data = ops::l2_norm(list);
      if (*norm_data > max_norm && std::isfinite(*norm_data)) ops::scale(list, max_norm / *norm_data);
    });
  });
  return norm;
}

void scale(const py::sequence& arrays, double factor) {
  const Arrays a("scale_", "arrays", arrays);
  a.by_dtype([&](auto zero) {
    const auto list = a.checked<decltype(zero)>(true);
    launch([=] { ops::scale(list, factor); });
  });
}

void require_finite_elements(const py::sequence& arrays, const std::string& what) {
  const Arrays a("require_finite", "arrays", arrays);
  a.by_dtype([&](auto zero) {
    const auto list = a.checked<decltype(zero)>(false);
    launch([=] {
      if (ops::all_finite(list)) return;
      const bool one = list.data.size() == 1 && list.sizes[0] == 1;
      const double value = one ? static_cast<double>(list.data[0][0]) : 0.0;
      throw FloatingPointError(what + (!one                ? " is not finite"
                                       : std::isnan(value) ? " is nan"
                                       : value > 0         ? " is inf"
                                                           : " is -inf"));
    });
  });
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("sgd_", sgd, py::arg("params"), py::arg("grads"), py::arg("momentum_buffers"), py::arg("lr"),
        py::arg("momentum"), py::arg("dampening"), py::arg("weight_decay"), py::arg("nesterov"), py::arg("first"));
  m.def("adam_", adam, py::arg("params"), py::arg("grads"), py::arg("exp_avgs"), py::arg("exp_avg_sqs"),
        py::arg("step"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("decoupled"));
  m.def("rmsprop_", rmsprop, py::arg("params"), py::arg("grads"), py::arg("square_avgs"), py::arg("grad_avgs"),
        py::arg("momentum_buffers"), py::arg("lr"), py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("momentum"));
  m.def("adagrad_", adagrad, py::arg("params"), py::arg("grads"), py::arg("sums"), py::arg("step"), py::arg("lr"),
        py::arg("lr_decay"), py::arg("eps"), py::arg("weight_decay"));
  m.def("adadelta_", adadelta, py::arg("params"), py::arg("grads"), py::arg("square_avgs"), py::arg("acc_deltas"),
        py::arg("lr"), py::arg("rho"), py::arg("eps"), py::arg("weight_decay"));
  m.def("l2_norm", l2_norm, py::arg("arrays"));
  m.def("clip_norm_", clip_norm, py::arg("arrays"), py::arg("max_norm"));
  m.def("scale_", scale, py::arg("arrays"), py::arg("factor"));
  m.def("require_finite", require_finite_elements, py::arg("arrays"), py::arg("what"));
}

}  // namespace pynn::bindings
