"""Weights in files: `.safetensors` (through the safetensors package) or `.npz` (NumPy alone), written atomically."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._files import atomic_file

__all__ = ["load", "save"]

Array = npt.NDArray[Any]
State = dict[str, Array]

SUFFIXES = (".safetensors", ".npz")
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
        If the suffix is unknown or an array's name is reserved.
    TypeError
        If a name or a metadata value is not a string, or an array is not numeric.
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
    suffix = _suffix("save", path)
    arrays = {_check_name(name): _storable(name, value) for name, value in state.items()}
    text = dict(metadata or {})
    for key, value in text.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save: metadata entry {key!r} is {type(value).__name__}, names and values must be str")
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
    """Read what `save` wrote: the arrays by name, and the metadata (empty if the file has none).

    No pickled data is ever read. `.npz` files written by `numpy.savez` are accepted too.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is unknown or the file is truncated, corrupt or of another kind.
    ImportError
        If the safetensors package is missing.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "w.npz")
    >>> save(path, {"weight": np.zeros(3)})
    >>> load(path)[0]
    {'weight': array([0., 0., 0.])}
    """
    suffix = _suffix("load", path)
    return _load_safetensors(path) if suffix == ".safetensors" else _load_npz(path)


def _suffix(operation: str, path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{operation}: {os.fspath(path)} ends in {suffix!r}, expected {' or '.join(SUFFIXES)}")
    return suffix


def _check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"save: array name {name!r} is {type(name).__name__}, expected str")
    if name == METADATA:
        raise ValueError(f"save: array name {METADATA!r} is reserved")
    return name


def _storable(name: str, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"save: array {name!r} has dtype {array.dtype}, expected bool, integer or float up to 64 bits")
    # safetensors writes the raw buffer whatever the strides and byte order say.
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _import_safetensors(operation: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{operation}: .safetensors files need the safetensors package: pip install 'pynn-cpu[safetensors]' "
            "(or use the suffix .npz)"
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
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        # OSError: an empty file cannot be mapped. TypeError, AttributeError: a dtype NumPy lacks, such as bfloat16.
        raise ValueError(f"load: {os.fspath(path)} is not a readable safetensors file: {error}") from error


def _load_npz(path: str | os.PathLike[str]) -> tuple[State, dict[str, str]]:
    state: State = {}
    metadata: dict[str, str] = {}
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.namelist():
                    content = archive.read(entry)  # all of it, so that the checksum is verified
                    if entry == f"{METADATA}.json":
                        metadata = _parse_metadata(content)
                    elif entry.endswith(".npy"):
                        state[entry.removesuffix(".npy")] = parse_npy(f"entry {entry!r}", content)
                    else:
                        raise ValueError(f"entry {entry!r} is not an array")
        # NotImplementedError: an unknown compression. RuntimeError: encryption. EOFError: cut within an entry.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(f"load: {os.fspath(path)} is not a readable .npz file: {error}") from error
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
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {dtype}, expected bool, integer or float")
    payload = stream.read()
    if min(shape, default=0) < 0 or len(payload) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {len(payload)} bytes, shape {list(shape)} of {dtype} needs others")
    array = np.frombuffer(payload, dtype).reshape(shape, order="F" if fortran_order else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")
