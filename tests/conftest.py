"""Fixtures for all tests."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import numpy as np
import pytest


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
