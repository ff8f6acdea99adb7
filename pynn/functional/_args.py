"""Arguments of the operations, brought into the form that the core takes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn._checks import flag as flag
from pynn.grad_mode import mode
from pynn.tape import constant
from pynn.tensor import Tensor

Array: TypeAlias = npt.NDArray[Any]
Gradients: TypeAlias = Sequence[Array | None]
Input: TypeAlias = Tensor | Array  # every operation takes NumPy arrays, too
Operand: TypeAlias = Tensor | npt.ArrayLike
Axes: TypeAlias = int | Sequence[int] | None
T = TypeVar("T")
E = TypeVar("E", bound=Exception)

INT64 = np.dtype(np.int64)
INT64_MAX = 2**63 - 1


def as_tensor(x: Input) -> Tensor:
    """`x`, or a tensor around the array `x`."""
    return x if isinstance(x, Tensor) else Tensor(x)


def operands(name: str, a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Both operands as tensors; numbers and lists take the dtype of the other one."""
    if isinstance(a, Tensor):
        return a, _operand(name, b, a.data.dtype)
    if isinstance(b, Tensor):
        return _operand(name, a, b.data.dtype), b
    if isinstance(b, np.ndarray):
        return operands(name, a, Tensor(b))
    return operands(name, Tensor(a), b)


def _operand(name: str, x: Operand, dtype: np.dtype[Any]) -> Tensor:
    if isinstance(x, (int, float, np.integer, np.floating, np.bool_)):
        try:
            return constant(np.array(x, dtype))
        except (OverflowError, ValueError):
            if isinstance(x, float):  # NaN or an infinity beside integers, which no operation takes
                raise TypeError(f"{name}: {x} beside an array of {dtype}, needs float32 or float64") from None
            raise ValueError(f"{name}: an integer is too large for {dtype}") from None
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (list, tuple)):
        return Tensor(x, dtype=dtype)
    if isinstance(x, np.ndarray):
        return Tensor(x)
    raise TypeError(f"{name}: needs a Tensor, an array or a number, got {type(x).__name__}")


def axis_index(name: str, axis: int, ndim: int) -> int:
    """Return `axis` counted from the front; ValueError if there is no such axis."""
    index = integer(name, "axis", axis)
    if not -ndim <= index < ndim:
        raise ValueError(f"{name}: axis {index} is out of range for {ndim} axes")
    return index % ndim


def axes_tuple(name: str, axes: Axes, ndim: int) -> tuple[int, ...]:
    """Return `axes` sorted and counted from the front, all of them for None."""
    if axes is None:
        return tuple(range(ndim))
    if not isinstance(axes, Sequence):
        return (axis_index(name, axes, ndim),)
    result = sorted(axis_index(name, axis, ndim) for axis in axes)
    if len(set(result)) != len(result):
        raise ValueError(f"{name}: axes {list(axes)} name an axis twice")
    return tuple(result)


def pair(name: str, argument: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return an integer twice, or a pair of integers as it is."""
    if type(value) is int and 0 <= value <= INT64_MAX:
        return value, value
    try:
        if isinstance(value, (tuple, list)):
            first, second = value
            first, second = operator.index(first), operator.index(second)
        else:
            first = second = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {argument} is {value!r}, needs an integer or a pair of them") from None
    if not (-INT64_MAX <= first <= INT64_MAX and -INT64_MAX <= second <= INT64_MAX):
        raise _beyond_int64(name, argument, value)
    return first, second


def require_floats(name: str, argument: str, x: Tensor) -> None:
    """Raise TypeError unless `x` holds floats: for operations made of others, which would name themselves."""
    if x.data.dtype.kind != "f":
        raise TypeError(f"{name}: {argument} is {x.data.dtype}, needs float32 or float64")


def number(name: str, argument: str, value: float) -> float:
    """Return `value` as a float; TypeError if it is none."""
    if type(value) is float:  # as a rule
        return value
    try:
        return float(operator.pos(value))  # + refuses the text that float would read
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: {argument} is {value!r}, needs a number") from None


def integer(name: str, argument: str, value: int) -> int:
    """Return `value` as an int; TypeError if it is none, ValueError beyond int64."""
    try:
        index = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {argument} is {value!r}, needs an integer") from None
    if not -INT64_MAX <= index <= INT64_MAX:
        raise _beyond_int64(name, argument, value)
    return index


def integers(name: str, argument: str, values: Iterable[int]) -> tuple[int, ...]:
    """Return several integers as a tuple; TypeError if they are none, ValueError beyond int64."""
    return tuple(integer(name, argument, value) for value in iterable(name, argument, values, "integers"))


def iterable(name: str, argument: str, values: Iterable[T], needs: str) -> Iterable[T]:
    """Return `values`; TypeError if they cannot be gone through."""
    try:
        iter(values)
    except TypeError:
        raise TypeError(f"{name}: {argument} is {values!r}, needs several {needs}") from None
    return values


def _beyond_int64(name: str, argument: str, value: object) -> ValueError:
    return ValueError(f"{name}: {argument} is {value}, needs to fit into 64 bits")


def renamed(error: E, inner: str, name: str) -> E:
    """Return the error of a function of the core under the name that the user called."""
    return type(error)(str(error).replace(inner, name, 1))


def one_of(name: str, argument: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of the `allowed` words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def int64(name: str, argument: str, indices: Input) -> npt.NDArray[np.int64]:
    """Return an array of any integer dtype as contiguous int64; TypeError for others, IndexError beyond int64."""
    given = indices.data if isinstance(indices, Tensor) else indices
    try:
        array = given if type(given) is np.ndarray else np.asarray(given)
    except ValueError as error:  # nested lists of unequal lengths
        raise ValueError(f"{name}: {argument} is not a rectangular array: {error}") from None
    if array.dtype == INT64 and array.flags.carray:  # the usual case, faster than asking NumPy to convert
        return array
    if array.dtype.kind == "O" and array.size and all(isinstance(index, int) for index in array.flat):
        raise IndexError(f"{name}: {argument} has {max(array.flat, key=abs)}, needs at most {INT64_MAX}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: {argument} must hold integers, got {array.dtype}")
    if mode.recorder is not None and mode.recorder.made(array):
        return _core.as_int64(array)
    # The rest of uint64 would wrap to negative indices.
    if array.dtype.kind == "u" and array.itemsize == 8 and array.size and (largest := int(array.max())) > INT64_MAX:
        raise IndexError(f"{name}: {argument} has {largest}, needs at most {INT64_MAX}")
    return np.asarray(array, np.int64, order="C")


Backward: TypeAlias = Callable[[Array], Gradients]
