"""Reductions over axes: `axis` is an integer, several, or None for all; `keepdims` keeps them with length 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pynn import _core
from pynn.functional._args import Array, Axes, Gradients, Input, as_tensor, axes_tuple, axis_index, flag, integer
from pynn.tape import _record as record
from pynn.tape import constant
from pynn.tensor import Tensor

__all__ = ["argmax", "max", "mean", "min", "require_finite", "sum", "var"]


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` after a reduction with keepdims=True."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape)])


def sum(x: Input, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum; 0 over nothing.

    It goes over `axis`, an integer, several, or None for all axes, which `keepdims` keeps with length 1.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(0)
    Tensor([4., 6.], dtype=float32)
    """
    x = as_tensor(x)
    shape = x.data.shape
    axes = axes_tuple("sum", axis, len(shape))

    def backward(dy: Array) -> Gradients:
        return (_core.broadcast_to(dy.reshape(_kept(shape, axes)), shape),)

    if keepdims is not False:
        keepdims = flag("sum", "keepdims", keepdims)
    return record("sum", _core.sum(x.data, axes, keepdims), (x,), backward)


def mean(x: Input, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the arithmetic mean; NaN over nothing. `axis` and `keepdims` are those of `sum`.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0], [3.0, 4.0]]).mean(1)
    Tensor([1.5, 3.5], dtype=float32)
    """
    x = as_tensor(x)
    shape = x.data.shape
    axes = axes_tuple("mean", axis, len(shape))

    def backward(dy: Array) -> Gradients:
        count = np.array(math.prod([shape[i] for i in axes]), dy.dtype)
        return (_core.broadcast_to(_core.div(dy, count).reshape(_kept(shape, axes)), shape),)

    if keepdims is not False:
        keepdims = flag("mean", "keepdims", keepdims)
    return record("mean", _core.mean(x.data, axes, keepdims), (x,), backward)


def max(x: Input, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the maximum, or NaN if there is one; ties share the gradient evenly.

    `axis` and `keepdims` are those of `sum`.

    Raises ValueError over nothing.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0], [3.0, 4.0]]).max(1)
    Tensor([2., 4.], dtype=float32)
    """
    return _extremum("max", _core.max, x, axis, keepdims)


def min(x: Input, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the minimum, or NaN if there is one; ties share the gradient evenly.

    `axis` and `keepdims` are those of `sum`.

    Raises ValueError over nothing.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0], [3.0, 4.0]]).min(1)
    Tensor([1., 3.], dtype=float32)
    """
    return _extremum("min", _core.min, x, axis, keepdims)


def _extremum(name: str, reduce: Callable[..., Array], x: Input, axis: Axes, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    value = x.data
    axes = axes_tuple(name, axis, value.ndim)
    y = reduce(value, axes, flag(name, "keepdims", keepdims))

    def backward(dy: Array) -> Gradients:
        kept = _kept(value.shape, axes)
        return (_core.extremum_backward(dy.reshape(kept), value, y.reshape(kept), axes),)

    return record(name, y, (x,), backward, (x,), saves_output=True)


def var(x: Input, axis: Axes = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """Return the variance: squared deviations from the mean over (count - correction), 1 as in PyTorch.

    `axis` and `keepdims` are those of `sum`.

    >>> import pynn
    >>> pynn.tensor([1.0, 3.0]).var(correction=0)
    Tensor(1., dtype=float32)
    """
    x = as_tensor(x)
    value = x.data
    axes, correction = axes_tuple("var", axis, value.ndim), integer("var", "correction", correction)

    def backward(dy: Array) -> Gradients:
        return (_core.var_backward(dy.reshape(_kept(value.shape, axes)), value, axes, correction),)

    return record("var", _core.var(value, axes, correction, flag("var", "keepdims", keepdims)), (x,), backward, (x,))


def argmax(x: Input, axis: int | None = None) -> Tensor:
    """Return the int64 index of the first maximum along `axis`, or into the flattened array. It has no gradient.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0], [4.0, 3.0]]).argmax(1)
    Tensor([1, 0], dtype=int64)
    """
    value = as_tensor(x).data
    if axis is None:
        return constant(_core.argmax(value.reshape(-1), 0))
    return constant(_core.argmax(value, axis_index("argmax", axis, value.ndim)))


def require_finite(x: Input, what: str = "a tensor") -> Tensor:
    """Return `x`; FloatingPointError that begins with `what` if it holds a NaN or an infinity.

    In a captured step this looks again in each replay, before anything that follows runs.

    >>> import pynn
    >>> pynn.functional.require_finite(pynn.ones(2), "the loss")
    Tensor([1., 1.], dtype=float32)
    """
    x = as_tensor(x)
    if not isinstance(what, str):
        raise TypeError(f"require_finite: what must be a text, got {what!r}")
    _core.require_finite([x.data], what)
    return x
