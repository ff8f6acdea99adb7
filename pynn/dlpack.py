"""DLPack, both ways: arrays of other libraries as tensors and tensors as theirs, on the same memory.

The protocol is that of the array-API standard (data-apis.org/array-api, 2023.12); NumPy makes and reads the capsules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pynn._array import Array, as_array
from pynn._checks import flag
from pynn.grad_mode import mode

if TYPE_CHECKING:
    from pynn.tensor import Tensor

__all__ = ["CPU", "export", "from_dlpack"]

CPU = (1, 0)  # kDLCPU, and its only number
_KNOWS_VERSIONS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # whether NumPy takes more arguments than `stream`


def export(
    tensor: Tensor,
    stream: object,
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """Return the capsule of `Tensor.__dlpack__`."""
    if tensor.requires_grad:
        raise BufferError(
            f"__dlpack__: the tensor {list(tensor.shape)} requires a gradient, which another library would not see; "
            "export its detach()"
        )
    if stream is not None:
        raise BufferError(f"__dlpack__: stream is {stream!r}, memory of a CPU needs None")
    if dl_device is not None and tuple(dl_device) != CPU:
        raise BufferError(f"__dlpack__: dl_device is {dl_device}, pynn has {CPU}, the CPU")
    if mode.recorder is not None:
        mode.recorder.numpy(tensor)
    array = tensor.data.copy() if copy else tensor.data
    if max_version is None or not _KNOWS_VERSIONS:
        return array.__dlpack__()
    return array.__dlpack__(max_version=max_version)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """Return a tensor on the memory of another library's array: what one writes the other sees.

    The memory lives for as long as either of the two does. An array that is read-only gives a tensor that cannot be
    written; with NumPy before 2.1 that is so for all but NumPy's own. Writes of the other library are not tracked, as
    those through `Tensor.data` are not.

    Parameters
    ----------
    x : object with `__dlpack__` and `__dlpack_device__`
        On the CPU: an array of NumPy or JAX, a tensor of PyTorch, …
    device : "cpu", optional
        The only one there is.
    copy : bool, optional
        None copies only what is not C-contiguous (such as a transposed matrix), aligned and of native byte order, as
        tensors of pynn always are. True always copies, False never does.

    Raises
    ------
    TypeError
        `x` does not offer DLPack, has a dtype that pynn does not compute in, or is a masked array; `copy` is no bool.
    ValueError
        `device` is not "cpu".
    BufferError
        `x` is on another device, requires a gradient, or has to be copied under ``copy=False``.

    Examples
    --------
    >>> import numpy as np, pynn
    >>> a = np.zeros(2, np.float32)
    >>> pynn.from_dlpack(a)[0] = 5
    >>> a
    array([5., 0.], dtype=float32)
    """
    from pynn.tensor import Tensor

    what = type(x).__name__
    if device not in (None, "cpu"):
        raise ValueError(f"from_dlpack: device is {device!r}, needs 'cpu'")
    if copy is not None:
        copy = flag("from_dlpack", "copy", copy)
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise TypeError(f"from_dlpack: {what} has no __dlpack__ and __dlpack_device__, needs an array that offers both")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            "from_dlpack: MaskedArray has a mask, which a tensor has not, needs an array without: x.filled(value)"
        )
    try:
        at = tuple(map(int, x.__dlpack_device__()))
    except ValueError as error:  # PyTorch, of a device without a number in DLPack
        raise BufferError(f"from_dlpack: {what} is on no device that DLPack knows: {error}") from None
    if at != CPU:
        raise BufferError(f"from_dlpack: {what} is on DLPack device {at}, needs {CPU}, the CPU")
    try:
        array: Array = x if type(x) is np.ndarray else np.from_dlpack(x)
    except BufferError as error:
        raise BufferError(f"from_dlpack: {what} refuses: {error}") from None
    except RuntimeError as error:  # a dtype that NumPy lacks, such as bfloat16
        raise TypeError(f"from_dlpack: {what} cannot be read: {error}") from None
    if copy is False and not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        raise BufferError(
            f"from_dlpack: {what} {list(array.shape)} of {array.dtype.str} with strides of {list(array.strides)} bytes "
            "is not C-contiguous, aligned and of native byte order, which needs a copy, got copy=False"
        )
    return Tensor(as_array("from_dlpack", array.copy() if copy else array))
