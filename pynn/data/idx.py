"""The IDX file format of MNIST: a big-endian header (type code, sizes), then the elements in C order.

Format: http://yann.lecun.com/exdb/mnist/ (section "the IDX file format").
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from io import BufferedIOBase
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn._files import atomic_file, check_path

MAX_BYTES = 1 << 32
"""Default for the largest array `read_idx` makes, in bytes (4 GiB)."""

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_MAX_RATIO = 1032  # bytes out per byte in: https://zlib.net/zlib_tech.html
_MAX_NDIM = 32  # NumPy 1's limit
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> npt.NDArray[Any]:
    """Read an IDX file, raw or gzip (told apart by the bytes, not by the name).

    Parameters
    ----------
    path : path-like
        The file.
    max_bytes : int
        Refuse a header that asks for more than this many bytes of elements.

    Returns
    -------
    ndarray
        A new C-contiguous array in the machine's byte order: uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not IDX, truncated, over-long, corrupt, or larger than `max_bytes`.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "labels.idx"
    >>> write_idx(path, np.array([7, 2, 1], np.uint8))
    >>> read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    check_path("read_idx: path", path)
    name = os.fspath(path)
    with open(path, "rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        if not compressed:
            return _read_stream(file, name, max_bytes, available=size, exact=True)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_stream(stream, name, max_bytes, available=size * _DEFLATE_MAX_RATIO, exact=False)
        except EOFError as error:
            raise ValueError(f"read_idx: {name}: truncated gzip data") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"read_idx: {name}: corrupt gzip data ({error})") from error


def _read_stream(stream: BufferedIOBase, name: str, max_bytes: int, available: int, exact: bool) -> npt.NDArray[Any]:
    """Read header and elements; `available` bytes are in the stream (`exact`) or are the most that can be in it."""
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"read_idx: {name}: truncated, {len(magic)} bytes are not an IDX header")
    if magic[:2] != b"\0\0":
        raise ValueError(f"read_idx: {name}: not an IDX file, magic number 0x{magic.hex()} does not begin with 0x0000")
    code, ndim = magic[2], magic[3]
    if code not in _DTYPES:
        known = ", ".join(f"0x{known:02x}" for known in _DTYPES)
        raise ValueError(f"read_idx: {name}: unknown type code 0x{code:02x}, expected one of {known}")
    if not 1 <= ndim <= _MAX_NDIM:
        raise ValueError(f"read_idx: {name}: {ndim} dimensions, expected 1 to {_MAX_NDIM}")
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"read_idx: {name}: truncated in the header, {ndim} dimensions need {4 + 4 * ndim} bytes")
    shape = struct.unpack(f">{ndim}I", sizes)
    dtype = np.dtype(_DTYPES[code])
    nbytes = math.prod(shape) * dtype.itemsize  # Python integers: cannot overflow
    # A zero size makes the product 0, but NumPy multiplies the other sizes and would overflow.
    if math.prod(size for size in shape if size) * dtype.itemsize > max_bytes:
        raise ValueError(
            f"read_idx: {name}: header asks for {dtype.name} {list(shape)}, more than the limit of {max_bytes} bytes"
        )
    # Checked before memory is asked for: a header of a few bytes must not cost gigabytes.
    found = available - 4 - 4 * ndim
    if exact and found > nbytes:
        raise ValueError(f"read_idx: {name}: over-long, {found} bytes of elements, {list(shape)} needs {nbytes}")
    if found < nbytes:
        raise ValueError(
            f"read_idx: {name}: truncated, at most {found} bytes of elements, {list(shape)} needs {nbytes}"
        )
    buffer = np.empty(nbytes, np.uint8)
    done = 0
    while done < nbytes:
        got = stream.readinto(buffer[done : done + _CHUNK].data)
        if not got:
            raise ValueError(f"read_idx: {name}: truncated, {done} bytes of elements, {list(shape)} needs {nbytes}")
        done += got
    # Reading to the end also makes gzip compare its checksum.
    if stream.read(1):
        raise ValueError(f"read_idx: {name}: over-long, bytes follow the {nbytes} that {list(shape)} needs")
    return buffer.view(dtype.newbyteorder(">")).astype(dtype, copy=False).reshape(shape)


def idx_header(array: npt.NDArray[Any]) -> bytes:
    """Return the IDX header of `array`; TypeError for a dtype and ValueError for a shape that IDX cannot hold."""
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        names = ", ".join(dtype.name for dtype in _CODES)
        raise TypeError(f"write_idx: dtype {array.dtype}, IDX holds {names}")
    if not 1 <= array.ndim <= _MAX_NDIM:
        raise ValueError(f"write_idx: {array.ndim} dimensions, IDX holds 1 to {_MAX_NDIM}")
    if max(array.shape) >= 1 << 32:
        raise ValueError(f"write_idx: shape {list(array.shape)}, IDX sizes are below 2**32")
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)


def write_idx(path: str | os.PathLike[str], array: npt.NDArray[Any]) -> None:
    """Write `array` as an IDX file; gzip if the name ends in ".gz".

    The file appears whole or not at all, and equal arrays give equal bytes.

    Raises
    ------
    TypeError
        IDX has no code for the dtype (it has uint8, int8, int16, int32, float32, float64).
    ValueError
        The array has no dimension, more than 32, or a size of 2**32 or more.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "images.gz"
    >>> write_idx(path, np.zeros((2, 28, 28), np.uint8)); read_idx(path).shape
    (2, 28, 28)
    """
    check_path("write_idx: path", path)
    array = np.asarray(array)
    header = idx_header(array)
    elements = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).reshape(-1).view(np.uint8)
    with atomic_file(path) as file:
        if os.fspath(path).endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
                stream.write(header)
                stream.write(elements.data)
        else:
            file.write(header)
            file.write(elements.data)
