"""Operations on each element, with NumPy's broadcasting where there are two operands."""

from __future__ import annotations

import math

import numpy as np

from pynn import _core
from pynn.functional._args import Array, Gradients, Input, Operand, as_tensor, number, one_of, operands, require_floats
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = [
    "abs",
    "add",
    "clip",
    "div",
    "exp",
    "gelu",
    "leaky_relu",
    "log",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "relu",
    "sigmoid",
    "sqrt",
    "sub",
    "tanh",
    "where",
]


# -- one operand -------------------------------------------------------------------------------------------------------
def neg(x: Input) -> Tensor:
    """Return -x.

    >>> import pynn
    >>> -pynn.tensor([1.0, -2.0])
    Tensor([-1.,  2.], dtype=float32)
    """
    x = as_tensor(x)

    def backward(dy: Array) -> Gradients:
        return (_core.neg(dy),)

    return record("neg", _core.neg(x.data), (x,), backward)


def relu(x: Input) -> Tensor:
    """Return max(x, 0); NaN stays NaN, and the gradient at 0 is 0.

    >>> import pynn
    >>> pynn.functional.relu(pynn.tensor([-1.0, 2.0]))
    Tensor([0., 2.], dtype=float32)
    """
    x = as_tensor(x)
    y = _core.relu(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.relu_backward(dy, y),)

    return record("relu", y, (x,), backward, saves_output=True)


def leaky_relu(x: Input, negative_slope: float = 0.01) -> Tensor:
    """Return x where x > 0, negative_slope * x elsewhere (Maas et al. 2013).

    >>> import pynn
    >>> pynn.functional.leaky_relu(pynn.tensor([-2.0, 2.0]), 0.5)
    Tensor([-1.,  2.], dtype=float32)
    """
    x = as_tensor(x)
    value, slope = x.data, number("leaky_relu", "negative_slope", negative_slope)

    def backward(dy: Array) -> Gradients:
        return (_core.leaky_relu_backward(dy, value, slope),)

    return record("leaky_relu", _core.leaky_relu(value, slope), (x,), backward, (x,))


def sigmoid(x: Input) -> Tensor:
    """Return 1 / (1 + exp(-x)); float32 is right to 2.4 units in the last place.

    >>> import pynn
    >>> pynn.functional.sigmoid(pynn.tensor([0.0]))
    Tensor([0.5], dtype=float32)
    """
    x = as_tensor(x)
    y = _core.sigmoid(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.sigmoid_backward(dy, y),)

    return record("sigmoid", y, (x,), backward, saves_output=True)


def tanh(x: Input) -> Tensor:
    """Return the hyperbolic tangent of x; float32 is right to 1.4 units in the last place.

    >>> import pynn
    >>> pynn.functional.tanh(pynn.tensor([0.0]))
    Tensor([0.], dtype=float32)
    """
    x = as_tensor(x)
    y = _core.tanh(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.tanh_backward(dy, y),)

    return record("tanh", y, (x,), backward, saves_output=True)


def gelu(x: Input, approximate: str = "none") -> Tensor:
    """Return x * Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016).

    `approximate="tanh"` computes the paper's approximation; other words raise ValueError. In float32 both are right to
    4 units in the last place of x (of x, not of the result: it is tiny far below 0).

    >>> import pynn
    >>> pynn.functional.gelu(pynn.tensor([0.0]))
    Tensor([0.], dtype=float32)
    """
    one_of("gelu", "approximate", approximate, ("none", "tanh"))
    x = as_tensor(x)
    value, by_tanh = x.data, approximate == "tanh"

    def backward(dy: Array) -> Gradients:
        return (_core.gelu_backward(dy, value, by_tanh),)

    return record("gelu", _core.gelu(value, by_tanh), (x,), backward, (x,))


def exp(x: Input) -> Tensor:
    """Return e to the power of x; float32 is right to 1 unit in the last place.

    >>> import pynn
    >>> pynn.functional.exp(pynn.tensor([0.0]))
    Tensor([1.], dtype=float32)
    """
    x = as_tensor(x)
    y = _core.exp(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.mul(dy, y),)

    return record("exp", y, (x,), backward, saves_output=True)


