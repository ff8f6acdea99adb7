"""Weights in files: `.safetensors` (through the safetensors package) or `.npz` (NumPy alone), written atomically.

PyTorch's `.pt` files are pickles: PyTorch itself reads them, if it is installed, and nothing else does.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._files import atomic_file, check_path

__all__ = ["load", "save"]

Array = npt.NDArray[Any]
State = dict[str, Array]

SUFFIXES = (".safetensors", ".npz")
PYTORCH = (".pt", ".pth")  # that are read, not written
SAFE_PYTORCH = (2, 6)  # earlier ones can be made to run code by a file, in spite of weights_only (CVE-2025-32434)
# safetensors reserves this name in its header; the .npz form stores a JSON file under it.
METADATA = "__metadata__"


def save(
    path: str | os.PathLike[str], state: Mapping[str, npt.ArrayLike], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays and text to a `.safetensors` or `.npz` file.

    Parameters
    ----------
    path
        The suffix chooses the format; `.safetensors` needs the safetensors package.
    state
        Name to numeric array, as `Module.state_dict` gives it.
    metadata
        Name to text, stored beside the arrays.

    Raises
    ------
    ValueError
        If the suffix is unknown, an array's name is reserved or one that the format cannot hold, or lists of an array
        are of unequal lengths.
    TypeError
        If `path` is no path, `state` no mapping, a name or a metadata value not a string, or an array not numeric.
    ImportError
        If the safetensors package is missing.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "w.npz")
    >>> save(path, {"weight": np.eye(2)}, {"model": "eye"})
    >>> load(path)[1]
    {'model': 'eye'}
    """
    check_path("save: path", path)
    suffix = _suffix("save", path)
    if not isinstance(state, Mapping):
        raise TypeError(f"save: state is a {type(state).__name__}, needs named arrays, such as model.state_dict()")
    arrays = {_check_name(name, suffix): _storable(name, value) for name, value in state.items()}
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"save: metadata is a {type(metadata).__name__}, needs named texts")
    text = dict(metadata or {})
    for key, value in text.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save: metadata entry {key!r} is {type(value).__name__}, names and values must be str")
        if suffix == ".safetensors":  # the JSON of the other form escapes it
            _check_text(f"metadata entry {key!r}", key + value)
    if suffix == ".safetensors":
        payload = _import_safetensors("save").save(arrays, text or None)
        with atomic_file(path) as file:
            file.write(payload)
        return
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        archive.writestr(f"{METADATA}.json", json.dumps(text))


def load(path: str | os.PathLike[str]) -> tuple[State, dict[str, str]]:
    """Read named arrays from a file: the arrays by name, and the metadata (empty if the file has none).

    It reads what `save` wrote, `.npz` files of `numpy.savez`, `.safetensors` files of PyTorch and others (bfloat16
    becomes float32, which loses nothing), and a `state_dict` that `torch.save` wrote to a `.pt` or `.pth` file. These
    are pickles, which pynn never reads itself: `torch.load(weights_only=True)` does, of PyTorch 2.6 or newer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is no path.
    ValueError
        If the suffix is unknown, the file is truncated, corrupt or of another kind, or a `.pt` file holds something
        else than named tensors.
    ImportError
        If the safetensors package is missing, or for `.pt` PyTorch.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "w.npz")
    >>> save(path, {"weight": np.zeros(3)})
    >>> load(path)[0]
    {'weight': array([0., 0., 0.])}
    """
    check_path("load: path", path)
    if not os.path.exists(path):  # before its suffix, or a package that it would need
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    suffix = _suffix("load", path, (*SUFFIXES, *PYTORCH))
    if suffix in PYTORCH:
        return _load_pytorch(path), {}
    return _load_safetensors(path) if suffix == ".safetensors" else _load_npz(path)


def _suffix(operation: str, path: str | os.PathLike[str], known: tuple[str, ...] = SUFFIXES) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ValueError(f"{operation}: {os.fspath(path)} ends in {suffix!r}, expected {' or '.join(known)}")
    return suffix


def _check_name(name: str, suffix: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"save: array name {name!r} is {type(name).__name__}, expected str")
    if name == METADATA:
        raise ValueError(f"save: array name {METADATA!r} is reserved")
    _check_text(f"array name {name!r}", name)
    # zipfile reads a name up to its first NUL, and counts its bytes, ".npy" among them, in 16 bits.
    if suffix == ".npz" and ("\0" in name or len(name.encode()) > 2**16 - 1 - len(".npy")):
        raise ValueError(f"save: array name {name[:40]!r} has {len(name)} characters, .npz needs fewer and no NUL")
    return name


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise ValueError(f"save: {what} cannot be written as UTF-8: {error.reason}") from None


def _storable(name: str, value: npt.ArrayLike) -> Array:
    if isinstance(value, Mapping):
        raise TypeError(
            f"save: {name!r} is a {type(value).__name__}, needs an array; give nested ones names of their own"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of unequal lengths
        raise ValueError(f"save: {name!r} is not an array: {error}") from None
    except (TypeError, RuntimeError) as error:  # a tensor of PyTorch: of bfloat16, or one that asks for a gradient
        raise TypeError(f"save: {name!r} is not an array: {error}") from error
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"save: array {name!r} has dtype {array.dtype}, expected bool, integer or float up to 64 bits")
    # safetensors writes the raw buffer whatever the strides and byte order say.
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _import_safetensors(operation: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{operation}: .safetensors files need the safetensors package: pip install 'pynn-cpu[safetensors]'"
            + (" (or use the suffix .npz)" if operation == "save" else "")
        ) from error
    return safetensors.numpy


