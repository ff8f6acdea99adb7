"""How much slower training becomes when another process keeps one core busy, for pynn and PyTorch.

    python benchmarks/neighbour.py

Blocks of training steps without and with a process that only loops, alternately. A block's figure is the mean of its
steps, since a neighbour makes few steps very slow; with two cores, of which one is half lost, 1.5 cannot be undercut.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import sides
from workloads import MAIN

import pynn

NETWORKS = ("mlp128", "lenet")


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep one core busy by another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.1)  # it has started, and the scheduler has found a place for it
        yield
    finally:
        process.kill()
        process.wait()


def mean_step(side: sides.Side, rows: Iterator[Any], seconds: float) -> float:
    """Train for so many seconds, and return the mean time of a step in µs."""
    side.step(next(rows))
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        side.step(next(rows))
        steps += 1
    return 1e6 * elapsed / max(1, steps)


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of blocks (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a block (%(default)s)")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: needs at least 1")
    with_torch = importlib.util.find_spec("torch") is not None
    if with_torch:
        import torch

        torch.set_num_threads(pynn.num_threads())
    print(f"{pynn.num_threads()} threads")
    print("| training step, mean µs | library | alone | beside a busy process | ratio |\n|---|---|---:|---:|---:|")
    for workload in (w for w in MAIN if w.name in NETWORKS):
        images, labels = sides.make_data(workload, 0)
        pynn.seed(0)
        ours = sides.pynn_side(workload, images, labels)
        libraries: dict[str, sides.Side] = {"pynn": ours}
        if with_torch:
            libraries["PyTorch"] = sides.TorchSide(workload, images, labels, ours.model.state_dict())
        rows = sides.row_batches(len(images), workload.batch, 0)
        for library, side in libraries.items():
            mean_step(side, rows, args.seconds)
            alone, beside = [], []
            for _ in range(args.repeats):
                alone.append(mean_step(side, rows, args.seconds))
                with busy_neighbour():
                    beside.append(mean_step(side, rows, args.seconds))
            ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
            times = f"{statistics.median(alone):,.0f} | {statistics.median(beside):,.0f}"
            print(f"| {workload.title} | {library} | {times} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
