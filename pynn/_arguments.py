"""What goes into a captured function and comes out of it: arrays among nested lists, tuples and dicts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from pynn._surroundings import SIMPLE
from pynn.grad_mode import mode
from pynn.guarded import CaptureError
from pynn.plan import Array
from pynn.tensor import Tensor

_new = object.__new__


def wrapped(array: Array) -> Tensor:
    """Wrap an array as it is, a `Guarded` too."""
    tensor = _new(Tensor)  # without __init__, which would convert it
    tensor.data = array
    tensor._version = [0]
    tensor._grad = tensor._node = None
    tensor.requires_grad = False
    return tensor


def describe(value: Any, arrays: list[Array]) -> Any:
    """A hashable description of an argument, whose arrays are added to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return value.shape, value.dtype
    if isinstance(value, Tensor):
        if value.requires_grad and mode.recorder is None:
            raise CaptureError(
                f"capture: an argument {list(value.shape)} requires a gradient, which would go to a copy of it; let "
                "the function refer to the tensor instead"
            )
        arrays.append(value.data)
        return value.data.shape, value.data.dtype
    if isinstance(value, (list, tuple, dict)) and _has_attributes(value):
        raise CaptureError(
            f"capture: an argument is a {type(value).__name__} with attributes, which a replay does not compare; pass "
            "them as arguments of their own"
        )
    if isinstance(value, (list, tuple)):
        return type(value), *(describe(item, arrays) for item in value)
    if isinstance(value, (float, np.floating)) and value == 0:
        return type(value), str(value)  # the sign
    if isinstance(value, dict):
        return type(value), *((name, describe(item, arrays)) for name, item in value.items())
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"capture: an argument is a {type(value).__name__}, needs arrays or something hashable"
        ) from None
    return type(value), value


def arrays_of(value: Any) -> Iterator[Array | Tensor]:
    """Yield the arrays and tensors of what the function returned, which must hide none."""
    if isinstance(value, (Tensor, np.ndarray)):
        yield value
    elif isinstance(value, (list, tuple, dict)) and _has_attributes(value):
        raise CaptureError(
            f"capture: the function returns a {type(value).__name__} with attributes, which a replay cannot make anew; "
            "return a list, tuple or dict without"
        )
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from arrays_of(item)
    elif isinstance(value, dict):
        yield from arrays_of(list(value.values()))
    elif value is not None and not isinstance(value, (*SIMPLE, np.generic)):
        raise CaptureError(
            f"capture: the function returns a {type(value).__name__}, which a replay cannot make anew; return tensors, "
            "arrays, numbers, texts or None, alone or in lists, tuples and dicts"
        )


def rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same arguments with tensors for the arrays."""
    if isinstance(value, (Tensor, np.ndarray)):
        return next(tensors)
    if isinstance(value, (list, tuple)):
        items = [rebuild(item, tensors) for item in value]
        kind = type(value)
        if kind is list:
            return items
        if kind is tuple:
            return tuple(items)
        if isinstance(value, tuple):
            return kind._make(items) if hasattr(kind, "_make") else kind(items)
        own_list = copy.copy(value)
        own_list[:] = items
        return own_list
    if isinstance(value, dict):
        entries = {name: rebuild(item, tensors) for name, item in value.items()}
        if type(value) is dict:
            return entries
        own_dict = copy.copy(value)  # has what makes the values of other keys
        for name, item in entries.items():
            own_dict[name] = item
        return own_dict
    return value


def _has_attributes(value: Any) -> bool:
    """Whether a list, tuple or dict is more than its items."""
    return type(value) not in (list, tuple, dict) and value.__getstate__() is not None
