"""Weights in files of PyTorch: read where it is installed, and never by running code."""

import builtins
import io
import os
import pickle
import sys

import numpy as np
import pytest

from pynn import nn
from pynn.serialize import load, save

try:
    import torch
except ImportError:
    torch = None


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


@pytest.mark.parametrize("tensor", [lambda: torch.ones(2, requires_grad=True), lambda: torch.ones(2).bfloat16()])
def test_a_tensor_that_numpy_does_not_take_is_named(tmp_path, tensor):
    if torch is None:
        pytest.skip("PyTorch is not installed")
    with pytest.raises(TypeError, match=r"^save: 'w' is not an array: .*(grad|BFloat16)"):
        save(tmp_path / "weights.npz", {"w": tensor()})
    assert list(tmp_path.iterdir()) == []
