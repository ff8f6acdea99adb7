"""matmul and linear."""

import math

from oracle.elementwise import (
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from oracle.like import like


def matmul(a, b, transpose_a=False, transpose_b=False):
    a = a.swapaxes(-1, -2) if transpose_a else a
    b = b.swapaxes(-1, -2) if transpose_b else b
    return like(a @ b, a)


_activate = {
    "none": lambda x: x,
    "relu": relu,
    "leaky_relu": lambda x: leaky_relu(x, 0.01),
    "sigmoid": sigmoid,
    "tanh": tanh,
}
# leaky_relu keeps the sign of its argument, so y may stand in for x.
_activate_backward = {
    "none": lambda dy, y: dy,
    "relu": relu_backward,
    "leaky_relu": lambda dy, y: leaky_relu_backward(dy, y, 0.01),
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
}


def linear(x, weight, bias, activation="none", trained=True):
    y = x @ weight.T if bias is None else x @ weight.T + bias
    return like(_activate[activation](like(y, x)), x)


def linear_backward(dy, y, x, weight, activation, need_dx, need_dweight, need_dbias):
    dz = _activate_backward[activation](dy, y)
    count = math.prod(x.shape[:-1])
    rows = dz.reshape(count, weight.shape[0])  # [rows, out]
    dx = like(dz @ weight, x) if need_dx else None
    dweight = like(rows.T @ x.reshape(count, weight.shape[1]), x) if need_dweight else None
    dbias = like(rows.sum(axis=0), x) if need_dbias else None
    return dx, dweight, dbias
