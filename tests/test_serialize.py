"""Checkpoints: what goes in comes out, what is broken is refused by name, and nothing is half-written."""

import errno
import fcntl
import io
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pynn import nn
from pynn._files import atomic_file, remove_leftovers
from pynn.serialize import load, save

SUFFIXES = ["npz", "safetensors"]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"weights.{request.param}"


ARRAYS = {
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "reversed": np.arange(5, dtype=np.float64)[::-1],
    "strided": np.arange(20, dtype=np.int64)[::3],
    "byte_swapped": np.arange(4, dtype=">f4"),
    "scalar": np.array(2.5, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "flags": np.array([True, False]),
    "bytes": np.arange(3, dtype=np.uint8),
    "half": np.array([0.5, np.inf, np.nan], dtype=np.float16),
}


def test_round_trip_of_every_layout(path):
    # safetensors writes the raw buffer of a transposed or reversed array as it lies in memory: the copy is ours.
    save(path, ARRAYS, {"model": "lenet", "note": 'ü "quoted"'})
    state, metadata = load(path)
    assert metadata == {"model": "lenet", "note": 'ü "quoted"'}
    assert set(state) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        got = state[name]
        assert got.shape == expected.shape, name
        assert got.dtype == expected.dtype.newbyteorder("="), name
        assert got.dtype.isnative, name
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_loaded_arrays_are_writable_and_contiguous(path):
    save(path, {"w": np.ones((2, 3), np.float32)})
    array = load(path)[0]["w"]
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array += 1


@pytest.mark.parametrize("name", ["file", "0.weight", "a/b", "arr_0", "ü"])
def test_awkward_names(path, name):
    save(path, {name: np.ones(2)})
    assert list(load(path)[0]) == [name]


def test_no_arrays_and_no_metadata(path):
    save(path, {})
    assert load(path) == ({}, {})


@pytest.mark.parametrize("suffix", ["pkl", "npy", "", "safetensors.bak"])
def test_unknown_suffix(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"save: .*weights.*expected .safetensors or .npz"):
        save(path, {})
    with pytest.raises(ValueError, match=r"load: .*weights.*expected .safetensors or .npz or .pt or .pth"):
        load(path)


@pytest.mark.parametrize(
    ("state", "metadata", "error", "message"),
    [
        ({1: np.ones(2)}, None, TypeError, "array name 1 is int"),
        ({"__metadata__": np.ones(2)}, None, ValueError, "reserved"),
        ({"state": {0: {"step": 1}}}, None, TypeError, "'state' is a dict, needs an array; give nested ones names"),
        ({"w": np.array([object()])}, None, TypeError, "'w' has dtype object"),
        ({"w": np.array(["text"])}, None, TypeError, "'w' has dtype <U4"),
        ({"w": np.ones(2, complex)}, None, TypeError, "'w' has dtype complex128"),
        ({"w": [[1.0], [1.0, 2.0]]}, None, ValueError, "'w' is not an array"),
        ({"\ud800": np.ones(2)}, None, ValueError, r"array name '\\ud800' cannot be written as UTF-8"),
        ({"w": np.ones(2)}, {"epochs": 3}, TypeError, "'epochs' is int"),
        ({"w": np.ones(2)}, [1], TypeError, "metadata is a list, needs named texts"),
        (nn.Linear(1, 1), None, TypeError, r"state is a Linear, needs named arrays, such as model\.state_dict\(\)$"),
        ([np.ones(2)], None, TypeError, "state is a list, needs named arrays"),
    ],
)
def test_refused_before_anything_is_written(path, state, metadata, error, message):
    with pytest.raises(error, match=rf"^save: .*{message}"):
        save(path, state, metadata)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b", "x" * 65532, "ü" * 32766])
def test_a_name_that_npz_cannot_hold_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"^save: array name '.*' has \d+ characters, \.npz needs fewer and no NUL$"):
        save(tmp_path / "weights.npz", {name: np.ones(2)})
    assert list(tmp_path.iterdir()) == []
    save(tmp_path / "weights.npz", {"x" * 65531: np.ones(2)})
    assert list(load(tmp_path / "weights.npz")[0]) == ["x" * 65531]


