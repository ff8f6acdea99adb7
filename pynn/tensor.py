"""`Tensor`: a NumPy array that remembers how it was computed."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import dlpack
from pynn._array import as_array, as_gradient
from pynn._checks import flag
from pynn.grad_mode import catch_up, is_grad_enabled, mode, no_grad, observers, switches

if TYPE_CHECKING:
    from pynn.tape import Node

Array: TypeAlias = npt.NDArray[Any]
Axes: TypeAlias = int | Sequence[int] | None


class Tensor:
    """An n-dimensional array with gradients.

    Parameters
    ----------
    data : array_like
        Python numbers and lists become float32 (int64 or bool if they hold only such). NumPy arrays keep their dtype
        (float32, float64, integers, bool) and are *shared* if they are C-contiguous and native, else copied.
    requires_grad : bool
        Whether `backward` shall fill `.grad`; floating dtypes only.
    dtype : dtype_like, optional
        Convert to this dtype.

    Attributes
    ----------
    data : numpy.ndarray
        The values. Writes through it are not tracked.
    requires_grad : bool
        True for leaves that ask for it and for everything computed from them.

    Raises
    ------
    TypeError
        For a dtype that pynn does not compute in (float16, complex, object, …).

    Examples
    --------
    >>> import pynn
    >>> w = pynn.Tensor([[1.0, 2.0]], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    array([[2., 4.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "_grad", "_node", "_version", "data", "requires_grad")
    __array_ufunc__ = None  # makes `ndarray + Tensor` call Tensor.__radd__

    data: Array
    requires_grad: bool
    _grad: Array | None  # what `grad` returns; pynn itself writes it without the checks
    _node: Node | None  # None for a leaf
    _version: list[int]  # when `data` was last written in place, on the tape's clock; shared with views

    def __init__(self, data: object, requires_grad: bool = False, dtype: npt.DTypeLike | None = None) -> None:
        if isinstance(data, Tensor):
            self.data = as_array("Tensor", data.data, dtype)
            self._version = data._version if self.data is data.data else [0]
            if observers and mode.recorder is not None:
                mode.recorder.reads(data)
        else:
            self.data = as_array("Tensor", data, dtype)
            self._version = [0]
        self._grad = None
        self._node = None
        self.requires_grad = False
        if requires_grad is not False:  # as a rule it is
            self.requires_grad_(requires_grad)

    # -- properties ----------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the elements."""
        return self.data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's name
        """The tensor with its axes reversed."""
        return F.transpose(self)

    # -- gradients -----------------------------------------------------------------------------------------------------
    @property
    def grad(self) -> Array | None:
        """The gradient, summed over backward passes until it is set to None.

        An array that is assigned needs the shape and dtype of `data`; it is copied unless it is C-contiguous.
        """
        return self._grad

    @grad.setter
    def grad(self, grad: Array | None) -> None:
        checked = None if grad is None else as_gradient(grad, self.data)
        if observers and mode.recorder is not None:
            note = mode.recorder.drops_gradient if checked is None else mode.recorder.assigns_gradient
            note(self)
        self._grad = checked

    def backward(self, grad: object = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf it depends on.

        Parameters
        ----------
        grad : array_like, optional
            Gradient of the final value with respect to this tensor, of its shape; 1 for a tensor of one element.
        retain_graph : bool
            Keep the graph for another backward; otherwise it is freed on the way.

        Raises
        ------
        RuntimeError
            If nothing here requires a gradient, the graph was already freed, or an array that it needs was changed in
            place.
        ValueError
            If `grad` is missing for a tensor of several elements, or has another shape.
        """
        tape.backward(self, grad, flag("backward", "retain_graph", retain_graph))

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf, and return it.

        Raises TypeError for integers, RuntimeError for a computed tensor.
        """
        requires_grad = flag("requires_grad", "requires_grad", requires_grad)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"requires_grad: needs float32 or float64, got {self.data.dtype}; use astype or write 1.0")
        if self._node is not None and not requires_grad:
            raise RuntimeError("requires_grad: only leaves can stop requiring a gradient; use detach()")
        if requires_grad and mode.recorder is not None:
            mode.recorder.new_leaf(self)
        switches(self, "requires_grad")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Let `backward` fill `.grad` of this computed tensor too (leaves always have it)."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: the tensor does not require a gradient")
        if self._node is not None:
            self._node.retained = weakref.ref(self)

    def detach(self) -> Tensor:
        """Return the same values without their history (shared, not copied)."""
        return Tensor(self)

    # -- NumPy ---------------------------------------------------------------------------------------------------------
    def numpy(self) -> Array:
        """Return the values as an array that shares memory; read-only if the tensor requires a gradient."""
        if mode.recorder is not None:
            mode.recorder.numpy(self)
        if not self.requires_grad:
            return self.data
        view = self.data.view()
        view.flags.writeable = False
        return view

    def _values(self) -> Array:
        """Return the values for NumPy to read now."""
        catch_up()
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if dtype is not None and np.dtype(dtype) != self.data.dtype:
            if copy is False:
                raise ValueError(f"__array__: {self.data.dtype} to {np.dtype(dtype)} needs a copy, got copy=False")
            return self.data.astype(dtype)
        return self.data.copy() if copy else self.numpy()

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule of the memory (of a copy if `copy`); BufferError if a gradient is required."""
        return dlpack.export(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's number of the CPU."""
        return dlpack.CPU

    def item(self) -> float | int | bool:
        """Return the only element as a Python number; ValueError unless there is exactly one."""
        if self.data.size != 1:
            raise ValueError(f"item: needs a tensor of one element, got shape {list(self.shape)}")
        value: float | int | bool = self._values().item()
        return value

    def tolist(self) -> Any:
        """Return the values as nested Python lists."""
        return self._values().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.data.dtype.kind not in "iu" or self.data.size != 1:
            raise TypeError(f"index: needs one integer, got {self.data.dtype} of shape {list(self.shape)}")
        return int(self._values().item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"bool: the truth of a tensor of shape {list(self.shape)} is ambiguous; use any() or all()"
            )
        return bool(self._values().item())

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("len: a 0-d tensor has no length")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.data.ndim:
            raise TypeError("iter: cannot iterate over a 0-d tensor")
        return (self[i] for i in range(len(self.data)))

    def __contains__(self, value: object) -> bool:
        return bool(np.any(self._values() == _raw(value)))

    def __repr__(self) -> str:
        text = np.array2string(self._values(), separator=", ", prefix="Tensor(")
        details = [f"dtype={self.data.dtype}"]
        if self.data.size > np.get_printoptions()["threshold"] or not self.data.size:
            details.insert(0, f"shape={list(self.shape)}")
        if self._node is not None:
            details.append(f"grad_fn=<{self._node.name}>")
        elif self.requires_grad:
            details.append("requires_grad=True")
        return f"Tensor({text}, {', '.join(details)})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __getstate__(self) -> dict[str, Any]:
        if self._node is not None:
            raise RuntimeError(f"copy: a tensor computed by {self._node.name} has a history; copy its detach() instead")
        state = {name: getattr(self, name) for name in ("data", "grad", "requires_grad")}
        return state | getattr(self, "__dict__", {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._node, self._version = None, [0]
        for name, value in state.items():
            setattr(self, name, value)

    def __copy__(self) -> Tensor:
        state = self.__getstate__()
        copied = object.__new__(type(self))
        copied._node, copied._grad = None, state.pop("grad")
        copied._version = self._version  # of the same memory
        for name, value in state.items():
            setattr(copied, name, value)
        if mode.recorder is not None:
            mode.recorder.reads(self)
        return copied

    # -- in place: only what needs no tape -----------------------------------------------------------------------------
    def _bump_version(self) -> None:
        """Note that `data` was written in place, so that a backward that needs the old values is refused."""
        self._version[0] = tape.write_in_place()

    def __setitem__(self, key: Any, value: object) -> None:
        if is_grad_enabled() and (self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)):
            raise RuntimeError(
                "setitem: a write is not differentiable; use pynn.functional.where, or write under pynn.no_grad()"
            )
        if mode.recorder is not None:
            mode.recorder.writes("setitem")
        try:
            values = np.asarray(_raw(value), self.data.dtype)  # all or none: what cannot be converted writes nothing
            self.data[_raw_key(key)] = values
        except (IndexError, TypeError, ValueError, OverflowError) as error:
            raise type(error)(f"setitem: shape {list(self.shape)}: {error}") from None
        self._bump_version()

    def _in_place(self, name: str, other: object) -> Tensor:
        """`self += other`: rebinds to a new tensor where the tape needs the old one, writes in place elsewhere."""
        result: Tensor
        if is_grad_enabled():
            if self.requires_grad and self._node is None:
                raise RuntimeError(f"{name}: in-place change of a leaf that requires a gradient; use pynn.no_grad()")
            if self.requires_grad or (isinstance(other, Tensor) and other.requires_grad):
                result = getattr(F, name)(self, other)
                return result
        if mode.recorder is not None:
            mode.recorder.writes(name)
        with no_grad():
            result = getattr(F, name)(self, other)
        if result.shape != self.shape:
            raise ValueError(f"{name}: result {list(result.shape)} does not fit in place into {list(self.shape)}")
        try:
            self.data[...] = result.data
        except ValueError as error:  # of memory that is read-only
            raise ValueError(f"{name}: in place into {list(self.shape)}: {error}") from None
        self._bump_version()
        return self

    def __iadd__(self, other: Any) -> Tensor:
        return self._in_place("add", other)

    def __isub__(self, other: Any) -> Tensor:
        return self._in_place("sub", other)

    def __imul__(self, other: Any) -> Tensor:
        return self._in_place("mul", other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._in_place("div", other)

    # -- operators -----------------------------------------------------------------------------------------------------
    def __getitem__(self, key: Any) -> Tensor:
        return F.index(self, key)

    def __neg__(self) -> Tensor:
        return F.neg(self)

    def __abs__(self) -> Tensor:
        return F.abs(self)

    def __add__(self, other: Any) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return F.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return F.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return F.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return F.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return F.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return F.div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return F.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return F.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return F.matmul(other, self)

    # Comparisons have no gradient: they give NumPy arrays of bool.
    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return np.asanyarray(self._values() == _raw(other))  # which is guarded while a step is captured

    def __ne__(self, other: object) -> Array:  # type: ignore[override]
        return np.asarray(self._values() != _raw(other))

    def __lt__(self, other: Any) -> Array:
        return np.asarray(self._values() < _raw(other))

    def __le__(self, other: Any) -> Array:
        return np.asarray(self._values() <= _raw(other))

    def __gt__(self, other: Any) -> Array:
        return np.asarray(self._values() > _raw(other))

    def __ge__(self, other: Any) -> Array:
        return np.asarray(self._values() >= _raw(other))

    __hash__ = object.__hash__  # by identity: tensors are keys of dicts

    # -- operations as methods (documented in pynn.functional) ---------------------------------------------------------
    def exp(self) -> Tensor:
        """See `pynn.functional.exp`."""
        return F.exp(self)

    def log(self) -> Tensor:
        """See `pynn.functional.log`."""
        return F.log(self)

    def sqrt(self) -> Tensor:
        """See `pynn.functional.sqrt`."""
        return F.sqrt(self)

    def abs(self) -> Tensor:
        """See `pynn.functional.abs`."""
        return F.abs(self)

    def relu(self) -> Tensor:
        """See `pynn.functional.relu`."""
        return F.relu(self)

    def sigmoid(self) -> Tensor:
        """See `pynn.functional.sigmoid`."""
        return F.sigmoid(self)

    def tanh(self) -> Tensor:
        """See `pynn.functional.tanh`."""
        return F.tanh(self)

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        """See `pynn.functional.clip`."""
        return F.clip(self, low, high)

    def softmax(self, dim: int = -1) -> Tensor:
        """See `pynn.functional.softmax`."""
        return F.softmax(self, dim)

    def log_softmax(self, dim: int = -1) -> Tensor:
        """See `pynn.functional.log_softmax`."""
        return F.log_softmax(self, dim)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `pynn.functional.sum`."""
        return F.sum(self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `pynn.functional.mean`."""
        return F.mean(self, axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `pynn.functional.max`."""
        return F.max(self, axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """See `pynn.functional.min`."""
        return F.min(self, axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, correction: int = 1) -> Tensor:
        """See `pynn.functional.var`."""
        return F.var(self, axis, keepdims, correction)

    def argmax(self, axis: int | None = None) -> Tensor:
        """See `pynn.functional.argmax`."""
        return F.argmax(self, axis)

    def reshape(self, *shape: Any) -> Tensor:
        """See `pynn.functional.reshape`; takes a tuple or separate integers."""
        return F.reshape(self, shape[0] if len(shape) == 1 else shape)

    def flatten(self, start_dim: int = 0) -> Tensor:
        """See `pynn.functional.flatten`."""
        return F.flatten(self, start_dim)

    def transpose(self, *axes: Any) -> Tensor:
        """See `pynn.functional.transpose`; takes a tuple or separate integers, NumPy's way."""
        return F.transpose(self, (axes[0] if len(axes) == 1 else axes) or None)

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        """See `pynn.functional.astype`."""
        return F.astype(self, dtype)


def bump_versions(tensors: Iterable[Tensor]) -> None:
    """Note that the data of all of them was written in place."""
    now = tape.write_in_place()
    for tensor in tensors:
        tensor._version[0] = now


def _raw(value: object) -> Any:
    return value.data if isinstance(value, Tensor) else value


def _raw_key(key: Any) -> Any:
    return tuple(_raw(k) for k in key) if isinstance(key, tuple) else _raw(key)


# The tape and the operations are built on Tensor, and its methods on them: one of the two has to be imported last.
from pynn import functional as F  # noqa: E402
from pynn import tape  # noqa: E402
