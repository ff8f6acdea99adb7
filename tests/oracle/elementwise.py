"""Elementwise operations. NaN in gives NaN out, in relu, clip, maximum and minimum too."""

import math

import numpy as np

from oracle.like import like


def neg(x):
    return like(-x, x)


def relu(x):
    return like(np.maximum(x, 0), x)


def relu_backward(dy, y):
    return like(np.where(y <= 0, 0, dy), dy)


def leaky_relu(x, negative_slope):
    return like(np.where(x > 0, x, x * negative_slope), x)


def leaky_relu_backward(dy, x, negative_slope):
    return like(np.where(x > 0, dy, dy * negative_slope), dy)


def sigmoid(x):
    e = np.exp(-np.abs(x))  # never overflows
    return like(np.where(x < 0, e, 1) / (1 + e), x)


def sigmoid_backward(dy, y):
    return like(dy * y * (1 - y), dy)


def tanh(x):
    return like(np.tanh(x), x)


def tanh_backward(dy, y):
    return like(dy * (1 - y * y), dy)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def gelu(x, approximate):
    if approximate:
        return like(x * sigmoid(2 * _TANH_SCALE * (x + _TANH_CUBE * x**3)), x)  # 1 + tanh(u) = 2 sigmoid(2u)
    return like(0.5 * x * _erfc(-x / math.sqrt(2)), x)


def gelu_backward(dy, x, approximate):
    if approximate:
        s = sigmoid(2 * _TANH_SCALE * (x + _TANH_CUBE * x**3))
        return like(dy * (s + x * s * (1 - s) * 2 * _TANH_SCALE * (1 + 3 * _TANH_CUBE * x**2)), dy)
    cdf, pdf = 0.5 * _erfc(-x / math.sqrt(2)), np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return like(dy * (cdf + x * pdf), dy)


def silu(x):
    return like(x * sigmoid(x), x)


def silu_backward(dy, x):
    s = sigmoid(x)
    return like(dy * s * (1 + x * (1 - s)), dy)


def elu(x, alpha):
    return like(np.where(x > 0, x, alpha * np.expm1(x)), x)


def elu_backward(dy, x, alpha):
    return like(np.where(x > 0, dy, dy * alpha * np.exp(x)), dy)


def softplus(x, beta, threshold):
    z = beta * x
    return like(np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta), x)


def softplus_backward(dy, x, beta, threshold):
    return like(np.where(beta * x > threshold, dy, dy * sigmoid(beta * x)), dy)


def exp(x):
    return like(np.exp(x), x)


def log(x):
    return like(np.log(x), x)


def sqrt(x):
    return like(np.sqrt(x), x)


def sqrt_backward(dy, y):
    return like(dy / (2 * y), dy)


def abs(x):
    return like(np.abs(x), x)


def abs_backward(dy, x):
    return like(dy * np.sign(x), dy)


def clip(x, low, high):
    return like(np.minimum(np.maximum(x, low), high), x)


def clip_backward(dy, x, low, high):
    return like(np.where((x >= low) & (x <= high), dy, 0), dy)


def add(a, b):
    return like(a + b, a)


def sub(a, b):
    return like(a - b, a)


def mul(a, b):
    return like(a * b, a)


def div(a, b):
    return like(a / b, a)


def pow(a, b):
    return like(np.power(a, b), a)


def maximum(a, b):
    return like(np.maximum(a, b), a)


def minimum(a, b):
    return like(np.minimum(a, b), a)


def where(condition, a, b):
    return like(np.where(condition, a, b), a)


def pow_backward(dy, a, b, y):
    # 0 * inf must not appear: d(a^0)/da = 0, and 0^b is constant in b >= 0.
    da = np.where(b == 0, 0, dy * b * np.power(a, b - 1))
    db = np.where((a == 0) & (b >= 0), 0, dy * y * np.log(a))
    return like(da, dy), like(db, dy)


def maximum_backward(dy, a, b):
    da = np.where(a > b, dy, np.where(a == b, dy / 2, 0))
    return like(da, dy), like(dy - da, dy)


def minimum_backward(dy, a, b):
    da = np.where(a < b, dy, np.where(a == b, dy / 2, 0))
    return like(da, dy), like(dy - da, dy)


def where_backward(dy, condition):
    return like(np.where(condition, dy, 0), dy), like(np.where(condition, 0, dy), dy)
