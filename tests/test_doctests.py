"""The examples in the docstrings of every module of the installed package are true."""

import doctest
import importlib
import pkgutil

import pytest

import pynn

MODULES = [m.name for m in pkgutil.walk_packages(pynn.__path__, "pynn.") if not m.name.endswith(("__main__", "_core"))]


@pytest.mark.parametrize("name", ["pynn", *MODULES])
def test_doctests(name: str, request: pytest.FixtureRequest) -> None:
    if name == "pynn.viz":
        pytest.importorskip("matplotlib")
    if name == "pynn.train.loggers":
        pytest.importorskip("tensorboardX")
    if name.startswith("pynn.onnx"):
        pytest.importorskip("onnx")
    if name.startswith("pynn.sklearn"):
        pytest.importorskip("sklearn")
    pynn.seed(0)
    names = {"getfixture": request.getfixturevalue}  # as pytest's own doctests have it
    result = doctest.testmod(importlib.import_module(name), extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name} failed"
