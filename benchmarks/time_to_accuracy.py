"""Time of `pynn train mnist` from the start of its process to its test accuracy, beside the same recipe in PyTorch.

    python benchmarks/time_to_accuracy.py [--seeds 3] [--threads 2] [--json FILE]

Each training is a process of its own; MNIST must be on disk (PYNN_DATA_DIR, or pynn's cache). The clock starts before
the process and stops when it prints its test accuracy. PyTorch trains the same network with the same optimiser,
schedule, batches and epochs (torch_mnist.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import report

import pynn
from pynn.data import load_mnist
from pynn.train.mnist import Settings

ACCURACY_TARGET, SECONDS_TARGET, RATIO_TARGET = 0.99, 5.0, 4.0


def run(command: list[str], result: re.Pattern[str]) -> tuple[re.Match[str], float, float]:
    """Run a command; return the match of its line of result, and the seconds until then and until its end."""
    start = time.perf_counter()
    found, seconds = None, 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (match := result.search(line)) is not None:
                found, seconds = match, time.perf_counter() - start
    if process.returncode or found is None:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return found, seconds, time.perf_counter() - start


def run_pynn(settings: Settings, threads: int) -> dict[str, float]:
    """Train with pynn; return accuracy and seconds, and the seconds until weights and pictures are written too."""
    options = ["--model", settings.model, "--epochs", str(settings.epochs), "--seed", str(settings.seed)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "pynn", "train", "mnist", *options, "--threads", str(threads)]
        match, seconds, total = run([*command, "--out", folder], re.compile(r"test loss .* accuracy ([\d.]+) %"))
    return {"accuracy": float(match[1]) / 100, "seconds": seconds, "seconds_to_exit": total}


def run_torch(settings: Settings, threads: int, folder: str) -> dict[str, float]:
    """Train with PyTorch; return accuracy, seconds, and those of `import torch`."""
    options = {name: getattr(settings, name) for name in ("epochs", "batch_size", "lr", "label_smoothing", "seed")}
    command = [sys.executable, str(Path(__file__).with_name("torch_mnist.py")), folder, "--threads", str(threads)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    match, seconds, _ = run(command, re.compile(r"^\{.*\}$"))
    printed = json.loads(match[0])
    return {"accuracy": printed["accuracy"], "seconds": seconds, "import_s": printed["import_s"]}


def verdict(reached: bool) -> str:
    """Return what stands behind a target."""
    return "reached" if reached else "MISSED"


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (%(default)s)")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--threads", type=int, default=pynn.info()["max_threads"], help="of both (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=report.output_file, help="write the figures")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: needs at least 1")
    try:
        data = load_mnist(download=False, allow_synthetic=False)
    except FileNotFoundError as error:
        parser.error(f"{error}; PYNN_DATA_DIR names the folder")
    settings = Settings.of(epochs=args.epochs)
    assert settings.shift == 0, "torch_mnist.py does not shift images"
    with_torch = importlib.util.find_spec("torch") is not None
    pynn.set_num_threads(args.threads)
    figures: dict[str, Any] = {**report.header(["torch"] if with_torch else []), "dataset": data.name, "runs": []}
    print(f"{data.name}, {settings.model}, {settings.epochs} epochs, batch {settings.batch_size}")
    if not with_torch:
        print("PyTorch is not installed: pynn's time alone")
    for seed in range(args.seeds):
        chosen = Settings.of(epochs=args.epochs, seed=seed)
        ours = run_pynn(chosen, args.threads)
        line = f"seed {seed}: pynn {100 * ours['accuracy']:.2f} % in {ours['seconds']:.2f} s"
        figures["runs"].append({"seed": seed, "pynn": ours})
        if with_torch:
            theirs = run_torch(chosen, args.threads, data.source)
            line += f"; PyTorch {100 * theirs['accuracy']:.2f} % in {theirs['seconds']:.2f} s"
            line += f", {theirs['seconds'] - theirs['import_s']:.2f} s without its import"
            figures["runs"][-1]["torch"] = theirs
        print(line, flush=True)
    summarize(figures["runs"])
    if args.json:
        report.write_json(args.json, figures)


def summarize(runs: list[dict[str, Any]]) -> None:
    """Print the medians beside the targets."""
    ours = [r["pynn"] for r in runs]
    lowest, seconds = min(r["accuracy"] for r in ours), statistics.median(r["seconds"] for r in ours)
    total = statistics.median(r["seconds_to_exit"] for r in ours)
    reached = verdict(lowest >= ACCURACY_TARGET)
    print(f"\npynn's lowest test accuracy {100 * lowest:.2f} %, target {100 * ACCURACY_TARGET:.1f} %: {reached}")
    print(
        f"pynn's median time {seconds:.2f} s, target {SECONDS_TARGET:g} s: {verdict(seconds <= SECONDS_TARGET)}", end=""
    )
    print(f"; {total:.2f} s until weights and pictures are written and the process has ended")
    theirs = [r["torch"] for r in runs if "torch" in r]
    if theirs:
        ratio = statistics.median(t["seconds"] / o["seconds"] for o, t in zip(ours, theirs, strict=True))
        rest = statistics.median(
            (t["seconds"] - t["import_s"]) / o["seconds"] for o, t in zip(ours, theirs, strict=True)
        )
        print(f"PyTorch / pynn {ratio:.2f}, target {RATIO_TARGET:g}: {verdict(ratio >= RATIO_TARGET)}", end="")
        print(f"; {rest:.2f} if PyTorch's time is taken without `import torch`, and pynn's whole")


if __name__ == "__main__":
    main()