def test_text_that_is_no_utf_8_beside_the_arrays(tmp_path):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"^save: metadata entry 'file' cannot be written as UTF-8"):
        save(tmp_path / "weights.safetensors", {}, {"file": "\udcff"})
    save(tmp_path / "weights.npz", {}, {"file": "\udcff"})
    assert load(tmp_path / "weights.npz")[1] == {"file": "\udcff"}


def test_path_and_state_in_the_wrong_order():
    with pytest.raises(TypeError, match=r"^save: path is a dict, needs a str or an os\.PathLike$"):
        save({"w": np.ones(2)}, "weights.npz")
    with pytest.raises(TypeError, match=r"^load: path is a NoneType, needs a str"):
        load(None)


def test_missing_file(path):
    for missing in (path, path.with_suffix(""), path.with_suffix(".bin")):
        with pytest.raises(FileNotFoundError, match=re.escape(f"{str(missing)!r}")):
            load(missing)


def test_every_truncation_is_refused(path):
    save(path, {"w": np.arange(3, dtype=np.float32)}, {"model": "mlp"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"load: .*weights.* is not a readable"):
            load(path)


def test_a_missing_beginning_is_refused(path):
    save(path, {"w": np.arange(3, dtype=np.float32)}, {"model": "mlp"})
    whole = path.read_bytes()
    for begin in range(1, len(whole)):
        path.write_bytes(whole[begin:])
        with pytest.raises(ValueError, match=r"load: .*weights.* is not a readable"):
            load(path)


def test_foreign_bytes_are_refused(path):
    for content in (b"hello world, this is no weights file", b"PK\x03\x04" + bytes(60), bytes(100), b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"load: .*weights.* is not a readable"):
            load(path)


def test_a_flipped_bit_in_npz_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    save(path, {"w": np.zeros(1000, np.float32)})
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="CRC"):
        load(path)


def test_a_corrupt_entry_by_lzma_is_refused(tmp_path):
    pytest.importorskip("lzma")
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("w.npy", _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000,), }", bytes(1000)))
    np.testing.assert_array_equal(load(path)[0]["w"], np.zeros(1000, np.uint8))
    content = bytearray(path.read_bytes())
    content[50:60] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"load: .*weights\.npz is not a readable \.npz file"):
        load(path)


