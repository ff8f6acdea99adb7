#include "ops/norm.h"

#include <pybind11/stl.h>

#include <cmath>
#include <string>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

using Optional = std::optional<py::array>;

void require_together(const char* op, const char* a_name, const Optional& a, const char* b_name, const Optional& b) {
  if (a.has_value() != b.has_value()) {
    throw_value(op, std::string(a_name) + " and " + b_name + " must both be given or both be None");
  }
}

void require_eps(const char* op, double eps) {
  if (!(eps >= 0 && std::isfinite(eps))) {
    throw_value(op, "eps is " + number_text(eps) + ", needs a finite number of at least 0");
  }
}

// x [N, C, ...] as [N, C, L]
ops::BatchNormSizes batch_norm_sizes(const char* op, const Shape& x) {
  if (x.size() < 2) throw_value(op, "x " + to_string(x) + " needs at least 2 axes, [N, C, ...]");
  ops::BatchNormSizes sizes{x[0], x[1], 1};
  for (size_t i = 2; i < x.size(); ++i) sizes.length *= x[i];
  return sizes;
}

py::tuple batch_norm(const py::array& x_array, const Optional& weight_array, const Optional& bias_array,
                     const Optional& running_mean_array, const Optional& running_var_array, bool training,
                     double momentum, double eps) {
  constexpr const char* op = "batch_norm";
  return by_dtype(op, "x", x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array);
    const ops::BatchNormSizes sizes = batch_norm_sizes(op, x.shape);
    const Shape channels{sizes.channels};
    require_together(op, "weight", weight_array, "bias", bias_array);
    require_together(op, "running_mean", running_mean_array, "running_var", running_var_array);
    const T* weight = optional_data<T>(op, "weight", weight_array, channels);
    const T* bias = optional_data<T>(op, "bias", bias_array, channels);
    T* running_mean = const_cast<T*>(optional_data<T>(op, "running_mean", running_mean_array, channels));
    T* running_var = const_cast<T*>(optional_data<T>(op, "running_var", running_var_array, channels));
    if (training) {
      if (running_mean_array) require_writeable(op, "running_mean", *running_mean_array);
      if (running_var_array) require_writeable(op, "running_var", *running_var_array);
      if (sizes.channels > 0 && sizes.count() <= 1) {
        throw_value(op, "x " + to_string(x.shape) + " has " + std::to_string(sizes.count()) +
                            " values per channel, training needs more than 1");
      }
    } else if (!running_mean_array) {
      throw_value(op, "running_mean is None, needed unless training");
    }
    if (!std::isfinite(momentum)) throw_value(op, "momentum is " + number_text(momentum) + ", needs a finite number");
    require_eps(op, eps);
    py::array_t<T> y = empty<T>(op, x.shape), mean = empty<T>(op, channels), rstd = empty<T>(op, channels);
    T *y_data = data_of(y), *mean_data = data_of(mean), *rstd_data = data_of(rstd);
    launch([=, x = x.data] {
      ops::batch_norm(y_data, mean_data, rstd_data, x, weight, bias, running_mean, running_var, training, momentum, eps,
                      sizes);
    });
    return py::make_tuple(y, mean, rstd);
  });
}

py::tuple batch_norm_backward(const py::array& dy_array, const py::array& x_array, const Optional& weight_array,
                              const py::array& mean_array, const py::array& rstd_array, bool training) {
  constexpr const char* op = "batch_norm_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), x = view<T>(op, "x", x_array);
    const View<T> mean = view<T>(op, "mean", mean_array), rstd = view<T>(op, "rstd", rstd_array);
    const ops::BatchNormSizes sizes = batch_norm_sizes(op, x.shape);
    const Shape channels{sizes.channels};
    const T* weight = optional_data<T>(op, "weight", weight_array, channels);
    require_shape(op, "dy", dy.shape, x.shape);
    require_shape(op, "mean", mean.shape, channels);
    require_shape(op, "rstd", rstd.shape, channels);
    py::array_t<T> dx = empty<T>(op, x.shape), dweight = empty<T>(op, channels), dbias = empty<T>(op, channels);
    T *dx_data = data_of(dx), *dweight_data = data_of(dweight), *dbias_data = data_of(dbias);
    launch([=, dy = dy.data, x = x.data, mean = mean.data, rstd = rstd.data] {
      ops::batch_norm_backward(dx_data, dweight_data, dbias_data, dy, x, weight, mean, rstd, training, sizes);
    });
    return py::make_tuple(dx, dweight, dbias);
  });
}

