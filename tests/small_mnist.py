"""A data set of 50 images in MNIST's format, and fixtures that shut everything else out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pynn.data import _download, mnist, write_idx

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def small_arrays() -> dict[str, np.ndarray]:
    """Return a data set of the format of MNIST with 30 and 20 images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 30), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n, dtype=np.uint8) % 10
    return arrays


def put(folder: Path, suffix: str = ".gz", **changes: np.ndarray) -> Path:
    """Write the small data set; `changes` replaces arrays by part and kind, such as ``train_labels``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in small_arrays().items():
        write_idx(folder / f"{name}{suffix}", changes.get("_".join(name.split("-")[:2]), array))
    return folder


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, no network, no proxy but what a test sets up."""
    monkeypatch.delenv("PYNN_DATA_DIR", raising=False)
    monkeypatch.setenv("PYNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(_download, "PAUSE_S", 0)


@pytest.fixture
def small_is_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the small data set the genuine one."""
    hashes = {name: mnist._sha256(array) for name, array in small_arrays().items()}
    monkeypatch.setattr(mnist, "_SHA256", hashes)


@pytest.fixture
def few_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw 1/1000 of the synthetic digits, to save time."""
    real = mnist.synthetic_digits
    monkeypatch.setattr(mnist, "synthetic_digits", lambda n, seed: real(n // 1000, seed))