def _npy(header: str, payload: bytes = b"") -> bytes:
    body = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + payload


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("w.npy", _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"), "needs others"),
        ("w.npy", _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }", bytes(4)), "shape"),
        ("w.npy", _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", bytes(8)), "dtype object"),
        ("w.npy", b"no magic", "magic"),
        ("w.npy", _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, }"), "no readable .npy header"),
        ("w.npy", _npy("{'descr': ('<f4',), 'fortran_order': False, 'shape': (), }"), "no readable .npy header"),
        ("w.npy", _npy("-" * 5000 + "1"), "no readable .npy header"),
        ("readme.txt", b"hello", "'readme.txt' is not an array"),
        ("__metadata__.json", b"{", "Expecting"),
        ("__metadata__.json", b"[1]", "not an object of strings"),
    ],
)
def test_hostile_npz_entries(tmp_path, entry, content, message):
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, content)
    with pytest.raises(ValueError, match=rf"load: .*weights\.npz .*{message}"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for value in (b"a", b"b"):
            archive.writestr("w.npy", _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", value))
    with pytest.raises(ValueError, match=r"^load: .*weights\.npz is not .*: two of its entries have one name$"):
        load(path)


def test_complex_numbers_of_others_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    header = json.dumps({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"^load: .*weights\.safetensors.*( w has dtype complex64, needs bool|C64)"):
        load(path)


def test_npz_of_numpy_loads_and_ours_loads_in_numpy(tmp_path):
    theirs, ours = tmp_path / "theirs.npz", tmp_path / "ours.npz"
    w = np.arange(6.0).reshape(2, 3)
    np.savez_compressed(theirs, w=w, f=np.asfortranarray(w))
    state, metadata = load(theirs)
    np.testing.assert_array_equal(state["w"], w)
    np.testing.assert_array_equal(state["f"], w)
    assert metadata == {}
    save(ours, {"w": w}, {"model": "mlp"})
    with np.load(ours) as archive:
        np.testing.assert_array_equal(archive["w"], w)
        assert json.loads(archive["__metadata__.json"]) == {"model": "mlp"}


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ImportError, match=r"^save: .*pip install 'pynn-cpu\[safetensors\]'"):
        save(path, {"w": np.ones(2)})
    assert not path.exists()
    path.touch()
    with pytest.raises(ImportError, match=r"^load: .*pip install 'pynn-cpu\[safetensors\]'"):
        load(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="bytes-like"), atomic_file(path) as file:
        file.writelines([b"new", "not bytes"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_nobody_writes_is_left_over(tmp_path):
    leftover, another = tmp_path / ".a[1].bin.0123abcd.tmp", tmp_path / ".b.bin.0123abcd.tmp"
    leftover.touch()
    another.touch()
    with atomic_file(tmp_path / "a[1].bin") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path / "a[1].bin")
        assert not leftover.exists()
    assert (tmp_path / "a[1].bin").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [another.name, "a[1].bin"]


def test_a_file_taken_for_a_leftover_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def late(file, operation):
        calls.append(operation)
        if len(calls) == 1:
            remove_leftovers(tmp_path / "a.bin")
            assert not list(tmp_path.iterdir())
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"whole")
    assert calls == [fcntl.LOCK_EX, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def test_without_locks_files_are_written_and_leftovers_stay(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".a.bin.0123abcd.tmp").touch()
    with atomic_file(tmp_path / "a.bin") as file:
        file.write(b"whole")
    remove_leftovers(tmp_path / "a.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.bin.0123abcd.tmp", "a.bin"]


def test_a_name_that_is_too_long_for_the_folder_is_the_one_that_was_given(path):
    path = path.with_name("x" * 250 + path.suffix)
    with pytest.raises(OSError, match="too long") as error:
        save(path, {"w": np.ones(2)})
    assert error.value.filename == str(path)


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        save(tmp_path / "folder.npz", {"w": np.ones(2)})
    assert caught.value.filename == str(tmp_path / "folder.npz")  # not the temporary one
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


@pytest.mark.skipif(os.name != "posix", reason="pipes and links are those of POSIX")
def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "link.npz").symlink_to("pipe.npz")
    for name in ("pipe.npz", "link.npz"):
        with pytest.raises(OSError, match="needs a regular file") as caught:
            save(tmp_path / name, {"w": np.ones(2)})
        assert caught.value.filename == str(tmp_path / name)
    assert (tmp_path / "pipe.npz").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.npz", "pipe.npz"]
    reading, writing = os.pipe()  # it has a name that leads to none
    with pytest.raises(OSError, match="needs a regular file"), atomic_file(f"/dev/fd/{writing}"):
        pass
    os.close(reading)
    os.close(writing)


def test_bytes_reach_the_disk_before_the_name(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(Path(b).name), replace(a, b)))
    save(path, {"w": np.ones(2)})
    assert calls == ["fsync", path.name, "fsync"]  # the last one of the folder


@pytest.mark.skipif(os.name != "posix", reason="file modes and links are those of POSIX")
def test_mode_follows_the_umask_and_links_are_followed(tmp_path):
    target, link = tmp_path / "target.bin", tmp_path / "link.bin"
    link.symlink_to(target)
    with atomic_file(link) as file:
        assert isinstance(file, io.BufferedWriter)
        file.write(b"x")
    assert link.is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