def log(x: Input) -> Tensor:
    """Return the natural logarithm: -inf at 0, NaN below; float32 is right to 0.9 units in the last place.

    >>> import pynn
    >>> pynn.functional.log(pynn.tensor([1.0]))
    Tensor([0.], dtype=float32)
    """
    x = as_tensor(x)
    value = x.data

    def backward(dy: Array) -> Gradients:
        return (_core.div(dy, value),)

    return record("log", _core.log(value), (x,), backward, (x,))


def sqrt(x: Input) -> Tensor:
    """Return the square root; NaN below 0, and the gradient at 0 is infinite.

    >>> import pynn
    >>> pynn.functional.sqrt(pynn.tensor([4.0]))
    Tensor([2.], dtype=float32)
    """
    x = as_tensor(x)
    y = _core.sqrt(x.data)

    def backward(dy: Array) -> Gradients:
        return (_core.sqrt_backward(dy, y),)

    return record("sqrt", y, (x,), backward, saves_output=True)


def abs(x: Input) -> Tensor:
    """Return the absolute value; the gradient at 0 is 0.

    >>> import pynn
    >>> pynn.functional.abs(pynn.tensor([-3.0]))
    Tensor([3.], dtype=float32)
    """
    x = as_tensor(x)
    value = x.data

    def backward(dy: Array) -> Gradients:
        return (_core.abs_backward(dy, value),)

    return record("abs", _core.abs(value), (x,), backward, (x,))


