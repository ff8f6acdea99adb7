"""What stands for the values of a captured step while it is recorded, and the error of those who read them."""

from __future__ import annotations

import copy
import sys
import traceback
from typing import Any

import numpy as np

from pynn import _core
from pynn.grad_mode import mode

__all__ = ["CaptureError", "Guarded", "guarded", "where"]


class CaptureError(RuntimeError):
    """The function did something that a replay could not repeat."""


class Guarded(np.ndarray):
    """The memory of a recorded value: the core may read it, NumPy and Python may not."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise CaptureError(
            f"capture: a value {list(self.shape)} of a captured step is read, {where()}; each replay changes it, and "
            "only what pynn computes is repeated: return it from the captured function, and read it outside; what "
            "NumPy makes of an argument, pass as an argument"
        )

    # NumPy's own ways in, then Python's, then the methods that look at values.
    __array_function__ = __getitem__ = __setitem__ = __iter__ = _refuse
    __float__ = __int__ = __bool__ = __index__ = __complex__ = __contains__ = __repr__ = __str__ = _refuse
    item = tolist = tobytes = astype = copy = fill = argmax = argmin = argsort = sort = take = _refuse
    std = var = max = min = all = any = prod = dot = round = clip = nonzero = cumsum = _refuse
    flatten = repeat = trace = diagonal = compress = choose = searchsorted = argpartition = cumprod = _refuse
    byteswap = partition = put = setfield = _refuse
    __format__ = __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = tofile = dump = dumps = _refuse
    flat = _refuse  # type: ignore[assignment]

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        return self._in_place(super().reshape(*shape, **kwargs))

    def ravel(self, *args: Any, **kwargs: Any) -> Any:
        return self._in_place(super().ravel(*args, **kwargs))

    def _in_place(self, result: Any) -> Any:
        """Return what lies where this does; values that NumPy has copied are no view."""
        return result if _memory(result) == _memory(self) else self._refuse()

    # What a metric needs: how many, or which part, of integers are equal.
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        found = None
        if ufunc is np.equal and method == "__call__" and not kwargs and mode.recorder is not None:
            found = mode.recorder.equal(*inputs)
        return self._refuse() if found is None else found

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        return _core.count(self) if self._can_be_counted(args, kwargs) else self._refuse()

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        return _core.share(self) if self._can_be_counted(args, kwargs) else self._refuse()

    def _can_be_counted(self, *options: Any) -> bool:
        return self.dtype == bool and not any(options) and mode.recorder is not None


def guarded(value: Any) -> Any:
    """Return a result of the core with its arrays as `Guarded`."""
    if isinstance(value, np.ndarray):
        return value.view(Guarded)
    return tuple(map(guarded, value)) if isinstance(value, tuple) else value


def where() -> str:
    """The line of the user's that led here."""
    for frame, line in traceback.walk_stack(sys._getframe()):
        path = frame.f_code.co_filename
        if not path.startswith(_LIBRARIES) and (not path.startswith(_STANDARD_LIBRARY) or "-packages" in path):
            return f"at {path}:{line}"
    return "somewhere"


_memory = _core.Recording.memory
_LIBRARIES = __file__.rpartition("guarded")[0], np.__file__.rpartition("__init__")[0]
_STANDARD_LIBRARY = copy.__file__.rpartition("copy")[0]
