"""For each function of the core, the ONNX nodes that compute the same: arithmetic, reductions, shapes.

A rule takes the graph and the arguments of the call, and returns the name of its result (several as a tuple; results
that only a backward reads are left out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pynn.onnx.export_graph import LARGEST, Graph, Value
from pynn.onnx.export_trace import Length, Ref, Size

RULES: dict[str, Callable[..., Any]] = {}


def rule(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a rule under its name; `_` behind it keeps it from hiding Python's."""
    RULES[function.__name__.removesuffix("_")] = function
    return function


def _same(op: str) -> Callable[..., str]:
    return lambda g, *args: g.add(op, *[g(arg) for arg in args])


_SAME = {
    "neg": "Neg",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "pow": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "where": "Where",
}
RULES.update({name: _same(op) for name, op in _SAME.items()})


# -- elementwise -------------------------------------------------------------------------------------------------------
def activate(g: Graph, name: str, activation: str) -> str:
    """The activation that a fused kernel applies."""
    if activation == "none":
        return name
    if activation == "leaky_relu":
        return g.add("LeakyRelu", name, alpha=0.01)
    return g.add({"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}[activation], name)


@rule
def leaky_relu(g: Graph, x: Ref, negative_slope: float) -> str:
    return g.add("LeakyRelu", g(x), alpha=negative_slope)


@rule
def elu(g: Graph, x: Ref, alpha: float) -> str:
    return g.add("Elu", g(x), alpha=alpha)


@rule
def silu(g: Graph, x: Ref) -> str:
    return g.add("Mul", g(x), g.add("Sigmoid", g(x)))


@rule
def gelu(g: Graph, x: Ref, approximate: bool) -> str:
    def number(value: float) -> str:
        return g.number(value, x.dtype)

    value = g(x)
    if approximate:
        cube = g.add("Mul", g.add("Mul", value, value), value)
        inner = g.add("Add", value, g.add("Mul", cube, number(0.044715)))
        curve = g.add("Tanh", g.add("Mul", inner, number(math.sqrt(2 / math.pi))))
    else:
        curve = g.add("Erf", g.add("Mul", value, number(math.sqrt(0.5))))
    return g.add("Mul", g.add("Mul", value, number(0.5)), g.add("Add", curve, number(1)))


@rule
def softplus(g: Graph, x: Ref, beta: float, threshold: float) -> str:
    value = g(x)
    scaled = value if beta == 1 else g.add("Mul", value, g.number(beta, x.dtype))
    y = g.add("Softplus", scaled)
    y = y if beta == 1 else g.add("Div", y, g.number(beta, x.dtype))
    if threshold < 20:  # above, log(1 + exp(x)) is x but for 2e-9
        y = g.add("Where", g.add("Greater", scaled, g.number(threshold, x.dtype)), value, y)
    return y


@rule
def clip(g: Graph, x: Ref, low: float, high: float) -> str:
    limits = ["" if math.isinf(limit) else g.number(limit, x.dtype) for limit in (low, high)]
    return g.add("Clip", g(x), *limits)


@rule
def astype(g: Graph, x: Ref, dtype: Any) -> str:
    return cast(g, g(x), np.dtype(dtype))


def cast(g: Graph, name: str, dtype: np.dtype[Any]) -> str:
    """A value as another dtype."""
    import onnx

    return g.add("Cast", name, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))


# -- products ----------------------------------------------------------------------------------------------------------
@rule
def matmul(g: Graph, a: Ref, b: Ref, transpose_a: bool = False, transpose_b: bool = False) -> str:
    if a.ndim == b.ndim == 2 and (transpose_a or transpose_b):
        return g.add("Gemm", g(a), g(b), transA=int(transpose_a), transB=int(transpose_b))
    return g.add("MatMul", turned(g, a) if transpose_a else g(a), turned(g, b) if transpose_b else g(b))


def turned(g: Graph, x: Ref) -> str:
    """A matrix, or several, with the last two axes exchanged."""
    axes = list(range(x.ndim))
    return g.add("Transpose", g(x), perm=[*axes[:-2], axes[-1], axes[-2]])


@rule
def linear(g: Graph, x: Ref, weight: Ref, bias: Ref | None, activation: str, trained: bool) -> str:
    if x.ndim == 2:
        y = g.add("Gemm", g(x), g(weight), "" if bias is None else g(bias), transB=1)
    else:
        y = g.add("MatMul", g(x), turned(g, weight))
        y = y if bias is None else g.add("Add", y, g(bias))
    return activate(g, y, activation)


# -- reductions --------------------------------------------------------------------------------------------------------
def _reduction(op: str) -> Callable[..., str]:
    def reduce(g: Graph, x: Ref, axes: Sequence[int], keepdims: bool) -> str:
        if not axes:
            return g.add("Identity", g(x))
        return g.add(op, g(x), g.integers(*axes), keepdims=int(keepdims))

    return reduce


RULES.update(
    {
        name: _reduction(op)
        for name, op in {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}.items()
    }
)


@rule
def var(g: Graph, x: Ref, axes: Sequence[int], correction: int, keepdims: bool) -> str:
    if not axes:
        g.refuse("the variance over no axis")
    over = g.integers(*axes)
    deviation = g.add("Sub", g(x), g.add("ReduceMean", g(x), over, keepdims=1))
    total = g.add("ReduceSum", g.add("Mul", deviation, deviation), over, keepdims=int(keepdims))
    count = g.axes.map(lambda *sizes: math.prod(sizes) - correction, *[x.shape[i] for i in axes])
    if not isinstance(count, Size):
        return g.add("Div", total, g.number(count, x.dtype))
    return g.add("Div", total, cast(g, g.add("Squeeze", g.lengths([count])), x.dtype))


@rule
def argmax(g: Graph, x: Ref, axis: int) -> str:
    return g.add("ArgMax", g(x), axis=axis, keepdims=0)


@rule
def softmax(g: Graph, x: Ref) -> str:
    return g.add("Softmax", g(x), axis=-1)


@rule
def log_softmax(g: Graph, x: Ref) -> str:
    return g.add("LogSoftmax", g(x), axis=-1)


# -- shapes ------------------------------------------------------------------------------------------------------------
@rule
def broadcast_to(g: Graph, x: Ref, shape: Sequence[Length]) -> str:
    return g.add("Expand", g(x), g.lengths(shape))


@rule
def transpose(g: Graph, x: Ref, axes: Sequence[int]) -> str:
    return g.add("Transpose", g(x), perm=list(axes))


@rule
def concatenate(g: Graph, arrays: Sequence[Ref], axis: int) -> str:
    return g.add("Concat", *map(g, arrays), axis=axis)


@rule
def pad(g: Graph, x: Ref, widths: Sequence[tuple[Length, Length]], value: float) -> str:
    before, after = zip(*widths, strict=True) if widths else ((), ())
    return g.add("Pad", g(x), g.lengths([*before, *after]), g.number(value, x.dtype))


@rule
def slice_(g: Graph, x: Ref, starts: Sequence[Length], steps: Sequence[int], sizes: Sequence[Length]) -> str:
    boxes = [
        (axis, *_bounds(g, start, step, size, n), step)
        for axis, (start, step, size, n) in enumerate(zip(starts, steps, sizes, x.shape, strict=True))
        if (start, step, size) != (0, 1, n)
    ]
    if not boxes:
        return g.add("Identity", g(x))
    axes, begins, ends, strides = zip(*boxes, strict=True)
    return g.add("Slice", g(x), g.lengths(begins), g.lengths(ends), g.integers(*axes), g.integers(*strides))


def _bounds(g: Graph, start: Length, step: int, size: Length, n: Length) -> tuple[Length, Length]:
    """Start and end as ONNX counts them; what is near the end of the axis from there, so that it is clipped."""
    if isinstance(step, Size):
        g.refuse("a step that depends on the dynamic axes")

    def from_end(at: Length) -> Length:
        distance = g.axes.map(lambda at, n: at - n, at, n)
        return distance if isinstance(at, Size) and isinstance(distance, int) and distance < 0 else at

    if step > 0:
        end = g.axes.map(lambda start, size, n: min(start + size * step, n), start, size, n)
        return from_end(start), LARGEST if end == n else from_end(end)
    end = g.axes.map(lambda start, size: max(start + size * step, -1), start, size)
    return from_end(start), -LARGEST if end == -1 else from_end(end)


@rule
def index(g: Graph, x: Ref, keys: tuple[Any, ...]) -> str | Value:
    """What NumPy computes: basic indices of integers, or one array of integers."""
    arrays = [k for k in keys if isinstance(k, Ref)]
    if any(k.dtype == np.bool_ for k in arrays):
        g.refuse("a mask chooses as many elements as it has, which ONNX leaves open; use where")
    if any(k is ... for k in keys):
        at = [k is ... for k in keys].index(True)
        left = x.ndim - sum(k is not None for k in keys) + 1
        keys = (*keys[:at], *[slice(None)] * left, *keys[at + 1 :])
    if len(arrays) > 1 or (arrays and any(k is None or isinstance(k, (int, Size)) for k in keys)):
        g.refuse("several indices of which some are arrays")
    name = g(x)
    axis, boxes = 0, []
    dropped: list[int] = []
    added: list[int] = []
    for k in keys:
        if k is None:
            added.append(axis - len(dropped) + len(added))
            continue
        if isinstance(k, slice):
            if any(isinstance(part, Size) for part in (k.start, k.stop, k.step)):
                g.refuse("a slice of integers whose ends depend on the dynamic axes")
            if k != slice(None):
                step = 1 if k.step is None else k.step
                ends = (0, LARGEST) if step > 0 else (LARGEST, -LARGEST)
                first, last = (
                    end if given is None else given for given, end in zip((k.start, k.stop), ends, strict=True)
                )
                boxes.append((axis, first, last, step))
        elif isinstance(k, int):
            boxes.append((axis, k, LARGEST if k == -1 else k + 1, 1))
            dropped.append(axis)
        elif isinstance(k, Size):
            g.refuse("an index that depends on the dynamic axes")
        axis += 1
    if boxes:
        axes, begins, ends_, steps = zip(*boxes, strict=True)
        name = g.add("Slice", name, *[g.integers(*values) for values in (begins, ends_, axes, steps)])
    if dropped:
        name = g.add("Squeeze", name, g.integers(*dropped))
    if added:
        name = g.add("Unsqueeze", name, g.integers(*added))
    if arrays:
        axis = next(i for i, k in enumerate(keys) if isinstance(k, Ref))
        name = g.add("Gather", name, g(arrays[0]), axis=axis)
    return name


@rule
def take_rows(g: Graph, x: Ref, rows: Ref) -> str:
    return g.add("Gather", g(x), g(rows), axis=0)


@rule
def as_int64(g: Graph, x: Ref) -> str:
    return g.add("Cast", g(x), to=7)  # TensorProto.INT64


@rule
def embedding(g: Graph, weight: Ref, indices: Ref) -> str:
    return g.add("Gather", g(weight), g(indices), axis=0)
