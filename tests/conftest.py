"""Fixtures for all tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tape_nodes import live_nodes


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


@pytest.fixture
def no_node_survives() -> Iterator[None]:
    """Fail if the test leaves nodes of the tape behind."""
    before = live_nodes()
    yield
    assert live_nodes() <= before
