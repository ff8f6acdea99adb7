"""The documentation: the programs in its pages and in README run, and its reference has every public name."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import pynn

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What these modules have for users has its place in `pynn` or another package; the rest is how pynn works.
INTERNAL = {
    "chains",
    "cli",
    "creation",
    "demo",
    "dlpack",
    "grad_mode",
    "images",
    "models",
    "passes",
    "plan",
    "guarded",
    "intercept",
    "recorder",
    "replay",
    "sampling",
    "tensor",
}


def programs(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each block of Python."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


@pytest.mark.parametrize("page", [p for p in PAGES if any(programs(p))], ids=lambda page: page.name)
def test_programs_of_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace: sessions give what they show, programs run to their end."""
    if page.name == "README.md" and not os.environ.get("PYNN_DATA_DIR"):
        pytest.skip("README trains on the real MNIST: set PYNN_DATA_DIR to its folder")
    monkeypatch.chdir(tmp_path)
    pynn.seed(0)
    names: dict[str, Any] = {}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for line, text in programs(page):
        if text.lstrip().startswith(">>>"):
            session = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), line - 1)
            runner.run(session, clear_globs=False)
            names.update(session.globs)  # it works on a copy
        else:
            exec(compile("\n" * (line - 1) + text, page, "exec"), names)
    assert runner.failures == 0, f"{runner.failures} of {runner.tries} examples in {page.name} failed"


@pytest.mark.parametrize("page", [ROOT / "HACKING.md", *PAGES], ids=lambda page: page.name)
def test_files_that_pages_name_exist(page: Path) -> None:
    for path in re.findall(r"`((?:\.ci|benchmarks|csrc|docs|examples|pynn|tests)/[\w/.-]*)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"


FROM_PYTORCH = (ROOT / "docs" / "pytorch.md").read_text()
NAME = re.compile(r"`((?:nn|np|optim|pynn|torch|F|Tensor)\.[\w.]+)")


def rows_from_pytorch() -> list[list[str]]:
    """Return the cells of the table: PyTorch's names, pynn's, and what differs."""
    rows = [line.strip("|").split("|") for line in FROM_PYTORCH.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    return rows


def has(space: dict[str, Any], name: str) -> bool:
    """Whether this dotted name, whose first part stands for something in `space`, is there."""
    first, *rest = name.split(".")
    thing = space.get(first)
    for part in rest:
        if isinstance(thing, ModuleType) and not hasattr(thing, part):
            with contextlib.suppress(ImportError):
                importlib.import_module(f"{thing.__name__}.{part}")
        thing = getattr(thing, part, None)
    return thing is not None


def test_names_for_those_from_pytorch_are_there() -> None:
    space = {"pynn": pynn, "nn": pynn.nn, "optim": pynn.optim, "F": pynn.functional, "Tensor": pynn.Tensor, "np": np}
    for row in rows_from_pytorch():
        assert NAME.search(row[1]), row
        for name in NAME.findall(" ".join(row[1:])):
            assert has(space, name), name
    missing = FROM_PYTORCH.partition("## Not there")[2].partition("```")[0]
    assert len(NAME.findall(missing)) > 10
    for name in NAME.findall(missing):
        assert not has({**space, "torch": pynn}, name), f"{name} is there by now"


def test_names_of_pytorch_are_there() -> None:
    torch = pytest.importorskip("torch")
    space = {"torch": torch, "nn": torch.nn, "optim": torch.optim, "F": torch.nn.functional, "Tensor": torch.Tensor}
    missing = FROM_PYTORCH.partition("## Not there")[2].partition("```")[0]
    for text in (*(row[0] for row in rows_from_pytorch()), missing):
        assert NAME.search(text), text
        for name in NAME.findall(text):
            assert has(space, name), name


def described() -> tuple[set[str], list[Any]]:
    """Return the full names that the reference describes, and the objects that they stand for."""
    names = set()
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        module = "pynn"
        for kind, name, options in re.findall(
            r"^\.\. (currentmodule|auto\w+):: ([\w.]+).*\n((?:   :.*\n)*)", page.read_text(), re.MULTILINE
        ):
            if kind == "currentmodule":
                module = name
            elif kind != "automodule":
                names.add(name if name.startswith("pynn.") else f"{module}.{name}")
            elif ":no-members:" not in options:
                names |= {f"{name}.{member}" for member in public_names(importlib.import_module(name))}
    return names, [pkgutil.resolve_name(name) for name in names]


def public_names(module: ModuleType) -> list[str]:
    """Return what a module offers: its `__all__`, or the functions and classes that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def public_modules() -> Iterator[ModuleType]:
    """Yield pynn and its modules, but for internal ones."""
    yield pynn
    for module in pkgutil.iter_modules(pynn.__path__, "pynn."):
        name = module.name.removeprefix("pynn.")
        if not name.startswith("_") and name not in INTERNAL:
            yield importlib.import_module(module.name)
    yield pynn.nn.init


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda module: module.__name__)
def test_reference_has_every_public_name(module: ModuleType) -> None:
    names, objects = described()
    missing = []
    for name in public_names(module):
        value = getattr(module, name)
        elsewhere = callable(value) and any(value is known for known in objects)
        if not inspect.ismodule(value) and not elsewhere and f"{module.__name__}.{name}" not in names:
            missing.append(name)
    assert not missing, f"docs/reference does not describe {missing} of {module.__name__}"


def test_reference_lists_all_its_pages() -> None:
    index = (ROOT / "docs" / "reference" / "index.md").read_text()
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index, page.name
