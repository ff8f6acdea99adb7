"""What arrays pynn computes with: C-contiguous, aligned, native, of a dtype it knows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn.grad_mode import mode

Array: TypeAlias = npt.NDArray[Any]


MOST_ELEMENTS = 2**44  # what the core makes at most; no machine has the memory

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))  # comparing dtypes is quick; comparing to np.float32 converts it


def as_array(name: str, data: object, dtype: npt.DTypeLike | None = None) -> Array:
    """Return `data` itself if it is such an array already, else a copy that is.

    Python floats and lists of them become float32. Raises TypeError for a dtype without a place here.
    """
    if type(data) is np.ndarray and dtype is None and data.dtype in FLOATS and data.flags.carray:
        return data  # what follows would come to the same, ten times as slowly
    try:
        array = np.asarray(data)
    except ValueError as error:  # nested lists of unequal lengths
        raise ValueError(f"{name}: not a rectangular array: {error}") from None
    if dtype is None:
        from_python = isinstance(data, (list, tuple)) or type(data) is float
        target = np.dtype(np.float32) if from_python and array.dtype == np.float64 else array.dtype
    else:
        target = as_dtype(name, dtype)
    if not target.isnative:
        target = target.newbyteorder("=")
    if array.dtype.kind == "O" and _are_too_large(array.ravel().tolist()):
        raise ValueError(f"{name}: an integer is too large for int64")
    if array.dtype.kind not in "biuf" or not is_supported(target):
        raise TypeError(
            f"{name}: needs float32, float64, integers or bool, got {type(data).__name__} of dtype {array.dtype}"
            + (f" for dtype {target}" if dtype is not None else "")
        )
    if mode.recorder is not None and (array.dtype != target or not array.flags.carray):
        mode.recorder.converts(name, array, target)
    array = np.asarray(array, target, order="C")
    if mode.recorder is not None:
        array = mode.recorder.view(array)
    return array if array.flags.aligned else array.copy()


def _are_too_large(numbers: list[object]) -> bool:
    """Whether these are integers, and NumPy has made objects of them because one does not fit."""
    integers = [number for number in numbers if isinstance(number, int)]
    return len(integers) == len(numbers) and any(not -(2**63) <= number < 2**64 for number in integers)


def as_gradient(grad: object, data: Array) -> Array:
    """Return what is assigned as the gradient of `data`, copied unless C-contiguous; raise if it cannot be one.

    Of a subclass of `numpy.ndarray` it is the memory, as `Tensor` takes it: operators of some do other things.
    """
    if not isinstance(grad, np.ndarray):
        raise TypeError(f"grad: got a {type(grad).__name__}, needs a NumPy array (of a tensor its .data) or None")
    if grad.dtype != data.dtype:
        raise TypeError(f"grad: got {grad.dtype}, needs the dtype of the tensor, {data.dtype}")
    if grad.shape != data.shape:
        raise ValueError(f"grad: got shape {list(grad.shape)}, needs the shape of the tensor, {list(data.shape)}")
    return grad if type(grad) is np.ndarray and grad.flags.carray else as_array("grad", grad)


def check_elements(name: str, what: str, shape: Iterable[int]) -> None:
    """Raise ValueError, which begins with `name`, for a shape that nobody has the memory for."""
    sizes = list(shape)
    if math.prod(filter(None, sizes)) > MOST_ELEMENTS:
        raise ValueError(f"{name}: {what} {sizes} has more elements than memory can hold")


def empty(name: str, *shape: int) -> Array:
    """Return a float32 array in the core's memory for a weight of the layer `name`, contents undefined.

    It begins with a cache line, where NumPy's may begin within one: a vector that lies across two takes two loads.
    """
    check_elements(name, "weight", shape)
    return _core.empty(shape, np.float32)


def as_dtype(name: str, dtype: npt.DTypeLike, needs: str = "float32, float64, an integer or bool") -> np.dtype[Any]:
    """`dtype` as NumPy's; TypeError, which begins with `name`, if it is none."""
    try:
        found = None if dtype is None else np.dtype(dtype)  # of None NumPy makes float64, which nobody asked for
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{name}: dtype is {dtype!r}, needs {needs}")
    return found


def is_supported(dtype: np.dtype[Any]) -> bool:
    """Whether tensors can have this dtype."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (4, 8))
