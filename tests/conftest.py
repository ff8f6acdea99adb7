"""Fixtures for all tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_tools import imported
from demo_tools import classifier, serving
from tape_nodes import live_nodes

import pynn
from pynn.data import synthetic_digits, write_idx
from pynn.demo import DemoServer, Recognizer


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a new seed; pytest shows the seed of a test that fails, PYNN_TEST_SEED repeats it."""
    seed = int(os.environ.get("PYNN_TEST_SEED") or secrets.randbits(32))
    print(f"rng: repeat with PYNN_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """Return the folder of the real MNIST."""
    folder = os.environ.get("PYNN_DATA_DIR")
    if not folder:
        pytest.skip("needs the real MNIST: set PYNN_DATA_DIR to its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images and labels of 400 training and of 100 test digits."""
    return synthetic_digits(400, seed=3), synthetic_digits(100, seed=4)


@pytest.fixture
def data_dir(tmp_path: Path, digits: tuple[tuple[np.ndarray, np.ndarray], ...]) -> Path:
    """Return a folder of IDX files that are not MNIST's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part, (images, labels) in zip(("train", "t10k"), digits, strict=True):
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    return folder


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Return two classes of 60 points that a line nearly separates, and their labels."""
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    return (rng.normal(size=(60, 3)) + 3 * labels[:, None]).astype(np.float32), labels


@pytest.fixture
def no_node_survives() -> Iterator[None]:
    """Fail if the test leaves nodes of the tape behind."""
    before = live_nodes()
    yield
    assert live_nodes() <= before


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """Return what answers in `pynn demo`, with the weights that LeNet begins with."""
    return Recognizer(classifier(is_synthetic=False))


@pytest.fixture(scope="module")
def server(recognizer: Recognizer) -> Iterator[DemoServer]:
    """Return a server that answers with it."""
    with serving(recognizer) as server:
        yield server


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/."""
    with imported() as modules:
        yield modules


@pytest.fixture
def same_threads_after() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = pynn.num_threads()
    yield
    pynn.set_num_threads(before)
