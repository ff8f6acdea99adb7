"""Functions that make tensors."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn import random
from pynn._array import FLOATS, as_dtype, check_elements
from pynn._checks import real
from pynn.grad_mode import mode
from pynn.tensor import Tensor

__all__ = ["arange", "ones", "randn", "tensor", "zeros"]


def tensor(data: object, requires_grad: bool = False, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Return a tensor with a copy of `data`; `Tensor(data)` shares NumPy arrays instead.

    >>> import pynn
    >>> pynn.tensor([[1.0, 2.0]])
    Tensor([[1., 2.]], dtype=float32)
    """
    result = Tensor(data, requires_grad, dtype)
    result.data = result.data.copy() if mode.recorder is None else mode.recorder.copy(result.data)
    result._version = [0]
    return result


def zeros(*shape: int | tuple[int, ...], requires_grad: bool = False, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Return zeros of `shape`, given as integers or as one tuple.

    >>> import pynn
    >>> pynn.zeros(2, 3).shape
    (2, 3)
    """
    return Tensor(np.zeros(_shape("zeros", shape), as_dtype("zeros", dtype)), requires_grad)


def ones(*shape: int | tuple[int, ...], requires_grad: bool = False, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Return ones of `shape`, given as integers or as one tuple.

    >>> import pynn
    >>> pynn.ones(2)
    Tensor([1., 1.], dtype=float32)
    """
    return Tensor(np.ones(_shape("ones", shape), as_dtype("ones", dtype)), requires_grad)


def randn(*shape: int | tuple[int, ...], requires_grad: bool = False, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Return samples of the standard normal distribution, from the generator that `pynn.seed` sets.

    `shape` is given as for `zeros`, `dtype` is float32 or float64.

    >>> import pynn
    >>> pynn.randn(2, 3).shape
    (2, 3)
    """
    target, sizes = as_dtype("randn", dtype, "float32 or float64"), _shape("randn", shape)
    if target not in FLOATS:
        raise TypeError(f"randn: dtype is {target}, needs float32 or float64")
    return Tensor(random.generator().standard_normal(sizes).astype(target), requires_grad)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Return values from `start` on, `step` apart, below `stop`: int64 for integer arguments, otherwise float32.

    One number alone is the `stop`, and the values begin with 0.

    >>> import pynn
    >>> pynn.arange(3)
    Tensor([0, 1, 2], dtype=int64)
    """
    if step == 0:
        raise ValueError("arange: step is 0, needs another number")
    if stop is None:
        start, stop = 0, start
    for name, value in (("start", start), ("stop", stop), ("step", step)):
        real(f"arange: {name}", value)
    # Those of NumPy would wrap: 100 - (-100) is -56 in int8.
    start, stop, step = (int(value) if isinstance(value, np.integer) else value for value in (start, stop, step))
    try:
        count = math.ceil((stop - start) / step)
    except OverflowError:  # of floats: infinitely many
        raise ValueError(f"arange: {start} to {stop} by {step} are more elements than memory can hold") from None
    check_elements("arange", "shape", [max(0, count)])
    are_integers = all(isinstance(value, int) for value in (start, stop, step))
    try:
        values = np.arange(start, stop, step, dtype=np.int64 if are_integers else None)
    except OverflowError:
        raise ValueError(f"arange: {start} to {stop} by {step} has an integer too large for int64") from None
    if dtype is None:
        dtype = np.int64 if are_integers else np.float32
    return Tensor(values, dtype=dtype)


def _shape(name: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the shape of a new tensor as a tuple of sizes."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    try:
        sizes = tuple(map(operator.index, shape))
    except TypeError:
        raise TypeError(f"{name}: shape must be integers, got {list(shape)}") from None
    if min(sizes, default=0) < 0:
        raise ValueError(f"{name}: shape {list(sizes)} has a negative size")
    check_elements(name, "shape", sizes)
    return sizes
