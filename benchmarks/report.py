"""What the benchmarks print and write: the machine, tables, pictures."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import pynn
from pynn._files import atomic_file

NAMES = {
    **{"pynn": "pynn", "eager": "pynn eager", "torch": "PyTorch", "compile": "torch.compile"},
    **{"jax": "JAX", "numpy": "NumPy", "onnxruntime": "ONNX Runtime", "sklearn": "scikit-learn"},
}
PACKAGES = {
    **{"eager": ("numpy",), "torch": ("torch",), "compile": ("torch",)},
    **{"jax": ("jax",), "numpy": ("numpy",), "onnxruntime": ("onnxruntime", "onnx")},
    "sklearn": ("sklearn",),
}
BUSY = 0.5  # load average above which figures are doubtful


def missing(side: str) -> str | None:
    """Return the package that a side needs and that is not installed, if there is one."""
    return next((package for package in PACKAGES[side] if importlib.util.find_spec(package) is None), None)


def machine() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def header(others: list[str]) -> dict[str, Any]:
    """Print where and with what this runs; return it for the JSON file."""
    info = pynn.info()
    versions = {name: info[name] for name in ("pynn", "python", "numpy", "compiler")}
    packages = [package.replace("sklearn", "scikit-learn") for side in others for package in PACKAGES[side][:1]]
    versions |= {package: metadata.version(package) for package in packages}
    forced = ", forced by PYNN_ISA; the others choose for themselves" if os.environ.get("PYNN_ISA") else ""
    load = os.getloadavg()[0]
    print(f"{machine()}; {info['num_threads']} threads; pynn runs {info['isa']}{forced}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if load > BUSY:
        print(f"Load average {load:.1f}: others compute here, so figures of more than one thread mean little")
    return {
        "machine": machine(),
        "isa": info["isa"],
        "threads": info["num_threads"],
        "versions": versions,
        "load_average": load,
    }


def duration(us: float) -> str:
    """Return a time in µs, with three digits that count.

    >>> duration(9.512), duration(1234.5)
    ('9.51', '1,234')
    """
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"


class Table:
    """A Markdown table that is printed line by line as the figures come."""

    def __init__(self, columns: list[tuple[str, int]]) -> None:
        self.widths = [max(width, len(name)) for name, width in columns]
        self.line([name for name, _ in columns])
        print("|---|" + "---:|" * (len(columns) - 1), flush=True)

    def line(self, cells: list[str]) -> None:
        """Print a row; the first cell is text, the others are figures."""
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, self.widths, strict=True)]
        padded[0] = f"{cells[0]:<{self.widths[0]}}"
        print("| " + " | ".join(padded) + " |", flush=True)


def ratio_cell(result: dict[str, Any], side: str, target: float | None) -> str:
    """Return "median (quartiles)", and the target with its verdict where there is one."""
    if side not in result["ratios"]:
        return ""
    ratio = result["ratios"][side]
    low, high = ratio["quartiles"]
    cell = f"{ratio['median']:.2f} ({low:.2f} to {high:.2f})"
    if target is not None:
        cell += f", target {target:g}{'' if ratio['median'] >= target else ' MISSED'}"
    return cell


def summary(results: list[dict[str, Any]], side: str) -> str:
    """Return the lowest and the median ratio of a list of results."""
    ratios = {result["name"]: result["ratios"][side]["median"] for result in results if side in result["ratios"]}
    worst = min(ratios, key=lambda name: ratios[name])
    return (
        f"{NAMES[side]} / pynn over {len(ratios)}: lowest {ratios[worst]:.2f} ({worst}), "
        f"median {np.median(list(ratios.values())):.2f}"
    )


def output_file(path: str) -> str:
    """Type of an argument: refuse a file in a folder that does not exist before anything is measured."""
    if not Path(path).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: its folder does not exist")
    return path


def write_json(path: str, report: dict[str, Any]) -> None:
    """Write a report, whole or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(report, indent=2).encode() + b"\n")


def plot(path: str, report: dict[str, Any]) -> None:
    """Draw the ratios of a report as bars with quartiles, and the targets as marks."""
    from matplotlib.figure import Figure

    from pynn.train.history import save_figure

    results, sides = report["results"], [side for side in report["sides"] if side != "pynn"]
    height = 0.8 / max(1, len(sides))
    figure = Figure(figsize=(8, 1.5 + 0.3 * len(results) * max(1, len(sides)) ** 0.5), layout="constrained")
    axes = figure.subplots()
    for s, side in enumerate(sides):
        shown = [(i, r["ratios"][side], r["targets"].get(side)) for i, r in enumerate(results) if side in r["ratios"]]
        where = [i + (s - (len(sides) - 1) / 2) * height for i, _, _ in shown]
        middle = np.array([ratio["median"] for _, ratio, _ in shown])
        ends = np.array([ratio["quartiles"] for _, ratio, _ in shown]).T.reshape(2, -1)
        error = np.maximum(0, np.stack([middle - ends[0], ends[1] - middle]))
        axes.barh(where, middle, 0.9 * height, xerr=error, label=f"{NAMES[side]} / pynn", error_kw={"lw": 0.8})
        targets = [(w, target) for w, (_, _, target) in zip(where, shown, strict=True) if target is not None]
        if targets:
            at, values = zip(*targets, strict=True)
            axes.plot(values, at, "|", color="C3", ms=16, mew=3, label="target" if s == 0 else None)
    axes.axvline(1, color="k", lw=0.8)
    axes.set_yticks(range(len(results)), [result["title"] for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("time of the other / time of pynn")
    axes.set_title(f"{report['what']}: {report['machine']}, {report['threads']} threads, {report['isa']}", fontsize=9)
    axes.legend()
    save_figure(figure, path)
