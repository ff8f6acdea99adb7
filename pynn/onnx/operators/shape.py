"""Operators that move elements or make constants: shapes, joins, cuts, conversions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pynn import functional as F
from pynn.onnx.operators.registry import (
    NONE,
    NUMPY,
    Array,
    Node,
    Value,
    array,
    axis_of,
    integers,
    is_dynamic,
    operator,
    reshape,
    take,
    transpose,
)
from pynn.tensor import Tensor

# TensorProto.DataType of what pynn computes with.
DTYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 11: "f8", 12: "u4", 13: "u8"}


# -- shapes ------------------------------------------------------------------------------------------------------------
@operator("Shape", gradient=NONE)
def shape(x: Value, *, start: int = 0, end: int | None = None) -> Value:
    return np.array(x.shape[start:end], np.int64)


@operator("Size", gradient=NONE)
def size(x: Value) -> Value:
    return np.array(x.size, np.int64)


@operator("Reshape", weights=(0,))
def reshape_(x: Value, shape: Value | Sequence[int], *, allowzero: int = 0) -> Value:
    sizes = integers(shape)
    if not allowzero:
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    if sizes.count(-1) == 1 and x.size == 0:  # NumPy cannot tell where there are no elements
        known = math.prod(n for n in sizes if n != -1)
        sizes[sizes.index(-1)] = 0 if known else -1
    return reshape(x, sizes)


@operator("Flatten")
def flatten(x: Value, *, axis: int = 1) -> Value:
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"axis {axis} is out of range for {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Squeeze", weights=(0,))
def squeeze(x: Value, axes: Value | Sequence[int] | None = None) -> Value:
    gone = [axis_of(i, x.ndim) for i in integers(axes)] if axes is not None else None
    if gone is None:
        gone = [i for i, n in enumerate(x.shape) if n == 1]
    if any(x.shape[i] != 1 for i in gone):
        raise ValueError(f"axes {gone} of {list(x.shape)} do not all have the length 1")
    return reshape(x, [n for i, n in enumerate(x.shape) if i not in gone])


@operator("Unsqueeze", weights=(0,))
def unsqueeze(x: Value, axes: Value | Sequence[int]) -> Value:
    ndim = x.ndim + len(integers(axes))
    new = [axis_of(i, ndim) for i in integers(axes)]
    if len(set(new)) < len(new):
        raise ValueError(f"axes {new} name one twice")
    old = iter(x.shape)
    return reshape(x, [1 if i in new else next(old) for i in range(ndim)])


def _transpose_refuses(node: Node) -> str | None:
    perm = node.attributes.get("perm", [])
    return None if sorted(perm) == list(range(len(perm))) else f"perm={perm} is no order of the axes"


@operator("Transpose", weights=(0,), refuses=_transpose_refuses)
def transpose_(x: Value, *, perm: Sequence[int] | None = None) -> Value:
    return transpose(x, range(x.ndim)[::-1] if perm is None else perm)


@operator("Expand", weights=(0,))
def expand(x: Value, shape: Value) -> Value:
    return broadcast(x, np.broadcast_shapes(x.shape, tuple(integers(shape))))


def broadcast(x: Value, sizes: Sequence[int]) -> Value:
    """Return a copy repeated to a shape."""
    return F.broadcast_to(x, sizes) if is_dynamic(x) else np.array(np.broadcast_to(array(x), tuple(sizes)), order="C")


@operator("Tile")
def tile(x: Value, repeats: Value) -> Value:
    times = integers(repeats)
    if len(times) != x.ndim:
        raise ValueError(f"{len(times)} repeats do not fit the {x.ndim} axes of {list(x.shape)}")
    apart = reshape(x, [k for n in x.shape for k in (1, n)])
    repeated = broadcast(apart, [k for t, n in zip(times, x.shape, strict=True) for k in (t, n)])
    return reshape(repeated, [t * n for t, n in zip(times, x.shape, strict=True)])


@operator("DepthToSpace")
def depth_to_space(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    n, c, h, w = x.shape
    b, depth = blocksize, c // blocksize**2
    if mode == "DCR":
        y = transpose(reshape(x, (n, b, b, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = transpose(reshape(x, (n, depth, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(y, (n, depth, h * b, w * b))


@operator("SpaceToDepth")
def space_to_depth(x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    n, c, h, w = x.shape
    b = blocksize
    y = reshape(x, (n, c, h // b, b, w // b, b))
    y = transpose(y, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return reshape(y, (n, c * b * b, h // b, w // b))


# -- joins and cuts ----------------------------------------------------------------------------------------------------
@operator("Concat", weights=(0, 1, 2, 3))
def concat(*values: Value, axis: int) -> Value:
    axis = axis_of(axis, values[0].ndim)
    if any(isinstance(x, Tensor) for x in values):
        return F.concatenate(values, axis)
    return np.concatenate([array(x) for x in values], axis)


@operator("Split")
def split(
    x: Value,
    split: Value | Sequence[int] | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    node: Node,
) -> tuple[Value, ...]:
    axis = axis_of(axis, x.ndim)
    n, parts = x.shape[axis], num_outputs or len(node.outputs)
    if split is None:
        chunk = -(-n // parts)
        sizes = [max(0, min(chunk, n - i * chunk)) for i in range(parts)]
    else:
        sizes = integers(split)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ValueError(f"parts of {sizes} do not fit axis {axis} of {list(x.shape)}")
    ends = np.cumsum(sizes).tolist()
    return tuple(take(x, (slice(None),) * axis + (slice(e - s, e),)) for s, e in zip(sizes, ends, strict=True))


@operator("Slice", weights=(0,))
def slice_(
    x: Value,
    starts: Value | Sequence[int],
    ends: Value | Sequence[int],
    axes: Value | Sequence[int] | None = None,
    steps: Value | None = None,
) -> Value:
    first, last = integers(starts), integers(ends)
    along = list(range(len(first))) if axes is None else [axis_of(i, x.ndim) for i in integers(axes)]
    step = [1] * len(first) if steps is None else integers(steps)
    key = [slice(None)] * x.ndim
    for i, start, end, by in zip(along, first, last, step, strict=True):
        n = x.shape[i]
        # What lies beyond the front is the front itself, where Python would take nothing.
        key[i] = slice(max(start, -n), None if by < 0 and end < -n else end, by)
    return take(x, tuple(key))


@operator("Pad")
def pad(
    x: Value,
    pads: Value | Sequence[int],
    constant_value: Value | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Value:
    given, along = integers(pads), range(x.ndim) if axes is None else [axis_of(i, x.ndim) for i in integers(axes)]
    widths = [(0, 0)] * x.ndim
    for i, before, after in zip(along, given[: len(given) // 2], given[len(given) // 2 :], strict=True):
        widths[i] = before, after
    if any(min(pair) < 0 for pair in widths):  # negative ones cut
        key = tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(x.shape, widths, strict=True))
        x, widths = take(x, key), [(max(0, b), max(0, a)) for b, a in widths]
    fill = value if constant_value is None else array(constant_value).reshape(-1)[0]
    if not is_dynamic(x):
        if mode == "constant":
            return np.pad(array(x), widths, constant_values=fill)
        return _pad_by(x, widths, mode)
    return F.pad(x, widths, float(fill)) if mode == "constant" else _pad_by(x, widths, mode)


def _pad_by(x: Value, widths: Sequence[tuple[int, int]], mode: str) -> Value:
    """Repeat elements: those at the edge, mirrored, or from the other end."""
    for axis, width in enumerate(widths):
        if width != (0, 0):
            x = along_axis(x, np.pad(np.arange(x.shape[axis]), width, mode), axis)  # type: ignore[call-overload]
    return x


def along_axis(x: Value, indices: Value, axis: int) -> Value:
    """Return the entries of one axis that `indices` [...] name: that axis becomes theirs."""
    if not is_dynamic(x):
        return np.asarray(np.take(array(x), array(indices), axis), order="C")
    rest = [i for i in range(x.ndim) if i != axis]
    front = reshape(transpose(x, [axis, *rest]), (x.shape[axis], math.prod([x.shape[i] for i in rest])))
    rows = reshape(F.embedding(indices, front), (*indices.shape, *[x.shape[i] for i in rest]))
    k = indices.ndim
    return transpose(rows, [*range(k, k + axis), *range(k), *range(k + axis, rows.ndim)])


# -- conversions and constants -----------------------------------------------------------------------------------------
def _cast_refuses(node: Node) -> str | None:
    to = node.attributes.get("to")
    return None if to in DTYPES else f"to={to} is a type that pynn does not have"


@operator("Cast", gradient=NUMPY, weights=(0,), refuses=_cast_refuses)
def cast(x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    return _convert(x, np.dtype(DTYPES[to]))


@operator("CastLike", gradient=NUMPY)
def cast_like(x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    return _convert(x, like.dtype)


def _convert(x: Value, dtype: np.dtype[Any]) -> Value:
    if x.dtype == dtype:
        return x
    if is_dynamic(x) and dtype.kind == "f":
        return F.astype(x, dtype)
    return array(x).astype(dtype)


@operator("Constant", gradient=NONE)
def constant(
    *,
    value: Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Value:
    if value is not None:
        return value
    floats, ints = (value_float, value_floats), (value_int, value_ints)
    return next(np.array(v, t) for t, vs in ((np.float32, floats), (np.int64, ints)) for v in vs if v is not None)


@operator("ConstantOfShape", gradient=NONE)
def constant_of_shape(shape: Value, *, value: Array | None = None) -> Value:
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(integers(shape), fill.reshape(-1)[0], fill.dtype)


@operator("Range", gradient=NONE)
def range_(start: Value, limit: Value, delta: Value) -> Value:
    first, last, step = (array(x).reshape(-1)[0] for x in (start, limit, delta))
    return np.asarray(np.arange(first, last, step), start.dtype)


@operator("EyeLike", gradient=NONE)
def eye_like(x: Value, *, dtype: int | None = None, k: int = 0) -> Value:
    rows, columns = x.shape
    return np.asarray(np.eye(rows, columns, k, x.dtype if dtype is None else DTYPES[dtype]))


@operator("OneHot", gradient=NONE)
def one_hot(indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    n, (off, on) = integers(depth)[0], array(values)
    at = np.expand_dims(array(indices).astype(np.int64) % n, axis_of(axis, indices.ndim + 1))
    valid = np.expand_dims((array(indices) >= -n) & (array(indices) < n), axis_of(axis, indices.ndim + 1))
    counter = np.arange(n).reshape([-1 if i == axis_of(axis, at.ndim) else 1 for i in range(at.ndim)])
    return np.asarray(np.where((at == counter) & valid, on, off))


@operator("Trilu")
def trilu(x: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    shown = np.ones(x.shape[-2:], np.bool_)
    offset = 0 if k is None else integers(k)[0]
    shown = np.triu(shown, offset) if upper else np.tril(shown, offset)
    return F.where(shown, x, 0.0) if is_dynamic(x) else np.where(shown, array(x), np.zeros((), x.dtype))