def _load_safetensors(path: str | os.PathLike[str]) -> tuple[State, dict[str, str]]:
    _import_safetensors("load")
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # the operating system's own error for a missing or unreadable file
        pass
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
            halves = [name for name, dtype in dtypes.items() if dtype == "BF16"]
            state = {name: file.get_tensor(name) for name in dtypes if name not in halves}
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        # OSError: an empty file cannot be mapped. TypeError, AttributeError: a dtype NumPy lacks, such as float8.
        raise ValueError(f"load: {os.fspath(path)} is not a readable safetensors file: {error}") from error
    if halves:
        with open(path, "rb") as raw:  # whose header was checked above
            start = 8 + int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(start - 8))
            for name in halves:
                begin, end = header[name]["data_offsets"]
                raw.seek(start + begin)
                state[name] = _widened(raw.read(end - begin), header[name]["shape"])
    for name, array in state.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"load: {os.fspath(path)}: {name} has dtype {array.dtype}, needs bool, integer or float")
    return {name: state[name] for name in dtypes}, metadata


def _widened(data: bytes, shape: list[int]) -> Array:
    """Bfloat16 as float32, of which it is the upper half."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)


def _load_pytorch(path: str | os.PathLike[str]) -> State:
    shown = os.fspath(path)
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"load: {shown} is a pickle, which only PyTorch reads here, and it is not installed; where it is, write "
            "the weights as .safetensors: safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_PYTORCH:
        raise ImportError(
            f"load: {shown} needs PyTorch {'.'.join(map(str, SAFE_PYTORCH))} or newer, got {torch.__version__}, which "
            "a file can make run code"
        )
    with open(path, "rb"):  # the operating system's own error for a missing or unreadable file
        pass
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a corrupt file leads torch.load to errors of any type
        # Of PyTorch's lines the one that says what it met, without the advice to read the file whatever it does.
        lines = [line for line in str(error).splitlines() if "GLOBAL" in line] or str(error).splitlines() or [""]
        reason = lines[0].rpartition("WeightsUnpickler error: ")[2].partition(". Please")[0]
        raise ValueError(
            f"load: {shown} is not a readable file of PyTorch weights: {reason or type(error).__name__}"
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"load: {shown} holds a {type(found).__name__}, needs a state_dict")
    state: State = {}
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"load: {shown} holds a {type(tensor).__name__} under {name!r}, needs a state_dict, of tensors alone; "
                "read it with torch.load, and pass the part that is one to load_state_dict"
            )
        state[name] = _of_pytorch(f"load: {shown}: {name}", tensor)
    return state


def _of_pytorch(what: str, tensor: Any) -> Array:
    """Return a copy of a tensor; bfloat16 becomes float32."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{what} is sparse or quantised, needs a dense tensor")
    if tensor.is_complex():
        raise ValueError(f"{what} has dtype {tensor.dtype}, needs bool, integer or float")
    try:
        tensor = tensor.detach().resolve_neg()  # which only a flag may say
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except TypeError as error:  # a dtype NumPy lacks, such as float8
        raise ValueError(f"{what}: {error}") from error
    return np.array(array, order="C")


def _load_npz(path: str | os.PathLike[str]) -> tuple[State, dict[str, str]]:
    state: State = {}
    metadata: dict[str, str] = {}
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.namelist()
                if len(set(entries)) != len(entries):
                    raise ValueError("two of its entries have one name")
                for entry in entries:
                    content = archive.read(entry)  # all of it, so that the checksum is verified
                    if entry == f"{METADATA}.json":
                        metadata = _parse_metadata(content)
                    elif entry.endswith(".npy"):
                        state[entry.removesuffix(".npy")] = parse_npy(f"entry {entry!r}", content)
                    else:
                        raise ValueError(f"entry {entry!r} is not an array")
        except MemoryError:
            raise
        # Of any type: each way of compression has its own, and Python may be built without that of LZMA's.
        except Exception as error:
            raise ValueError(
                f"load: {os.fspath(path)} is not a readable .npz file: {error or type(error).__name__}"
            ) from error
    return state, metadata


def _parse_metadata(content: bytes) -> dict[str, str]:
    metadata = json.loads(content)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not an object of strings")
    return metadata


def parse_npy(name: str, content: bytes) -> Array:
    """Return the array of a whole .npy file, called `name` in the ValueError for one that is broken."""
    # Not numpy.load: that allocates what the header asks for before it looks at the number of bytes.
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has .npy version {version}, expected 1.0 or 2.0")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # a corrupt header leads NumPy to errors of any type, such as tokenize.TokenError
        raise ValueError(f"{name} has no readable .npy header: {error or type(error).__name__}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {dtype}, expected bool, integer or float")
    payload = stream.read()
    if min(shape, default=0) < 0 or len(payload) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(payload)} bytes, shape {list(shape)} of {dtype} needs others")
    array = np.frombuffer(payload, dtype).reshape(shape, order="F" if fortran_order else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")
