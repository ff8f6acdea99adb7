#include "bindings/elements.h"
#include "runtime/dispatch.h"

namespace pynn::bindings {
namespace {

template <class T>
using Unary = typename ElementwiseKernels<T>::Unary ElementwiseKernels<T>::*;
template <class T>
using UnaryBackward = typename ElementwiseKernels<T>::UnaryBackward ElementwiseKernels<T>::*;

// y = kernel(x); kernel(y, x, n) works on a range
template <class T, class Kernel>
py::array apply(const char* op, const py::array& x_array, const Kernel& kernel) {
  const View<T> x = view<T>(op, "x", x_array);
  py::array_t<T> y = empty<T>(op, x.shape);
  T* y_data = data_of(y);
  launch_elements<T, 2>(op, x.size, {y_data, const_cast<T*>(x.data)},
                        [kernel](const auto& at, int64_t n) { kernel(at[0], at[1], n); });
  return y;
}

// dx = kernel(dy, kept), where kept is the forward's x or y
template <class T, class Kernel>
py::array apply_backward(const char* op, const char* kept_name, const py::array& dy_array, const py::array& kept_array,
                         const Kernel& kernel) {
  const View<T> dy = view<T>(op, "dy", dy_array), kept = view<T>(op, kept_name, kept_array);
  require_shape(op, "dy", dy.shape, kept.shape);
  py::array_t<T> dx = empty<T>(op, dy.shape);
  T* dx_data = data_of(dx);
  launch_elements<T, 3>(op, dy.size, {dx_data, const_cast<T*>(dy.data), const_cast<T*>(kept.data)},
                        [kernel](const auto& at, int64_t n) { kernel(at[0], at[1], at[2], n); });
  return dx;
}

py::array unary(const char* op, const py::array& x, Unary<float> f32, Unary<double> f64) {
  return by_dtype(op, "x", x, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 4) {
      return apply<T>(op, x, kernels<T>().elementwise.*f32);
    } else {
      return apply<T>(op, x, kernels<T>().elementwise.*f64);
    }
  });
}

py::array unary_backward(const char* op, const char* kept_name, const py::array& dy, const py::array& kept,
                         UnaryBackward<float> f32, UnaryBackward<double> f64) {
  return by_dtype(op, "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) == 4) {
      return apply_backward<T>(op, kept_name, dy, kept, kernels<T>().elementwise.*f32);
    } else {
      return apply_backward<T>(op, kept_name, dy, kept, kernels<T>().elementwise.*f64);
    }
  });
}

py::array leaky_relu(const py::array& x, double negative_slope) {
  return by_dtype("leaky_relu", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply<T>("leaky_relu", x, [slope = T(negative_slope)](T* y, const T* v, int64_t n) {
      kernels<T>().elementwise.leaky_relu(y, v, slope, n);
    });
  });
}

py::array leaky_relu_backward(const py::array& dy, const py::array& x, double negative_slope) {
  return by_dtype("leaky_relu_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_backward<T>("leaky_relu_backward", "x", dy, x,
                             [slope = T(negative_slope)](T* dx, const T* d, const T* v, int64_t n) {
                               kernels<T>().elementwise.leaky_relu_backward(dx, d, v, slope, n);
                             });
  });
}

py::array clip(const py::array& x, double low, double high) {
  return by_dtype("clip", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply<T>("clip", x,
                    [=](T* y, const T* v, int64_t n) { kernels<T>().elementwise.clip(y, v, T(low), T(high), n); });
  });
}

py::array clip_backward(const py::array& dy, const py::array& x, double low, double high) {
  return by_dtype("clip_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_backward<T>("clip_backward", "x", dy, x, [=](T* dx, const T* d, const T* v, int64_t n) {
      kernels<T>().elementwise.clip_backward(dx, d, v, T(low), T(high), n);
    });
  });
}

py::array elu(const py::array& x, double alpha) {
  return by_dtype("elu", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply<T>("elu", x, [=](T* y, const T* v, int64_t n) { kernels<T>().elementwise.elu(y, v, T(alpha), n); });
  });
}

py::array elu_backward(const py::array& dy, const py::array& x, double alpha) {
  return by_dtype("elu_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_backward<T>("elu_backward", "x", dy, x, [=](T* dx, const T* d, const T* v, int64_t n) {
      kernels<T>().elementwise.elu_backward(dx, d, v, T(alpha), n);
    });
  });
}