struct LayerNormSizes {
  Shape rows;  // of mean and rstd
  int64_t row_count, cols;
};

LayerNormSizes layer_norm_sizes(const char* op, const Shape& x) {
  if (x.empty()) throw_value(op, "x [] needs at least 1 axis, [..., D]");
  const Shape rows(x.begin(), x.end() - 1);
  return {rows, checked_size(op, rows), x.back()};
}

py::tuple layer_norm(const py::array& x_array, const Optional& weight_array, const Optional& bias_array, double eps) {
  constexpr const char* op = "layer_norm";
  return by_dtype(op, "x", x_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> x = view<T>(op, "x", x_array);
    const LayerNormSizes sizes = layer_norm_sizes(op, x.shape);
    require_together(op, "weight", weight_array, "bias", bias_array);
    const T* weight = optional_data<T>(op, "weight", weight_array, {sizes.cols});
    const T* bias = optional_data<T>(op, "bias", bias_array, {sizes.cols});
    require_eps(op, eps);
    py::array_t<T> y = empty<T>(op, x.shape), mean = empty<T>(op, sizes.rows), rstd = empty<T>(op, sizes.rows);
    T *y_data = data_of(y), *mean_data = data_of(mean), *rstd_data = data_of(rstd);
    launch([=, x = x.data] {
      ops::layer_norm(y_data, mean_data, rstd_data, x, weight, bias, eps, sizes.row_count, sizes.cols);
    });
    return py::make_tuple(y, mean, rstd);
  });
}

py::tuple layer_norm_backward(const py::array& dy_array, const py::array& x_array, const Optional& weight_array,
                              const py::array& mean_array, const py::array& rstd_array) {
  constexpr const char* op = "layer_norm_backward";
  return by_dtype(op, "dy", dy_array, [&](auto zero) -> py::tuple {
    using T = decltype(zero);
    const View<T> dy = view<T>(op, "dy", dy_array), x = view<T>(op, "x", x_array);
    const View<T> mean = view<T>(op, "mean", mean_array), rstd = view<T>(op, "rstd", rstd_array);
    const LayerNormSizes sizes = layer_norm_sizes(op, x.shape);
    const Shape features{sizes.cols};
    const T* weight = optional_data<T>(op, "weight", weight_array, features);
    require_shape(op, "dy", dy.shape, x.shape);
    require_shape(op, "mean", mean.shape, sizes.rows);
    require_shape(op, "rstd", rstd.shape, sizes.rows);
    py::array_t<T> dx = empty<T>(op, x.shape), dweight = empty<T>(op, features), dbias = empty<T>(op, features);
    T *dx_data = data_of(dx), *dweight_data = data_of(dweight), *dbias_data = data_of(dbias);
    launch([=, dy = dy.data, x = x.data, mean = mean.data, rstd = rstd.data] {
      ops::layer_norm_backward(dx_data, dweight_data, dbias_data, dy, x, weight, mean, rstd, sizes.row_count,
                               sizes.cols);
    });
    return py::make_tuple(dx, dweight, dbias);
  });
}

}  // namespace

void bind_norm(py::module_& m) {
  m.def("batch_norm", batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("running_mean"),
        py::arg("running_var"), py::arg("training"), py::arg("momentum"), py::arg("eps"));
  m.def("batch_norm_backward", batch_norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("mean"),
        py::arg("rstd"), py::arg("training"));
  m.def("layer_norm", layer_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("eps"));
  m.def("layer_norm_backward", layer_norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("mean"),
        py::arg("rstd"));
}

}  // namespace pynn::bindings
