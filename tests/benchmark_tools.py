"""The programs of benchmarks/ as modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = [path.stem for path in FOLDER.glob("*.py")]
IMPORTED = [
    "captured",
    "compare",
    "inference",
    "neighbour",
    "overhead",
    "products",
    "report",
    "sides",
    "timing",
    "training",
    "workloads",
]


def installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


@contextmanager
def imported() -> Iterator[SimpleNamespace]:
    """The modules, which import each other by their bare names, as when one of them is run."""
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in IMPORTED})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name, None)