def clip(x: Input, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x limited to low … high, NaN if one of them is; the gradient passes where low <= x <= high.

    >>> import pynn
    >>> pynn.functional.clip(pynn.tensor([-3.0, 0.5, 3.0]), -1, 1)
    Tensor([-1. ,  0.5,  1. ], dtype=float32)
    """
    x = as_tensor(x)
    value = x.data
    lowest = -math.inf if low is None else number("clip", "low", low)
    highest = math.inf if high is None else number("clip", "high", high)

    def backward(dy: Array) -> Gradients:
        return (_core.clip_backward(dy, value, lowest, highest),)

    return record("clip", _core.clip(value, lowest, highest), (x,), backward, (x,))


# -- two operands ------------------------------------------------------------------------------------------------------
def _fit(dx: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum the gradient over the axes along which the operand was repeated."""
    return dx if dx.shape == shape else _core.sum_to(dx, shape)


def add(a: Operand, b: Operand) -> Tensor:
    """Return a + b.

    >>> import pynn
    >>> pynn.tensor([1.0, 2.0]) + 1
    Tensor([2., 3.], dtype=float32)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = operands("add", a, b)
    need_a, need_b, a_shape, b_shape = a.requires_grad, b.requires_grad, a.data.shape, b.data.shape

    def backward(dy: Array) -> Gradients:
        return _fit(dy, a_shape) if need_a else None, _fit(dy, b_shape) if need_b else None

    return record("add", _core.add(a.data, b.data), (a, b), backward)


def sub(a: Operand, b: Operand) -> Tensor:
    """Return a - b.

    >>> import pynn
    >>> 1 - pynn.tensor([1.0, 2.0])
    Tensor([ 0., -1.], dtype=float32)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = operands("sub", a, b)
    need_a, need_b, a_shape, b_shape = a.requires_grad, b.requires_grad, a.data.shape, b.data.shape

    def backward(dy: Array) -> Gradients:
        return _fit(dy, a_shape) if need_a else None, _core.neg(_fit(dy, b_shape)) if need_b else None

    return record("sub", _core.sub(a.data, b.data), (a, b), backward)


def mul(a: Operand, b: Operand) -> Tensor:
    """Return a * b, element by element.

    >>> import pynn
    >>> pynn.tensor([1.0, 2.0]) * 3
    Tensor([3., 6.], dtype=float32)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = operands("mul", a, b)
    x, y, need_a, need_b = a.data, b.data, a.requires_grad, b.requires_grad

    same_shape = x.shape == y.shape

    def backward(dy: Array) -> Gradients:
        da = _core.mul(dy, y) if need_a else None
        db = _core.mul(dy, x) if need_b else None
        if same_shape:
            return da, db
        return None if da is None else _fit(da, x.shape), None if db is None else _fit(db, y.shape)

    return record("mul", _core.mul(x, y), (a, b), backward, (a, b))


def div(a: Operand, b: Operand) -> Tensor:
    """Return a / b.

    >>> import pynn
    >>> pynn.tensor([1.0, 2.0]) / 2
    Tensor([0.5, 1. ], dtype=float32)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        a, b = operands("div", a, b)
    x, y, need_a, need_b = a.data, b.data, a.requires_grad, b.requires_grad

    def backward(dy: Array) -> Gradients:
        da = _core.div(dy, y)
        db = _fit(_core.neg(_core.mul(da, _core.div(x, y))), y.shape) if need_b else None
        return _fit(da, x.shape) if need_a else None, db

    return record("div", _core.div(x, y), (a, b), backward, (a, b))


def pow(a: Operand, b: Operand) -> Tensor:
    """Return a to the power of b; x ** 0 is 1 with gradient 0, for 0 ** 0 too.

    >>> import pynn
    >>> pynn.tensor([1.0, 3.0]) ** 2
    Tensor([1., 9.], dtype=float32)
    """
    if isinstance(a, Tensor) and isinstance(b, (int, float)):
        return _pow_number(a, b)
    a, b = operands("pow", a, b)
    x, exponent, need_a, need_b = a.data, b.data, a.requires_grad, b.requires_grad
    y = _core.pow(x, exponent)

    def backward(dy: Array) -> Gradients:
        da, db = _core.pow_backward(dy, x, exponent, y)
        return _fit(da, x.shape) if need_a else None, _fit(db, exponent.shape) if need_b else None

    return record("pow", y, (a, b), backward, (a, b), saves_output=True)


def _pow_number(a: Tensor, n: float) -> Tensor:
    """`a ** n` without the logarithms of the gradient for n."""
    require_floats("pow", "a", a)
    x = a.data
    y = _core.mul(x, x) if n == 2 else _core.pow(x, operands("pow", a, n)[1].data)

    def backward(dy: Array) -> Gradients:
        if n == 0:
            return (np.zeros_like(x),)
        slope = x if n == 2 else _core.pow(x, np.array(n - 1, x.dtype))
        return (_core.mul(dy, _core.mul(slope, np.array(n, x.dtype))),)

    return record("pow", y, (a,), backward, (a,))


def maximum(a: Operand, b: Operand) -> Tensor:
    """Return the larger of a and b, or NaN if one is NaN; the gradient of ties is halved.

    >>> import pynn
    >>> pynn.functional.maximum(pynn.tensor([1.0, 5.0]), 2)
    Tensor([2., 5.], dtype=float32)
    """
    a, b = operands("maximum", a, b)
    x, y = a.data, b.data

    def backward(dy: Array) -> Gradients:
        da, db = _core.maximum_backward(dy, x, y)
        return _fit(da, x.shape), _fit(db, y.shape)

    return record("maximum", _core.maximum(x, y), (a, b), backward, (a, b))


def minimum(a: Operand, b: Operand) -> Tensor:
    """Return the smaller of a and b, or NaN if one is NaN; the gradient of ties is halved.

    >>> import pynn
    >>> pynn.functional.minimum(pynn.tensor([1.0, 5.0]), 2)
    Tensor([1., 2.], dtype=float32)
    """
    a, b = operands("minimum", a, b)
    x, y = a.data, b.data

    def backward(dy: Array) -> Gradients:
        da, db = _core.minimum_backward(dy, x, y)
        return _fit(da, x.shape), _fit(db, y.shape)

    return record("minimum", _core.minimum(x, y), (a, b), backward, (a, b))


def where(condition: Input, a: Operand, b: Operand) -> Tensor:
    """Return a where `condition` (bool) is true, b elsewhere.

    >>> import pynn
    >>> x = pynn.tensor([-1.0, 4.0])
    >>> pynn.functional.where(x > 0, x, 0.0)
    Tensor([0., 4.], dtype=float32)
    """
    a, b = operands("where", a, b)
    mask = as_tensor(condition)
    if mask.data.dtype != np.bool_:
        raise TypeError(f"where: condition must be bool, got {mask.data.dtype}")
    chosen, a_shape, b_shape = mask.data, a.data.shape, b.data.shape

    def backward(dy: Array) -> Gradients:
        da, db = _core.where_backward(dy, chosen)
        return _fit(da, a_shape), _fit(db, b_shape)

    return record("where", _core.where(chosen, a.data, b.data), (a, b), backward, (mask,))
