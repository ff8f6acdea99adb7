"""Checkpoints: what goes in comes out, what is broken is refused by name, and nothing is half-written."""

import builtins
import io
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pynn import nn
from pynn._files import atomic_file
from pynn.serialize import load, save

try:
    import torch
except ImportError:
    torch = None

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
        ({"w": np.array([object()])}, None, TypeError, "'w' has dtype object"),
        ({"w": np.array(["text"])}, None, TypeError, "'w' has dtype <U4"),
        ({"w": np.ones(2, complex)}, None, TypeError, "'w' has dtype complex128"),
        ({"w": np.ones(2)}, {"epochs": 3}, TypeError, "'epochs' is int"),
        (nn.Linear(1, 1), None, TypeError, r"state is a Linear, needs named arrays, such as model\.state_dict\(\)$"),
        ([np.ones(2)], None, TypeError, "state is a list, needs named arrays"),
    ],
)
def test_refused_before_anything_is_written(path, state, metadata, error, message):
    with pytest.raises(error, match=rf"^save: .*{message}"):
        save(path, state, metadata)
    assert list(path.parent.iterdir()) == []


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


# -- PyTorch's files ---------------------------------------------------------------------------------------------------
def network(n=nn):
    return n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2), n.ReLU(), n.Flatten(), n.Linear(8, 3))


def write_pytorch(path, state, metadata=None):
    """Write what PyTorch writes for the suffix."""
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path, metadata)
    else:
        torch.save(state, path)


@pytest.fixture(params=["safetensors", "pt", "pth"])
def pytorch_path(request, tmp_path):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    return tmp_path / f"weights.{request.param}"


def test_weights_of_pytorch(pytorch_path):
    theirs, ours = network(torch.nn), network()
    theirs(torch.randn(5, 1, 4, 4))  # running statistics
    theirs.eval()
    write_pytorch(pytorch_path, theirs.state_dict())
    assert ours.load_state_dict(load(pytorch_path)[0]) == ([], [])
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, theirs.state_dict()[name].numpy(), err_msg=name)
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours.eval()(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_pytorch_that_do_not_fit(pytorch_path):
    state = network(torch.nn).state_dict()
    state["extra"] = torch.ones(2)
    state["4.weight"] = torch.ones(8, 3)
    state["4.bias"] = torch.ones(3, dtype=torch.int64)
    del state["0.bias"]
    write_pytorch(pytorch_path, state)
    ours = network()
    before = ours.state_dict()
    with pytest.raises(ValueError, match=r"^load_state_dict: Sequential is unchanged: ") as error:
        ours.load_state_dict(load(pytorch_path)[0])
    for part in ("missing 0.bias", "unexpected extra", "4.weight has shape [8, 3]", "4.bias has dtype int64"):
        assert part in str(error.value)
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    del state["4.weight"], state["4.bias"]
    write_pytorch(pytorch_path, state)
    assert ours.load_state_dict(load(pytorch_path)[0], strict=False) == (["0.bias", "4.weight", "4.bias"], ["extra"])
    np.testing.assert_array_equal(ours[0].weight.data, state["0.weight"].numpy())


def test_dtypes_of_pytorch(pytorch_path):
    numbers = [0.0, -1.5, 3e38, 1e-40, float("inf"), float("nan")]
    state = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "bfloat16": torch.tensor(numbers, dtype=torch.bfloat16),
        "of no axis": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3, dtype=torch.bfloat16),
        "matrix": torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3),
        "double": torch.tensor([1e300], dtype=torch.float64),
        "integer": torch.tensor([1, -2]),
        "flag": torch.tensor([True, False]),
    }
    write_pytorch(pytorch_path, state)
    found = load(pytorch_path)[0]
    assert set(found) == set(state)
    for name, tensor in state.items():
        wanted = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        assert found[name].dtype == wanted.dtype, name
        assert found[name].shape == wanted.shape, name
        assert found[name].flags.c_contiguous, name
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)
        found[name][...] = 0  # it is ours
    layer = nn.Linear(3, 2, bias=False)
    layer.load_state_dict({"weight": load(pytorch_path)[0]["matrix"]})
    np.testing.assert_array_equal(layer.weight.data, [[0, 1, 2], [3, 4, 5]])


def test_weights_go_to_pytorch_as_safetensors(tmp_path):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    load_file = pytest.importorskip("safetensors.torch").load_file
    ours, theirs = network(), network(torch.nn)
    save(tmp_path / "weights.safetensors", ours.state_dict(), {"format": "pt"})
    theirs.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), ours.state_dict()[name], err_msg=name)