py::array softplus(const py::array& x, double beta, double threshold) {
  return by_dtype("softplus", "x", x, [&](auto zero) {
    using T = decltype(zero);
    return apply<T>("softplus", x, [=](T* y, const T* v, int64_t n) {
      kernels<T>().elementwise.softplus(y, v, T(beta), T(threshold), n);
    });
  });
}

py::array softplus_backward(const py::array& dy, const py::array& x, double beta, double threshold) {
  return by_dtype("softplus_backward", "dy", dy, [&](auto zero) {
    using T = decltype(zero);
    return apply_backward<T>("softplus_backward", "x", dy, x, [=](T* dx, const T* d, const T* v, int64_t n) {
      kernels<T>().elementwise.softplus_backward(dx, d, v, T(beta), T(threshold), n);
    });
  });
}

py::array gelu(const py::array& x, bool approximate) {
  return approximate ? unary("gelu", x, &ElementwiseKernels<float>::gelu_tanh, &ElementwiseKernels<double>::gelu_tanh)
                     : unary("gelu", x, &ElementwiseKernels<float>::gelu, &ElementwiseKernels<double>::gelu);
}

py::array gelu_backward(const py::array& dy, const py::array& x, bool approximate) {
  using F = ElementwiseKernels<float>;
  using D = ElementwiseKernels<double>;
  return approximate ? unary_backward("gelu_backward", "x", dy, x, &F::gelu_tanh_backward, &D::gelu_tanh_backward)
                     : unary_backward("gelu_backward", "x", dy, x, &F::gelu_backward, &D::gelu_backward);
}

}  // namespace

#define PYNN_UNARY(name)                                                                             \
  m.def(                                                                                             \
      #name,                                                                                         \
      [](const py::array& x) {                                                                       \
        return unary(#name, x, &ElementwiseKernels<float>::name, &ElementwiseKernels<double>::name); \
      },                                                                                             \
      py::arg("x"))
#define PYNN_UNARY_BACKWARD(name, kept)                                                 \
  m.def(                                                                                \
      #name,                                                                            \
      [](const py::array& dy, const py::array& kept) {                                  \
        return unary_backward(#name, #kept, dy, kept, &ElementwiseKernels<float>::name, \
                              &ElementwiseKernels<double>::name);                       \
      },                                                                                \
      py::arg("dy"), py::arg(#kept))

void bind_elementwise(py::module_& m) {
  PYNN_UNARY(neg);
  PYNN_UNARY(relu);
  PYNN_UNARY_BACKWARD(relu_backward, y);
  m.def("leaky_relu", leaky_relu, py::arg("x"), py::arg("negative_slope"));
  m.def("leaky_relu_backward", leaky_relu_backward, py::arg("dy"), py::arg("x"), py::arg("negative_slope"));
  PYNN_UNARY(sigmoid);
  PYNN_UNARY_BACKWARD(sigmoid_backward, y);
  PYNN_UNARY(tanh);
  PYNN_UNARY_BACKWARD(tanh_backward, y);
  m.def("gelu", gelu, py::arg("x"), py::arg("approximate"));
  m.def("gelu_backward", gelu_backward, py::arg("dy"), py::arg("x"), py::arg("approximate"));
  PYNN_UNARY(silu);
  PYNN_UNARY_BACKWARD(silu_backward, x);
  m.def("elu", elu, py::arg("x"), py::arg("alpha"));
  m.def("elu_backward", elu_backward, py::arg("dy"), py::arg("x"), py::arg("alpha"));
  m.def("softplus", softplus, py::arg("x"), py::arg("beta"), py::arg("threshold"));
  m.def("softplus_backward", softplus_backward, py::arg("dy"), py::arg("x"), py::arg("beta"), py::arg("threshold"));
  PYNN_UNARY(exp);
  PYNN_UNARY(log);
  PYNN_UNARY(sqrt);
  PYNN_UNARY_BACKWARD(sqrt_backward, y);
  PYNN_UNARY(abs);
  PYNN_UNARY_BACKWARD(abs_backward, x);
  m.def("clip", clip, py::arg("x"), py::arg("low"), py::arg("high"));
  m.def("clip_backward", clip_backward, py::arg("dy"), py::arg("x"), py::arg("low"), py::arg("high"));
}

}  // namespace pynn::bindings
