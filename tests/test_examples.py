"""The examples run, and their figures are near the published ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pynn

EXAMPLES = Path(__file__).parents[1] / "examples"
MICROGRAD = {"g": "24.7041", "dg/da": "138.8338", "dg/db": "645.5773"}


def run(name: str, *options: str) -> str:
    """Return what the example prints with ``--quick``."""
    command = [sys.executable, str(EXAMPLES / name), "--quick", *options]
    # A program finds its own folder first on the path, not the one that pynn was imported from here.
    paths = [str(Path(pynn.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def accuracy(output: str) -> float:
    """Return the last accuracy printed, in %."""
    return float(re.findall(r"accuracy ([\d.]+) %", output)[-1])


def test_every_example_is_tested_and_short():
    programs = sorted(EXAMPLES.glob("*.py"))
    assert [p.name for p in programs] == ["01_scalars.py", "02_moons.py", "05_mnist_mlp.py", "08_pytorch_mnist.py"]
    table = (EXAMPLES / "README.md").read_text()
    for program in programs:
        assert len(program.read_text().splitlines()) < 100, program.name
        assert f"`{program.name}`" in table


def test_autograd_gives_the_published_values():
    rows = re.findall(r"^(\S+) +([\d.]+) +micrograd +([\d.]+)$", run("01_scalars.py"), re.MULTILINE)
    assert rows == [
        (name, value, value) for name, value in (("g", "24.7041"), ("dg/da", "138.8338"), ("dg/db", "645.5773"))
    ]


def test_moons_are_told_apart():
    output = run("02_moons.py")
    assert "337 parameters" in output
    assert accuracy(output) >= 98


@pytest.mark.parametrize(
    ("name", "parameters", "least"), [("05_mnist_mlp.py", "101,632", 90), ("08_pytorch_mnist.py", "1,199,882", 85)]
)
def test_mnist_is_learnt(name: str, parameters: str, least: float, mnist_dir: Path):
    output = run(name, "--data-dir", str(mnist_dir))
    assert "data: mnist;" in output
    assert f"{parameters} parameters" in output
    assert accuracy(output) >= least
