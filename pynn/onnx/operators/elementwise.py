"""Operators on each element, with broadcasting where there are several operands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pynn import functional as F
from pynn.onnx.operators.registry import (
    NONE,
    NUMPY,
    OPERATORS,
    Array,
    Node,
    Value,
    array,
    is_dynamic,
    operator,
)
from pynn.tape import _record as record
from pynn.tensor import Tensor


# -- one operand -------------------------------------------------------------------------------------------------------
def _unary(name: str, f: Callable[..., Tensor], g: Callable[[Array], Any] | None = None) -> None:
    def run(x: Value) -> Value:
        return f(x) if g is None or is_dynamic(x) else g(array(x))

    operator(name)(run)


_unary("Relu", F.relu, lambda x: np.maximum(x, 0))
_unary("Sigmoid", F.sigmoid)
_unary("Tanh", F.tanh)
_unary("Exp", F.exp, np.exp)
_unary("Log", F.log, np.log)
_unary("Sqrt", F.sqrt, np.sqrt)
_unary("Abs", F.abs, np.abs)
_unary("Neg", F.neg, np.negative)
_unary("Softsign", lambda x: F.div(x, F.abs(x) + 1))
_unary("Mish", lambda x: F.mul(x, F.tanh(F.softplus(x))))
_unary("HardSwish", lambda x: F.mul(x, F.clip(F.mul(x, 1 / 6) + 0.5, 0, 1)))
_unary("Reciprocal", lambda x: F.div(1.0, x), lambda x: 1 / x)


@operator("Identity", weights=(0,))
def identity(x: Value) -> Value:
    return x


@operator("LeakyRelu")
def leaky_relu(x: Value, *, alpha: float = 0.01) -> Value:
    return F.leaky_relu(x, alpha)


@operator("PRelu", weights=(1,))
def prelu(x: Value, slope: Value) -> Value:
    if not is_dynamic(x, slope):
        return np.asarray(np.where(array(x) < 0, array(x) * array(slope), array(x)))
    return F.sub(F.relu(x), F.mul(F.relu(F.neg(x)), slope))


@operator("Elu")
def elu(x: Value, *, alpha: float = 1.0) -> Value:
    return F.elu(x, alpha)


@operator("Celu")
def celu(x: Value, *, alpha: float = 1.0) -> Value:
    return F.mul(F.elu(F.div(x, alpha)), alpha)


@operator("Selu")
def selu(x: Value, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Value:
    return F.mul(F.elu(x, alpha), gamma)


@operator("Softplus")
def softplus(x: Value) -> Value:
    return F.softplus(x)


@operator("Gelu")
def gelu(x: Value, *, approximate: str = "none") -> Value:
    return F.gelu(x, approximate)


@operator("Swish")
def swish(x: Value, *, alpha: float = 1.0) -> Value:
    return F.silu(x) if alpha == 1 else F.mul(x, F.sigmoid(F.mul(x, alpha)))


@operator("HardSigmoid")
def hard_sigmoid(x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return F.clip(F.add(F.mul(x, alpha), beta), 0, 1)


@operator("ThresholdedRelu", gradient=NUMPY)
def thresholded_relu(x: Value, *, alpha: float = 1.0) -> Value:
    return F.where(array(x) > alpha, x, 0.0)


@operator("Shrink", gradient=NUMPY)
def shrink(x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    value = array(x)
    moved = np.where(value > lambd, -bias, bias).astype(x.dtype)
    if not is_dynamic(x):
        return np.where(np.abs(value) > lambd, value + moved, 0).astype(x.dtype)
    return F.where(np.abs(value) > lambd, F.add(x, moved), 0.0)


# Of erf(x) / x in powers of x * x, for |x| <= 1: the Taylor series 2 / sqrt(pi) * (-1)^n / (n! * (2 n + 1)), whose
# twentieth term is below 1e-20.
_ERF = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(20)]


@operator("Erf")
def erf(x: Value) -> Value:
    """A series up to 1, and from there erf(x) = 2 Phi(sqrt(2) x) - 1 with the Phi that gelu computes."""
    near: Tensor = F.clip(x, -1, 1)
    terms = 12 if x.dtype == np.float32 else 20
    square = near * near
    sum_ = F.mul(square, _ERF[terms - 1]) + _ERF[terms - 2]
    for coefficient in _ERF[terms - 3 :: -1]:
        sum_ = sum_ * square + coefficient
    return F.mul(near, sum_) + (
        _far(x) - _far(F.neg(x))
    )  # of the two at least one is that of 1, and they cancel up to there


def _far(x: Value) -> Tensor:
    z = F.clip(x, 1, 6) * math.sqrt(2)  # erf(6) is 1 in float64
    return F.gelu(z) / z * 2


@operator("Clip")
def clip(x: Value, min: Value | float | None = None, max: Value | float | None = None) -> Value:
    if not is_dynamic(x):
        y = array(x)
        y = y if min is None else np.maximum(y, np.asarray(_plain(min), y.dtype))
        return y if max is None else np.minimum(y, np.asarray(_plain(max), y.dtype))
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        x = x if min is None else F.maximum(x, min)
        return x if max is None else F.minimum(x, max)
    low, high = (None if limit is None else np.asarray(limit).item() for limit in (min, max))  # of [1], too
    if low is not None and high is not None and low > high:  # the upper limit wins
        low = high
    return F.clip(x, low, high)


def _plain(x: Value | float) -> Any:
    return array(x) if isinstance(x, (Tensor, np.ndarray)) else x


# -- several operands --------------------------------------------------------------------------------------------------
def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = a // b
    if a.dtype.kind == "i":  # towards 0, where NumPy goes down
        quotient = quotient + ((a % b != 0) & ((a < 0) != (b < 0)))
    return np.asarray(quotient, a.dtype)


def _binary(name: str, f: Callable[[Any, Any], Tensor], g: Callable[[Array, Array], Array]) -> None:
    def run(a: Value, b: Value) -> Value:
        return f(a, b) if is_dynamic(a, b) else g(array(a), array(b))

    operator(name, weights=(0, 1))(run)


_binary("Add", F.add, np.add)
_binary("Sub", F.sub, np.subtract)
_binary("Mul", F.mul, np.multiply)
_binary("Div", F.div, _divide)


@operator("Pow")
def power(a: Value, b: Value) -> Value:
    if not is_dynamic(a, b) or a.dtype.kind != "f":  # the result has the dtype of the base
        return np.asarray(np.power(array(a), array(b)), a.dtype)
    if isinstance(b, np.ndarray) and b.ndim == 0:
        return F.pow(a, float(b))
    if b.dtype != a.dtype:
        b = array(b).astype(a.dtype)
    return F.pow(a, b)


def _variadic(name: str, f: Callable[[Any, Any], Tensor], g: Callable[[Array, Array], Array]) -> None:
    def run(*values: Value) -> Value:
        return functools.reduce(lambda a, b: f(a, b) if is_dynamic(a, b) else g(array(a), array(b)), values)

    operator(name)(run)


_variadic("Max", F.maximum, np.maximum)
_variadic("Min", F.minimum, np.minimum)
_variadic("Sum", F.add, np.add)


@operator("Mean")
def mean(*values: Value) -> Value:
    return F.div(OPERATORS["Sum"].function(*values), float(len(values)))


@operator("Where")
def where(condition: Value, a: Value, b: Value) -> Value:
    if is_dynamic(a, b) or (isinstance(condition, Tensor) and a.dtype.kind == "f"):
        return F.where(condition, a, b)
    return np.asarray(np.where(array(condition), array(a), array(b)))


@operator("Mod", gradient=NUMPY)
def mod(a: Value, b: Value, *, fmod: int = 0) -> Value:
    x, divisor = array(a), array(b)
    y = np.asarray(np.fmod(x, divisor) if fmod else np.mod(x, divisor))
    if not is_dynamic(a, b):
        return y

    def backward(dy: Array) -> tuple[Array, Array]:
        return _sum_to(dy, x), _sum_to(np.rint((y - x) / divisor) * dy, divisor)

    parents = [v if isinstance(v, Tensor) else Tensor(v) for v in (a, b)]
    return record("mod", y, parents, backward, parents, saves_output=True)


def _sum_to(dy: Array, x: Array) -> Array:
    """Undo broadcasting."""
    repeated = tuple(i for i, n in enumerate((1,) * (dy.ndim - x.ndim) + x.shape) if n == 1)
    return np.array(dy.sum(repeated).reshape(x.shape))


# -- computed by NumPy -------------------------------------------------------------------------------------------------
def _smooth(name: str, f: Callable[[Array], Array], slope: Callable[[Array], Array]) -> None:
    """A function that pynn has no kernel for."""

    def run(x: Value) -> Value:
        value = array(x)
        y = np.asarray(f(value))
        if not is_dynamic(x):
            return y
        return record(name.lower(), y, (x,), lambda dy: (np.asarray(dy * slope(value)),), (x,))  # type: ignore[arg-type]

    operator(name, gradient=NUMPY)(run)


_smooth("Sin", np.sin, np.cos)
_smooth("Cos", np.cos, lambda x: -np.sin(x))
_smooth("Tan", np.tan, lambda x: 1 + np.tan(x) ** 2)
_smooth("Asin", np.arcsin, lambda x: 1 / np.sqrt(1 - x * x))
_smooth("Acos", np.arccos, lambda x: -1 / np.sqrt(1 - x * x))
_smooth("Atan", np.arctan, lambda x: 1 / (1 + x * x))
_smooth("Sinh", np.sinh, np.cosh)
_smooth("Cosh", np.cosh, np.sinh)
_smooth("Asinh", np.arcsinh, lambda x: 1 / np.sqrt(x * x + 1))
_smooth("Acosh", np.arccosh, lambda x: 1 / np.sqrt(x * x - 1))
_smooth("Atanh", np.arctanh, lambda x: 1 / (1 - x * x))


def _by_numpy(name: str, f: Callable[..., Array]) -> None:
    """A function without a gradient, or with one that is 0."""

    def run(*values: Value) -> Value:
        return np.asarray(f(*map(array, values)))

    operator(name, gradient=NONE)(run)


for _name, _function in {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sign": np.sign,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "IsNaN": np.isnan,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "BitwiseNot": np.bitwise_not,
}.items():
    _by_numpy(_name, _function)


@operator("IsInf", gradient=NONE)
def is_inf(x: Value, *, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    value = array(x)
    return np.isinf(value) & np.where(value < 0, bool(detect_negative), bool(detect_positive))


@operator("BitShift", gradient=NONE)
def bit_shift(a: Value, b: Value, *, direction: str) -> Value:
    return np.asarray((np.left_shift if direction == "LEFT" else np.right_shift)(array(a), array(b)))


@operator("Dropout")
def dropout(
    x: Value, ratio: Value | float = 0.5, training_mode: Value | None = None, *, node: Node, seed: int = 0
) -> Value | tuple[Value, Value]:
    """The identity, unless the graph itself says that it is trained."""
    p = float(array(ratio)) if not isinstance(ratio, float) else ratio
    training = training_mode is not None and bool(array(training_mode))
    y = F.dropout(x, p, training) if is_dynamic(x) else x
    if not node.has_output(1):
        return y
    if training and p > 0:
        raise NotImplementedError("the mask of what was dropped is not kept")
    return y, np.ones(x.shape, np.bool_)
