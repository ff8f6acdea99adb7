"""MNIST: where it is looked for, what is refused, and when it is substituted."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from small_mnist import NAMES, few_synthetic, isolated, put, small_arrays, small_is_mnist

from pynn.data import MNIST_MEAN, MNIST_STD, load_mnist, mnist, read_idx, write_idx
from pynn.data._download import cache_dir

__all__ = ["few_synthetic", "isolated", "small_is_mnist"]  # fixtures, found by their names in this module


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subfolder: str, suffix: str, given: str) -> None:
    put(tmp_path / "data" / subfolder, suffix)
    if given == "environment":
        monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "data"))
    data = load_mnist(tmp_path / "data" if given == "argument" else None)
    arrays = small_arrays()
    np.testing.assert_array_equal(data.train_images, arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test_labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert data.train == (data.train_images, data.train_labels)
    assert data.name == "custom IDX data"
    assert data.source == str(tmp_path / "data" / subfolder)
    assert not data.is_synthetic
    assert "custom IDX data" in repr(data)
    assert "[30, 28, 28]" in repr(data)


def test_packed_and_unpacked_files_may_be_mixed(tmp_path: Path) -> None:
    folder = put(tmp_path / "data")
    write_idx(folder / NAMES[0], read_idx(folder / f"{NAMES[0]}.gz"))
    (folder / f"{NAMES[0]}.gz").unlink()
    assert len(load_mnist(folder).train_images) == 30


@pytest.mark.usefixtures("small_is_mnist")
def test_only_mnist_is_called_mnist(tmp_path: Path) -> None:
    assert load_mnist(put(tmp_path / "same")).name == "mnist"
    images = small_arrays()["t10k-images-idx3-ubyte"]
    images[-1, -1, -1] ^= 1
    assert load_mnist(put(tmp_path / "other", t10k_images=images)).name == "custom IDX data"


def test_the_real_mnist(mnist_dir: Path) -> None:
    data = load_mnist(mnist_dir)
    assert data.name == "mnist"
    assert data.train_images.shape == (60000, 28, 28)
    assert data.test_images.shape == (10000, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = data.train_images / np.float32(255)
    assert round(float(pixels.mean(dtype=np.float64)), 4) == MNIST_MEAN
    assert round(float(pixels.std(dtype=np.float64)), 4) == MNIST_STD


def test_an_explicit_folder_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cache" / "mnist")
    monkeypatch.setenv("PYNN_DATA_DIR", str(put(tmp_path / "environment")))
    with pytest.raises(FileNotFoundError, match=r"load_mnist: data_dir .*none is not a folder"):
        load_mnist(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"load_mnist: data_dir .*empty has no MNIST, neither in itself nor in"):
        load_mnist(tmp_path / "empty")
    part = put(tmp_path / "part" / "mnist")
    (part / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"part/mnist lacks {NAMES[2]} "):
        load_mnist(tmp_path / "part")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": np.zeros((30, 28, 27), np.uint8)},
            "train-images.*got uint8 [30, 28, 27], needs uint8 [N, 28",
        ),
        ({"train_images": np.zeros((30, 784), np.uint8)}, "train-images.*got uint8 [30, 784]"),
        ({"train_images": np.zeros(30, np.uint8)}, "train-images.*got uint8 [30]"),
        ({"t10k_images": np.zeros((20, 28, 28), np.float32)}, "t10k-images.*got float32 [20, 28, 28]"),
        ({"t10k_images": np.zeros((0, 28, 28), np.uint8)}, "t10k-images.*N > 0"),
        ({"train_labels": np.zeros(29, np.uint8)}, "train-labels.*got uint8 [29], needs uint8 [30]"),
        ({"train_labels": np.zeros((30, 1), np.uint8)}, "train-labels.*got uint8 [30, 1], needs uint8 [30]"),
        ({"t10k_labels": np.zeros(20, np.int32)}, "t10k-labels.*got int32 [20]"),
        ({"t10k_labels": np.full(20, 10, np.uint8)}, "t10k-labels.*label 10, needs 0 to 9"),
    ],
)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_other_formats_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, np.ndarray], message: str, given: str
) -> None:
    folder = put(tmp_path / "data", **changes)
    pattern = "load_mnist: .*" + re.escape(message).replace(r"\.\*", ".*")
    if given == "environment":
        monkeypatch.setenv("PYNN_DATA_DIR", str(folder))
    with pytest.raises(ValueError, match=pattern):
        load_mnist(folder if given == "argument" else None)


def test_corrupt_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "data")
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setenv("PYNN_DATA_DIR", str(folder))
    for data_dir in (folder, None):
        with pytest.raises(ValueError, match=f"read_idx: .*{NAMES[0]}.gz: truncated gzip data"):
            load_mnist(data_dir)


@pytest.mark.usefixtures("small_is_mnist")
def test_environment_without_mnist_warns_and_goes_on_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "cache" / "mnist")
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "none"))
    data = load_mnist(download=False)
    assert data.name == "mnist"
    assert data.source == str(tmp_path / "cache" / "mnist")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"pynn: load_mnist: PYNN_DATA_DIR {tmp_path / 'none'} is not a folder; looking further\n"


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir("load_mnist") == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for empty in ("set", "unset"):
        monkeypatch.setenv("PYNN_CACHE_DIR", "") if empty == "set" else monkeypatch.delenv("PYNN_CACHE_DIR")
        assert cache_dir("load_mnist") == tmp_path / "xdg" / "pynn"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_dir("load_mnist") == tmp_path / ".cache" / "pynn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir("load_mnist") == tmp_path / ".cache" / "pynn"


def test_unknown_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PYNN_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(FileNotFoundError, match=r"load_mnist: no folder for the cache, .* set PYNN_CACHE_DIR"):
        load_mnist(allow_synthetic=False)


@pytest.mark.usefixtures("few_synthetic")
def test_other_data_in_the_cache_is_not_mnist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "cache" / "mnist")
    with pytest.raises(FileNotFoundError, match=r"is not MNIST's file \(SHA-256 differs\)"):
        load_mnist(download=False, allow_synthetic=False)
    assert load_mnist(download=False).is_synthetic
    assert "is not MNIST's file" in capfd.readouterr().err


@pytest.mark.usefixtures("few_synthetic")
def test_synthetic_digits_say_so(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        data = load_mnist()
        out, err = capfd.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith("pynn: load_mnist: NO MNIST, USING SYNTHETIC DIGITS INSTEAD")
    assert data.is_synthetic
    assert data.name == "synthetic-digits"
    assert "synthetic_digits" in data.source
    assert data.train_images.shape == (60, 28, 28)
    assert data.test_images.shape == (10, 28, 28)
    assert not np.array_equal(data.train_images[:10], data.test_images)


def test_without_permission_to_substitute_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"load_mnist: PYNN_DATA_DIR .*; cache .* lacks .* and download is off"):
        load_mnist(download=False, allow_synthetic=False)


def test_hashes_are_of_the_unpacked_file(tmp_path: Path) -> None:
    array = small_arrays()[NAMES[0]]
    write_idx(tmp_path / "raw", array)
    assert mnist._sha256(array) == hashlib.sha256((tmp_path / "raw").read_bytes()).hexdigest()
