"""IDX files: what is written is read, and anything else is refused by name and reason."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from pynn.data import idx, read_idx, write_idx

DTYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


def put(folder: Path, content: bytes) -> Path:
    path = folder / "some.idx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (0,), (3, 0, 2), (2, 3, 5), (1, 2, 1, 3)])
def test_reads_what_is_in_the_file(
    tmp_path: Path, rng: np.random.Generator, dtype: str, packed: bool, shape: tuple[int, ...]
) -> None:
    expected = (rng.standard_normal(shape) * 100).astype(dtype)
    content = header(DTYPES[dtype], *shape) + expected.astype(f">{dtype}").tobytes()
    array = read_idx(put(tmp_path, gzip.compress(content) if packed else content))
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
def test_write_then_read(tmp_path: Path, rng: np.random.Generator, dtype: str, order: str, name: str) -> None:
    array = (rng.standard_normal((4, 6, 5)) * 100).astype(order + dtype)[::-2, :, 1:].transpose(0, 2, 1)
    write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)
    packed = (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"
    assert packed == name.endswith(".gz")


def test_written_bytes_are_the_format(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.array([[1, -2], [3, 256]], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("00000b02 00000002 00000002 0001fffe 00030100")


def test_equal_arrays_give_equal_gzip_bytes(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.arange(5, dtype=np.int32))
    write_idx(tmp_path / "b.gz", np.arange(5, dtype=np.int32))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_packing_is_told_by_the_bytes_not_the_name(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.arange(3, dtype=np.uint8))
    (tmp_path / "a.gz").rename(tmp_path / "plain")
    assert read_idx(tmp_path / "plain").tolist() == [0, 1, 2]


GOOD = header(0x08, 2, 3) + bytes(6)
PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "truncated, 0 bytes", id="empty"),
        pytest.param(b"\0\0\x08", "truncated, 3 bytes", id="half a magic number"),
        pytest.param(b"PNG\r" + bytes(20), "magic number 0x504e470d", id="wrong magic"),
        pytest.param(header(0x0A, 2) + bytes(2), "unknown type code 0x0a", id="unknown type"),
        pytest.param(b"\0\0\x08\0", "0 dimensions", id="no dimensions"),
        pytest.param(b"\0\0\x08\xff" + bytes(2000), "255 dimensions", id="too many dimensions"),
        pytest.param(b"\0\0\x08\x03\0\0\0\1", "truncated in the header", id="half a header"),
        pytest.param(GOOD[:-1], "truncated, at most 5 bytes of elements, [2, 3] needs 6", id="truncated"),
        pytest.param(GOOD + b"\0", "over-long, 7 bytes of elements, [2, 3] needs 6", id="over-long"),
        pytest.param(header(0x0E, *[0xFFFFFFFF] * 5), "more than the limit", id="sizes overflow 64 bits"),
        pytest.param(header(0x0E, *[0xFFFFFFFF] * 3, 0), "more than the limit", id="overflow behind a zero"),
        pytest.param(header(0x08, 0xFFFFFFFF), "truncated, at most 0 bytes", id="large size, small file"),
        pytest.param(PACKED[:-9], "truncated gzip data", id="gzip: cut data"),
        pytest.param(PACKED[:-1], "truncated gzip data", id="gzip: cut checksum"),
        pytest.param(PACKED[:2], "truncated gzip data", id="gzip: magic only"),
        pytest.param(PACKED + b"junk", "corrupt gzip data", id="gzip: junk behind"),
        pytest.param(PACKED[:-8] + bytes(4) + PACKED[-4:], "corrupt gzip data (CRC check failed", id="gzip: wrong CRC"),
        pytest.param(PACKED[:10] + b"\xff" * 30, "corrupt gzip data", id="gzip: not deflate"),
        pytest.param(gzip.compress(GOOD[:-1]), "truncated, 5 bytes of elements", id="gzip: short content"),
        pytest.param(gzip.compress(GOOD + b"\0"), "over-long, bytes follow", id="gzip: long content"),
        pytest.param(gzip.compress(header(0x08, 0xFFFFFF)), "truncated, at most", id="gzip: impossible ratio"),
    ],
)
def test_refuses_by_name_and_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = put(tmp_path, content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared below, without regex rules)
        read_idx(path)
    assert str(caught.value).startswith(f"read_idx: {path}: ")
    assert reason in str(caught.value)


def test_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 MiB of zeros behind a header that asks for 6 bytes: one byte too many is enough to refuse.
    compressor = zlib.compressobj(9, wbits=31)
    path = put(tmp_path, compressor.compress(GOOD + bytes(1 << 26)) + compressor.flush())
    unpacked = 0
    real_read = gzip.GzipFile.read

    def counting_read(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal unpacked
        data = real_read(self, size)
        unpacked += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counting_read)
    with pytest.raises(ValueError, match="over-long"):
        read_idx(path)
    assert unpacked < 100


def test_size_limit(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)
    assert read_idx(path, max_bytes=6).shape == (2, 3)
    with pytest.raises(ValueError, match="more than the limit of 5 bytes"):
        read_idx(path, max_bytes=5)


def test_every_cut_of_a_packed_file_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    write_idx(tmp_path / "a.gz", rng.integers(0, 256, (5, 7), dtype=np.uint8))
    content = (tmp_path / "a.gz").read_bytes()
    for length in range(len(content)):
        with pytest.raises(ValueError, match="read_idx: "):
            read_idx(put(tmp_path, content[:length]))


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    write_idx(tmp_path / "a.gz", array)
    content = (tmp_path / "a.gz").read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x10
        try:
            loaded = read_idx(put(tmp_path, bytes(changed)))
        except ValueError as error:
            assert str(error).startswith("read_idx: ")  # noqa: PT017  (some bits of gzip mean nothing)
            refused += 1
        else:
            np.testing.assert_array_equal(loaded, array)
    assert refused > len(content) // 2


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize("dtype", ["i8", "u2", "f2", "?", "c8", "U1", "O"])
def test_write_refuses_dtypes_without_a_code(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(TypeError, match=r"write_idx: dtype .*, IDX holds uint8"):
        write_idx(tmp_path / "a", np.zeros(2, dtype))
    assert os.listdir(tmp_path) == []


def test_write_refuses_shapes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write_idx: 0 dimensions"):
        write_idx(tmp_path / "a", np.uint8(3))
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1 << 32,), (0,))
    with pytest.raises(ValueError, match=r"write_idx: shape \[4294967296\]"):
        write_idx(tmp_path / "a", wide)
    assert os.listdir(tmp_path) == []


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_idx(path, np.arange(3, dtype=np.uint8))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_idx(path, np.arange(9, dtype=np.uint8))
    assert os.listdir(tmp_path) == ["a"]
    assert read_idx(path).tolist() == [0, 1, 2]


def test_written_file_has_the_users_permissions(tmp_path: Path) -> None:
    write_idx(tmp_path / "a", np.zeros(1, np.uint8))
    (tmp_path / "plain").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_header_of_every_dtype_is_known() -> None:
    assert {idx.idx_header(np.zeros(1, dtype))[2] for dtype in DTYPES} == set(DTYPES.values())
