"""Operators that pick or place elements by index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pynn import functional as F
from pynn.grad_mode import mode
from pynn.onnx.operators.registry import NONE, NUMPY, Array, Value, array, axis_of, integers, is_dynamic, operator, take
from pynn.onnx.operators.shape import along_axis
from pynn.tape import _record as record
from pynn.tensor import Tensor


@operator("Gather", weights=(0,))
def gather(x: Value, indices: Value, *, axis: int = 0) -> Value:
    axis = axis_of(axis, x.ndim)
    if isinstance(indices, Tensor) and mode.recorder is not None and mode.recorder.made(indices.data):
        return along_axis(x, indices, axis)  # whether one counts from the back is not known yet
    at = _from_the_front(indices, x.shape[axis])
    if at.ndim == 0:
        return take(x, (slice(None),) * axis + (int(at),))
    return along_axis(x, at, axis)


def _from_the_front(indices: Value, n: int) -> Array:
    """Return indices with those below 0 counted from the back; IndexError if there is none such."""
    at = array(indices)
    if at.size and not -n <= at.min() <= at.max() < n:
        raise IndexError(f"indices {at.min()} to {at.max()} are out of range for an axis of {n}")
    return np.where(at < 0, at + n, at).astype(np.int64)


def _places(indices: Value, shape: Sequence[int], axis: int) -> tuple[Array, ...]:
    """The place in `shape` that each index along `axis` names."""
    places = list(np.indices(indices.shape))
    places[axis] = _from_the_front(indices, shape[axis])
    return tuple(places)


@operator("GatherElements", gradient=NUMPY)
def gather_elements(x: Value, indices: Value, *, axis: int = 0) -> Value:
    return take(x, _places(indices, x.shape, axis_of(axis, x.ndim)))


@operator("GatherND", gradient=NUMPY)
def gather_nd(x: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    at = array(indices)
    batch = [
        np.arange(n).reshape([-1 if i == j else 1 for j in range(at.ndim - 1)])
        for i, n in enumerate(at.shape[:batch_dims])
    ]
    named = [_from_the_front(at[..., i], x.shape[batch_dims + i]) for i in range(at.shape[-1])]
    return take(x, (*batch, *named))


def _scatter(x: Value, places: tuple[Array, ...], updates: Value, reduction: str) -> Value:
    y, new = array(x).copy(), array(updates)
    combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.get(reduction)
    if combine is not None:
        combine.at(y, places, new)
    elif reduction == "none":
        y[places] = new
    else:
        raise ValueError(f"reduction {reduction!r} is unknown")
    if not is_dynamic(x, updates):
        return y
    parents = [v if isinstance(v, Tensor) else Tensor(v) for v in (x, updates)]
    if reduction not in ("none", "add") and any(v.requires_grad for v in parents):
        raise ValueError(f"reduction {reduction!r} has no gradient here")

    def backward(dy: Array) -> tuple[Array, Array]:
        dx = dy.copy()
        if reduction == "none":
            dx[places] = 0
        return dx, np.array(dy[places], order="C").reshape(new.shape)

    return record("scatter", y, parents, backward)


@operator("ScatterElements", gradient=NUMPY)
def scatter_elements(x: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none") -> Value:
    return _scatter(x, _places(indices, x.shape, axis_of(axis, x.ndim)), updates, reduction)


@operator("ScatterND", gradient=NUMPY)
def scatter_nd(x: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Value:
    at = array(indices)
    places = tuple(_from_the_front(at[..., i], x.shape[i]) for i in range(at.shape[-1]))
    return _scatter(x, places, updates, reduction)


@operator("NonZero", gradient=NONE)
def non_zero(x: Value) -> Value:
    return np.array(np.nonzero(array(x)), np.int64)


@operator("Compress", gradient=NUMPY)
def compress(x: Value, condition: Value, *, axis: int | None = None) -> Value:
    chosen = np.flatnonzero(array(condition))
    if axis is None:
        x, axis = (F.reshape(x, -1) if isinstance(x, Tensor) else x.reshape(-1)), 0
    return along_axis(x, chosen, axis_of(axis, x.ndim))


@operator("ReverseSequence", gradient=NUMPY)
def reverse_sequence(x: Value, sequence_lens: Value, *, batch_axis: int = 1, time_axis: int = 0) -> Value:
    lengths = np.array(integers(sequence_lens))
    steps, batches = x.shape[time_axis], x.shape[batch_axis]
    at = np.arange(steps)[:, None]
    source = np.where(at < lengths, lengths - 1 - at, at)  # [time, batch]
    grid = list(np.indices(x.shape))
    grid[time_axis] = source[grid[time_axis], np.minimum(grid[batch_axis], batches - 1)]
    return take(x, tuple(grid))
