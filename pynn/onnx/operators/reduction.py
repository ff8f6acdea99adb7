"""Reductions over axes, and what else looks along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pynn import functional as F
from pynn.grad_mode import no_grad
from pynn.onnx.operators.registry import (
    NONE,
    NUMPY,
    Array,
    Value,
    array,
    axis_of,
    integers,
    is_dynamic,
    operator,
    reshape,
)
from pynn.tape import _record as record
from pynn.tensor import Tensor

Axes = tuple[int, ...]


def _reduction(
    name: str,
    f: Callable[[Value, Axes, bool], Tensor],
    g: Callable[[Array, Axes, bool], Any],
    empty: float | None = None,
    gradient: str = "yes",
) -> None:
    """`f` computes floats, `g` the rest; `empty` is the result over nothing where `f` has none."""

    def run(
        x: Value, axes: Value | Sequence[int] | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Value:
        given = [] if axes is None else integers(axes)
        if not given and noop_with_empty_axes:
            over: Axes = ()
        else:
            over = tuple(sorted(axis_of(i, x.ndim) for i in given)) or tuple(range(x.ndim))
        if empty is not None and math.prod([x.shape[i] for i in over]) == 0:
            kept = np.zeros(x.shape).sum(over, keepdims=bool(keepdims))
            if x.dtype.kind == "f":
                return np.full(kept.shape, empty, x.dtype)
            limits = (False, True) if x.dtype.kind == "b" else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
            return np.full(kept.shape, limits[empty > 0], x.dtype)
        if is_dynamic(x):
            return f(x, over, bool(keepdims))
        return np.asarray(g(array(x), over, bool(keepdims)), x.dtype)

    operator(name, gradient=gradient)(run)


def _l2(x: Value, axes: Axes, keepdims: bool) -> Tensor:
    return F.sqrt(F.sum(F.mul(x, x), axes, keepdims))


def _log_sum_exp(x: Value, axes: Axes, keepdims: bool) -> Tensor:
    largest = float(np.finfo(x.dtype).max)
    with no_grad():
        peak = F.clip(F.max(x, axes, True), -largest, largest)  # an infinite one would be subtracted from itself
    total = F.log(F.sum(F.exp(F.sub(x, peak)), axes, True)) + peak
    return total if keepdims else F.reshape(total, np.zeros(x.shape, np.bool_).any(axes).shape)


def _prod(x: Value, axes: Axes, keepdims: bool) -> Tensor:
    value = array(x)
    y = np.asarray(value.prod(axes, keepdims=keepdims))
    kept = value.prod(axes, keepdims=True).shape

    def backward(dy: Array) -> Sequence[Array]:
        # Each element's slope is the product of the others: of those before it and those behind it.
        rest = [i for i in range(value.ndim) if i not in axes]
        rows = value.transpose(*rest, *axes).reshape(*[value.shape[i] for i in rest], -1)
        ones = np.ones_like(rows[..., :1])
        before = np.cumprod(np.concatenate([ones, rows[..., :-1]], -1), -1)
        behind = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], -1), -1)[..., ::-1]
        slope = (before * behind).reshape([value.shape[i] for i in (*rest, *axes)])
        return (np.asarray(slope.transpose(np.argsort([*rest, *axes])) * dy.reshape(kept), order="C"),)

    return record("prod", y, (x,), backward, (x,))  # type: ignore[arg-type]


def _sum(x: Array, axes: Axes, keepdims: bool) -> Any:
    return x.sum(axes, keepdims=keepdims)


_reduction("ReduceSum", F.sum, _sum)
_reduction("ReduceMean", F.mean, lambda x, axes, keepdims: x.mean(axes, keepdims=keepdims))
_reduction("ReduceMax", F.max, lambda x, axes, keepdims: x.max(axes, keepdims=keepdims), -math.inf)
_reduction("ReduceMin", F.min, lambda x, axes, keepdims: x.min(axes, keepdims=keepdims), math.inf)
_reduction("ReduceProd", _prod, lambda x, axes, keepdims: x.prod(axes, keepdims=keepdims), gradient=NUMPY)
_reduction("ReduceL1", lambda x, axes, keepdims: F.sum(F.abs(x), axes, keepdims), lambda x, *how: _sum(abs(x), *how))
_reduction("ReduceL2", _l2, lambda x, *how: np.sqrt(_sum(x * x, *how)))
_reduction(
    "ReduceSumSquare", lambda x, axes, keepdims: F.sum(F.mul(x, x), axes, keepdims), lambda x, *how: _sum(x * x, *how)
)
_reduction(
    "ReduceLogSum", lambda x, axes, keepdims: F.log(F.sum(x, axes, keepdims)), lambda x, *how: np.log(_sum(x, *how))
)
_reduction("ReduceLogSumExp", _log_sum_exp, lambda x, *how: np.log(_sum(np.exp(x), *how)), -math.inf)


def _arg_extremum(x: Value, sign: int, axis: int, keepdims: int, select_last_index: int) -> Value:
    axis = axis_of(axis, x.ndim)
    y: Value
    if is_dynamic(x) and not select_last_index:
        y = F.argmax(x if sign > 0 else F.neg(x), axis)
    else:
        value, pick = array(x), np.argmax if sign > 0 else np.argmin
        if select_last_index:
            y = np.asarray(value.shape[axis] - 1 - pick(np.flip(value, axis), axis))
        else:
            y = np.asarray(pick(value, axis))
    return reshape(y, np.expand_dims(np.zeros(y.shape, np.bool_), axis).shape) if keepdims else y


@operator("ArgMax", gradient=NONE)
def argmax(x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    return _arg_extremum(x, 1, axis, keepdims, select_last_index)


@operator("ArgMin", gradient=NONE)
def argmin(x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Value:
    return _arg_extremum(x, -1, axis, keepdims, select_last_index)


@operator("Softmax")
def softmax(x: Value, *, axis: int = -1) -> Value:
    return F.softmax(x, axis)


@operator("LogSoftmax")
def log_softmax(x: Value, *, axis: int = -1) -> Value:
    return F.log_softmax(x, axis)


@operator("Hardmax", gradient=NONE)
def hardmax(x: Value, *, axis: int = -1) -> Value:
    value = array(x)
    y = np.zeros_like(value)
    np.put_along_axis(y, np.expand_dims(value.argmax(axis), axis), 1, axis)
    return y


@operator("LpNormalization")
def lp_normalization(x: Value, *, axis: int = -1, p: int = 2) -> Value:
    if p not in (1, 2):
        raise ValueError(f"p is {p}, needs 1 or 2")
    norm = F.sum(F.abs(x), axis, True) if p == 1 else F.sqrt(F.sum(F.mul(x, x), axis, True))
    return F.div(x, F.clip(norm, float(np.finfo(x.dtype).tiny)))  # zeros stay zeros


@operator("CumSum", gradient=NUMPY)
def cumsum(x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    value, along = array(x), axis_of(integers(axis)[0], x.ndim)

    def sums(a: Array, reverse: int) -> Array:
        a = np.flip(a, along) if reverse else a
        y = np.cumsum(a, along, dtype=a.dtype)
        if exclusive:
            y = np.roll(y, 1, along)
            y[(slice(None),) * along + (slice(1),)] = 0
        return np.array(np.flip(y, along) if reverse else y, order="C")

    result = sums(value, reverse)
    if not is_dynamic(x):
        return result
    return record("cumsum", result, (x,), lambda dy: (sums(dy, not reverse),))  # type: ignore[arg-type]


# -- products ----------------------------------------------------------------------------------------------------------
@operator("MatMul", weights=(0, 1))
def matmul(a: Value, b: Value) -> Value:
    return F.matmul(a, b) if is_dynamic(a, b) else np.matmul(array(a), array(b))


@operator("Gemm", weights=(0, 1, 2))
def gemm(
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Value:
    if not is_dynamic(a, b):
        x = array(a).T if transA else array(a)
        product = x @ (array(b).T if transB else array(b))
        if product.dtype.kind != "f":
            total = alpha * product if c is None else alpha * product + beta * array(c)
            return np.asarray(total, product.dtype)
    if transB and not transA and alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
        return F.linear(a, b, c)
    y = F.matmul(a, b, bool(transA), bool(transB))
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else F.mul(c, beta))


@operator("Einsum", gradient=NUMPY)
def einsum(*values: Value, equation: str) -> Value:
    arrays = [array(x) for x in values]
    equation = equation.replace(" ", "")
    y = np.asarray(np.einsum(equation, *arrays), order="C")
    if not is_dynamic(*values):
        return y
    tensors = [x if isinstance(x, Tensor) else Tensor(x) for x in values]
    terms, _, output = equation.partition("->")
    inputs = terms.split(",")

    def backward(dy: Array) -> list[Array | None]:
        return [
            _einsum_slope(dy, i, arrays, inputs, output) if x.requires_grad else None for i, x in enumerate(tensors)
        ]

    if any(x.requires_grad for x in tensors) and not _has_slopes(inputs, output, equation):
        raise ValueError(f"equation {equation!r} has no gradient here: it needs '->', no '...', and no index twice")
    return record("einsum", y, tensors, backward, tensors)


def _has_slopes(inputs: list[str], output: str, equation: str) -> bool:
    return "->" in equation and "..." not in equation and all(len(set(t)) == len(t) for t in (*inputs, output))


def _einsum_slope(dy: Array, i: int, arrays: list[Array], inputs: list[str], output: str) -> Array:
    """The product of dy and the other operands; indices that only operand `i` has were summed, and are repeated."""
    others = [t for j, t in enumerate(inputs) if j != i]
    known = [k for k in inputs[i] if k in output or any(k in t for t in others)]
    equation = f"{','.join([output, *others])}->{''.join(known)}"
    dx = np.einsum(equation, dy, *[a for j, a in enumerate(arrays) if j != i])
    dx = dx.reshape([n if k in known else 1 for k, n in zip(inputs[i], arrays[i].shape, strict=True)])
    return np.array(np.broadcast_to(dx, arrays[i].shape), order="C")


@operator("TopK", gradient=NUMPY)
def top_k(x: Value, k: Value | int, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Value, Value]:
    axis, count = axis_of(axis, x.ndim), k if isinstance(k, int) else integers(k)[0]
    value = array(x)
    if largest:  # the first of equal ones first
        last = value.shape[axis] - 1
        order = last - np.flip(np.argsort(np.flip(value, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(value, axis, kind="stable")
    indices = np.array(np.take(order, range(count), axis), np.int64, order="C")
    if not is_dynamic(x):
        return np.take_along_axis(value, indices, axis), indices
    places: list[Array] = list(np.indices(indices.shape))
    places[axis] = indices
    return F.index(x, tuple(places)), indices


@operator("LRN")
def lrn(x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Value:
    n, c = x.shape[:2]
    squares = F.reshape(F.mul(x, x), (n, 1, c, -1))
    squares = F.pad(squares, ((0, 0), (0, 0), ((size - 1) // 2, size // 2), (0, 0)))
    mean = F.reshape(F.avg_pool2d(squares, (size, 1), 1), x.shape)
    return F.div(x, F.pow(mean * alpha + bias, beta))