def test_a_dtype_that_numpy_lacks(pytorch_path):
    write_pytorch(pytorch_path, {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(ValueError, match=r"^load: .*weights"):
        load(pytorch_path)


class Runs:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("with_torch", [True, False])
def test_no_pickle_runs_code(tmp_path, monkeypatch, with_torch):
    if with_torch and torch is None:
        pytest.skip("PyTorch is not installed")
    path, folder = tmp_path / "weights.pt", tmp_path / "made"
    if with_torch:
        torch.save({"weight": Runs(folder)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Runs(folder)}))
        monkeypatch.setitem(sys.modules, "torch", None)
    error, message = (
        (ValueError, "not a readable file of PyTorch weights: .*mkdir")
        if with_torch
        else (
            ImportError,
            r"only PyTorch reads here, and it is not installed; .* \.safetensors",
        )
    )
    with pytest.raises(error, match=rf"^load: .*weights\.pt .*{message}"):
        load(path)
    assert not folder.exists()


@pytest.mark.parametrize("seed", range(4))
def test_pt_files_with_other_bytes_are_read_or_refused(tmp_path, seed):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    path, rng = tmp_path / "weights.pt", np.random.default_rng(seed)
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2, 3), "b": torch.arange(4)}, stream, _use_new_zipfile_serialization=seed % 2 == 0)
    whole = np.frombuffer(stream.getvalue(), np.uint8)
    for i in range(150):
        content = whole.copy()
        at = rng.integers(min(len(whole), 700), size=rng.integers(1, 4))
        content[at] = rng.integers(256, size=len(at))
        path.write_bytes(content.tobytes())
        try:
            state = load(path)[0]
        except ValueError as error:
            found = str(error).startswith("load: ")
        else:
            found = all(isinstance(value, np.ndarray) for value in state.values())
        assert found, (seed, i)


@pytest.mark.parametrize("name", ["KeyError", "IndexError", "AssertionError", "TypeError", "MemoryError", "OSError"])
def test_what_pytorch_raises_for_a_pt_file(tmp_path, monkeypatch, name):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    kind = getattr(builtins, name)

    def fail(*args, **kwargs):
        raise kind

    path = tmp_path / "weights.pt"
    path.touch()
    monkeypatch.setattr(torch, "load", fail)
    passes = name in ("MemoryError", "OSError")
    message = None if passes else rf"weights\.pt is not a readable file of PyTorch weights: {name}"
    with pytest.raises(kind if passes else ValueError, match=message):
        load(path)


def test_lazy_signs_of_pytorch(tmp_path):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    z = torch.tensor([1 + 2j])
    assert z.conj().imag.is_neg()
    torch.save({"negated": z.conj().imag}, tmp_path / "weights.pt")
    assert load(tmp_path / "weights.pt")[0]["negated"].tolist() == [-2]


def test_pt_files_that_are_no_state_dict(tmp_path):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    path = tmp_path / "weights.pt"
    whole = network(torch.nn).state_dict()
    for content, message in (
        ({"model": whole, "epoch": 3}, "holds a OrderedDict under 'model', needs a state_dict.* torch.load"),
        ({3: torch.ones(2)}, "holds a Tensor under 3, needs a state_dict"),
        (torch.ones(2), "holds a Tensor, needs a state_dict"),
        ({"w": torch.eye(3).to_sparse()}, "w is sparse or quantised"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "w has dtype torch.complex64, needs bool, integer or float"),
        (network(torch.nn), "is not a readable file of PyTorch weights: Unsupported global"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"^load: .*weights\.pt.* {message}"):
            load(path)
    torch.save(whole, path)
    content = path.read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"^load: .*weights\.pt is not a readable file of PyTorch weights"):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing.pt")
    with pytest.raises(ValueError, match=r"^save: .*weights\.pt ends in '\.pt', expected \.safetensors or \.npz"):
        save(path, {"w": np.ones(2)})


def test_an_old_pytorch_is_refused(tmp_path, monkeypatch):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    torch.save({"w": torch.ones(2)}, tmp_path / "weights.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ImportError, match=r"^load: .*weights\.pt needs PyTorch 2\.6 or newer, got 2\.5\.1"):
        load(tmp_path / "weights.pt")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="bytes-like"), atomic_file(path) as file:
        file.writelines([b"new", "not bytes"])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


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
