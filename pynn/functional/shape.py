"""Operations that move elements: reshape, transpose, join, pad, index."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn._array import as_array, as_dtype
from pynn.functional._args import Array, Gradients, Input, as_tensor, axis_index, integers, iterable, number, renamed
from pynn.grad_mode import mode
from pynn.tape import _record as record
from pynn.tensor import Tensor

__all__ = ["astype", "broadcast_to", "concatenate", "flatten", "index", "pad", "reshape", "stack", "transpose"]


def reshape(x: Input, shape: int | Sequence[int]) -> Tensor:
    """Return the elements in another shape (one length may be -1); shares memory with `x`.

    >>> import pynn
    >>> pynn.zeros(2, 6).reshape(3, -1).shape
    (3, 4)
    """
    x = as_tensor(x)
    value = x.data
    try:
        y = value.reshape(shape)
    except ValueError:
        wanted = list(shape) if isinstance(shape, Sequence) else [shape]
        raise ValueError(f"reshape: {list(value.shape)} of {value.size} elements does not fit {wanted}") from None
    except TypeError:
        raise TypeError(f"reshape: shape must be integers, got {shape!r}") from None

    def backward(dy: Array) -> Gradients:
        return (dy.reshape(value.shape),)

    out = record("reshape", y, (x,), backward)
    out._version = x._version
    return out


def flatten(x: Input, start_dim: int = 0) -> Tensor:
    """Join all axes from `start_dim` on into one: [N, C, H, W] to [N, C*H*W] for start_dim=1.

    >>> import pynn
    >>> pynn.zeros(2, 3, 4).flatten(1).shape
    (2, 12)
    """
    x = as_tensor(x)
    shape = x.data.shape
    start = axis_index("flatten", start_dim, len(shape)) if shape else 0
    size = 1
    for n in shape[start:]:
        size *= n
    return reshape(x, (*shape[:start], size))


def transpose(x: Input, axes: Sequence[int] | None = None) -> Tensor:
    """Return a copy with the axes in the order `axes` (NumPy's meaning), reversed if None.

    >>> import pynn
    >>> pynn.functional.transpose(pynn.zeros(2, 3, 4), (0, 2, 1)).shape
    (2, 4, 3)
    """
    x = as_tensor(x)
    value = x.data
    ndim = value.ndim
    order = tuple(range(ndim))[::-1] if axes is None else _order(axes, ndim)
    if sorted(order) != list(range(ndim)):
        raise ValueError(f"transpose: axes {list(order)} is no permutation of the {ndim} axes of {list(value.shape)}")
    inverse = tuple(sorted(range(ndim), key=order.__getitem__))
    y = _core.transpose(value, order) if value.dtype.kind == "f" else by_numpy("transpose", _turn, value, order)

    def backward(dy: Array) -> Gradients:
        return (_core.transpose(dy, inverse),)

    return record("transpose", y, (x,), backward)


def _order(axes: Iterable[int], ndim: int) -> tuple[int, ...]:
    return tuple([axis_index("transpose", i, ndim) for i in iterable("transpose", "axes", axes, "integers")])


def by_numpy(name: str, function: Callable[..., Array], *args: Any) -> Array:
    """What the core does not compute; a recorder is told of it."""
    if mode.recorder is None:
        return function(*args)
    y: Array = mode.recorder.by_numpy(name, function, args)
    return y


def _turn(value: Array, order: tuple[int, ...]) -> Array:
    return np.array(value.transpose(order), order="C")


def broadcast_to(x: Input, shape: Sequence[int]) -> Tensor:
    """Return a copy repeated to `shape` by NumPy's broadcasting.

    >>> import pynn
    >>> pynn.functional.broadcast_to(pynn.tensor([1.0, 2.0]), (2, 2))
    Tensor([[1., 2.],
            [1., 2.]], dtype=float32)
    """
    x = as_tensor(x)
    x_shape = x.data.shape

    def backward(dy: Array) -> Gradients:
        return (_core.sum_to(dy, x_shape),)

    return record("broadcast_to", _core.broadcast_to(x.data, integers("broadcast_to", "shape", shape)), (x,), backward)


def _box(y: Array, axis: int, start: int, size: int) -> Array:
    """`size` entries of `axis` from `start` on, all of the other axes."""
    starts, sizes = [0] * y.ndim, list(y.shape)
    starts[axis], sizes[axis] = start, size
    return _core.slice(y, starts, [1] * y.ndim, sizes)


def concatenate(tensors: Sequence[Input], axis: int = 0) -> Tensor:
    """Join tensors along an existing axis.

    >>> import pynn
    >>> pynn.functional.concatenate([pynn.zeros(2, 3), pynn.ones(1, 3)]).shape
    (3, 3)
    """
    parents = [as_tensor(x) for x in iterable("concatenate", "tensors", tensors, "tensors")]
    if not parents:
        raise ValueError("concatenate: needs at least one tensor")
    axis = axis_index("concatenate", axis, parents[0].ndim)
    arrays = [x.data for x in parents]
    if any(x.ndim != arrays[0].ndim for x in arrays):
        raise ValueError(f"concatenate: {' and '.join(str(list(x.shape)) for x in arrays)} differ in their axes")
    if arrays[0].dtype.kind == "f":
        y = _core.concatenate(arrays, axis)
    else:
        y = by_numpy("concatenate", _concatenate_others, arrays, axis)
    sizes, needs = [x.shape[axis] for x in arrays], [x.requires_grad for x in parents]

    def backward(dy: Array) -> Gradients:
        start, dxs = 0, []
        for size, need in zip(sizes, needs, strict=True):
            dxs.append(_box(dy, axis, start, size) if need else None)
            start += size
        return dxs

    return record("concatenate", y, parents, backward)


def _concatenate_others(arrays: list[Array], axis: int) -> Array:
    """Join arrays that the core does not take (integers and bool), under its rule of one dtype."""
    if len({x.dtype for x in arrays}) > 1:
        raise TypeError(f"concatenate: one dtype is needed, got {', '.join(str(x.dtype) for x in arrays)}")
    try:
        return np.asarray(np.concatenate(arrays, axis), order="C")
    except ValueError:
        shapes = " and ".join(str(list(x.shape)) for x in arrays)
        raise ValueError(f"concatenate: {shapes} differ beside axis {axis}") from None


def stack(tensors: Sequence[Input], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis.

    >>> import pynn
    >>> pynn.functional.stack([pynn.zeros(3), pynn.ones(3)], axis=1).shape
    (3, 2)
    """
    parents = [as_tensor(x) for x in iterable("stack", "tensors", tensors, "tensors")]
    if not parents:
        raise ValueError("stack: needs at least one tensor")
    shape = parents[0].shape
    for x in parents:
        if x.shape != shape:
            raise ValueError(f"stack: needs one shape, got {list(shape)} and {list(x.shape)}")
    axis = axis_index("stack", axis, len(shape) + 1)
    new_shape = (*shape[:axis], 1, *shape[axis:])
    try:
        return concatenate([reshape(x, new_shape) for x in parents], axis)
    except (TypeError, ValueError, MemoryError) as error:
        raise renamed(error, "concatenate", "stack") from None


def pad(x: Input, widths: Sequence[int] | Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Surround with `value`: `widths` is a (before, after) pair for each axis, or PyTorch's flat list.

    The flat list (left, right, top, bottom, …) starts at the last axis and may end early.

    >>> import pynn
    >>> pynn.functional.pad(pynn.ones(2, 2), (1, 0)).shape
    (2, 3)
    >>> pynn.functional.pad(pynn.ones(2, 2), ((1, 1), (0, 0))).shape
    (4, 2)
    """
    x = as_tensor(x)
    shape = x.data.shape
    pairs = _pad_pairs(widths, shape)

    def backward(dy: Array) -> Gradients:
        return (_core.slice(dy, [before for before, _ in pairs], [1] * len(shape), shape),)

    return record("pad", _core.pad(x.data, pairs, number("pad", "value", value)), (x,), backward)


def _pad_pairs(widths: Sequence[int] | Sequence[tuple[int, int]], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """A (before, after) pair for each axis."""
    try:
        table = np.asarray(widths)
    except ValueError:  # pairs that are none
        raise ValueError(f"pad: widths {widths} do not fit shape {list(shape)}") from None
    if table.size and table.dtype.kind not in "iu":
        raise TypeError(f"pad: widths is {widths!r}, needs integers or pairs of them")
    if table.ndim == 1 and len(table) % 2 == 0:  # the flat list
        last = table.astype(np.int64).reshape(-1, 2)[::-1]
        table = np.concatenate([np.zeros((max(0, len(shape) - len(last)), 2), np.int64), last])
    if table.shape != (len(shape), 2):
        needs = "a pair (before, after) for each axis, or a flat list as PyTorch's"
        raise ValueError(f"pad: widths {widths} do not fit shape {list(shape)}; needs {needs}")
    pairs: list[tuple[int, int]] = [(before, after) for before, after in table.tolist()]
    return pairs


def astype(x: Input, dtype: npt.DTypeLike) -> Tensor:
    """Convert to another dtype; between float32 and float64 the gradient is converted back.

    >>> import pynn
    >>> pynn.ones(2).astype("float64").dtype
    dtype('float64')
    """
    x = as_tensor(x)
    value, target = x.data, as_dtype("astype", dtype)
    if value.dtype == target:
        return x
    y = by_numpy("astype", _convert, value, target)
    if y.dtype.kind != "f":
        return Tensor(y)

    def backward(dy: Array) -> Gradients:
        return (dy.astype(value.dtype),)

    return record("astype", y, (x,), backward)


def _convert(value: Array, dtype: npt.DTypeLike) -> Array:
    return as_array("astype", value, dtype)


# -- indexing ----------------------------------------------------------------------------------------------------------
def index(x: Input, key: Any) -> Tensor:
    """Return a copy of `x[key]`, with all of NumPy's indexing: integers, slices, None, `...`, masks, index arrays.

    >>> import pynn
    >>> x = pynn.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x[::-1, 0]
    Tensor([3., 1.], dtype=float32)
    >>> x[x > 2]
    Tensor([3., 4.], dtype=float32)
    """
    x = as_tensor(x)
    value = x.data
    keys = key if isinstance(key, tuple) else (key,)
    if value.dtype.kind == "f" and all(_is_basic(k) for k in keys):
        return _index_basic(x, keys)
    saved = [k for k in keys if isinstance(k, Tensor)]
    try:
        keys = tuple([_array_key(k) for k in keys])
    except ValueError as error:  # nested lists of unequal lengths
        raise ValueError(f"index: shape {list(value.shape)}: {error}") from None
    y = by_numpy("index", _take, value, keys)

    def backward(dy: Array) -> Gradients:
        dx = np.zeros_like(value)
        np.add.at(dx, keys, dy)  # an element may be named more than once
        return (dx,)

    return record("index", y, (x,), backward, saved)


def _array_key(k: Any) -> Any:
    """What NumPy indexes with: of a list, which may have changed when backward reads it, an array."""
    if isinstance(k, Tensor):
        return k.data
    if not isinstance(k, list):
        return k
    array = np.asarray(k)
    return array if array.size else array.astype(np.intp)


def _take(value: Array, keys: tuple[Any, ...]) -> Array:
    try:
        return np.array(value[keys], order="C")
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(f"index: shape {list(value.shape)}: {error}") from None


def _is_basic(k: Any) -> bool:
    return k is None or k is ... or isinstance(k, (slice, np.integer)) or (isinstance(k, int) and type(k) is not bool)


def _index_basic(x: Tensor, keys: tuple[Any, ...]) -> Tensor:
    """Integers, slices, None and `...`, as one strided box of the core."""
    value = x.data
    shape, ndim = value.shape, value.ndim
    given = builtins.sum(k is not None and k is not ... for k in keys)
    if given > ndim or builtins.sum(k is ... for k in keys) > 1:
        raise IndexError(f"index: {len(keys)} indices do not fit shape {list(shape)}")
    if not any(k is ... for k in keys):
        keys = (*keys, ...)
    starts: list[int] = []
    steps: list[int] = []
    sizes: list[int] = []
    out_shape: list[int] = []
    for k in keys:
        if k is None:
            out_shape.append(1)
            continue
        for n in shape[len(starts) : len(starts) + (ndim - given if k is ... else 1)]:
            if isinstance(k, slice) or k is ...:
                try:
                    start, stop, step = k.indices(n) if k is not ... else (0, n, 1)
                except (TypeError, ValueError) as error:  # of a part that is no integer, of a step of 0
                    raise type(error)(f"index: {error}") from None
                size = len(range(start, stop, step))
                out_shape.append(size)
            else:
                if not -n <= k < n:
                    raise IndexError(f"index: {k} is out of range for axis {len(starts)} of shape {list(shape)}")
                start, step, size = int(k) % n, 1, 1
            starts.append(start if size else 0)
            steps.append(step)
            sizes.append(size)

    def backward(dy: Array) -> Gradients:
        return (_core.slice_backward(dy.reshape(sizes), shape, starts, steps),)

    return record("index", _core.slice(value, starts, steps, sizes).reshape(out_shape), (x,), backward)
