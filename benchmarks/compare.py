"""Time training steps of pynn beside PyTorch, if it is installed: both in one run, alternately, on the same numbers.

    python benchmarks/compare.py                    # six workloads, about two minutes
    python benchmarks/compare.py --filter lenet --repeats 30 --json lenet.json

A step is: take the next batch of a random permutation, zero_grad, forward, loss, backward, optimiser. Before anything
is timed, both libraries train from the same initial weights on the same batches and must agree. README.md beside this
file explains the method.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pynn
import pynn.nn
import pynn.optim
from pynn._files import atomic_file

SAMPLES = 4096  # of the synthetic data set: beyond the caches, as real data are
CHECKED_STEPS = 5
LOSS_TOLERANCE = 1e-5  # of the loss, in each checked step
GRADIENT_TOLERANCE = 1e-4  # of the largest gradient of the parameter, in the first step
SETTLE_S = 0.05  # pause between the two: OpenMP threads without work spin for up to 300,000 pauses, about 20 ms

# -- workloads: pynn and PyTorch share the names, so one builder serves both -------------------------------------------


def mlp(*widths: int) -> Callable[[Any], Any]:
    """Return a builder of Linear layers with ReLU between."""

    def build(nn: Any) -> Any:
        layers: list[Any] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


def lenet(nn: Any) -> Any:
    """Return LeNet-5 with ReLU and max-pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn(nn: Any) -> Any:
    """Return the network of PyTorch's examples/mnist, without dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def sgd(optim: Any, parameters: Any) -> Any:
    """Return SGD with momentum."""
    return optim.SGD(parameters, lr=0.01, momentum=0.9)


def adam(optim: Any, parameters: Any) -> Any:
    """Return Adam."""
    return optim.Adam(parameters, lr=1e-3)


@dataclass(frozen=True)
class Workload:
    """One network and how it is trained."""

    name: str
    title: str
    build: Callable[[Any], Any]  # nn -> model
    optimizer: Callable[[Any, Any], Any]  # optim, parameters -> optimizer
    batch: int
    shape: tuple[int, ...]  # of one sample


WORKLOADS = [
    Workload("mlp128", "MLP 784-128-10, B 128, SGD momentum", mlp(784, 128, 10), sgd, 128, (784,)),
    Workload("mlp128-b32", "MLP 784-128-10, B 32, SGD momentum", mlp(784, 128, 10), sgd, 32, (784,)),
    Workload("mlp512", "MLP 784-512-256-10, B 128, Adam", mlp(784, 512, 256, 10), adam, 128, (784,)),
    Workload("mlp2048", "MLP 784-2048-2048-10, B 128, Adam", mlp(784, 2048, 2048, 10), adam, 128, (784,)),
    Workload("lenet", "LeNet, B 128, Adam", lenet, adam, 128, (1, 28, 28)),
    Workload("cnn", "CNN 32-64, B 128, Adam", cnn, adam, 128, (1, 28, 28)),
]

# -- the two sides -----------------------------------------------------------------------------------------------------


class Side:
    """A library's model, optimiser and data; `step` is what is timed."""

    def __init__(self, workload: Workload, nn: Any, optim: Any, cross_entropy: Any, images: Any, labels: Any) -> None:
        self.model = workload.build(nn)
        self.optimizer = workload.optimizer(optim, self.model.parameters())
        self.cross_entropy = cross_entropy
        self.images, self.labels = images, labels

    def step(self, rows: Any) -> Any:
        """Train on the samples `rows`, and return the loss."""
        x, y = self.images[rows], self.labels[rows]
        self.optimizer.zero_grad()
        loss = self.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients of the latest step."""
        return {name: np.asarray(p.grad) for name, p in self.model.named_parameters()}


def pynn_side(workload: Workload, images: np.ndarray, labels: np.ndarray) -> Side:
    """Return pynn's side."""
    return Side(workload, pynn.nn, pynn.optim, pynn.functional.cross_entropy, images, labels)


def torch_side(workload: Workload, images: np.ndarray, labels: np.ndarray, weights: dict[str, np.ndarray]) -> Side:
    """Return PyTorch's side with the given initial weights."""
    import torch

    data = torch.from_numpy(images), torch.from_numpy(labels)
    side = Side(workload, torch.nn, torch.optim, torch.nn.functional.cross_entropy, *data)
    side.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    return side


def batches(batch: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of batch after batch of random permutations, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(SAMPLES)
        yield from (order[i : i + batch] for i in range(0, SAMPLES - batch + 1, batch))


def check_agreement(ours: Side, theirs: Side, rows: Iterator[np.ndarray]) -> float:
    """Train both for a few steps; return the largest relative difference of the losses, SystemExit if too large."""
    worst = 0.0
    for step in range(CHECKED_STEPS):
        batch = next(rows)
        loss, expected = ours.step(batch).item(), theirs.step(batch).item()
        difference = abs(loss - expected) / abs(expected)
        if not difference <= LOSS_TOLERANCE:
            raise SystemExit(
                f"step {step}: pynn's loss is {loss}, PyTorch's {expected}; they must agree to {LOSS_TOLERANCE}"
            )
        worst = max(worst, difference)
        if step == 0:
            reference = theirs.gradients()
            for name, gradient in ours.gradients().items():
                error = np.abs(gradient - reference[name]).max() / np.abs(reference[name]).max()
                if not error <= GRADIENT_TOLERANCE:
                    raise SystemExit(f"gradient of {name}: error {error:.1e}, at most {GRADIENT_TOLERANCE:.0e} allowed")
    return worst


def time_block(side: Side, rows: Iterator[np.ndarray], seconds: float) -> float:
    """Train for so many seconds, and return the median time of a step in µs."""
    time.sleep(SETTLE_S)
    side.step(next(rows))  # wakes this side's threads and fetches its weights; not counted
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < deadline:
        batch = next(rows)
        start = time.perf_counter()
        side.step(batch)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def measure(workload: Workload, with_torch: bool, repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one workload; return its figures."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (SAMPLES, *workload.shape), dtype=np.uint8)
    images = (pixels / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
    labels = rng.integers(0, 10, SAMPLES)
    pynn.seed(seed)
    ours = pynn_side(workload, images, labels)
    result: dict[str, Any] = {"workload": workload.name, "title": workload.title}
    sides, rows = {"pynn": ours}, batches(workload.batch, seed)
    if with_torch:
        sides["torch"] = torch_side(workload, images, labels, ours.model.state_dict())
        result["loss_difference"] = check_agreement(ours, sides["torch"], rows)
    for side in sides.values():
        time_block(side, rows, seconds)  # warm-up
    blocks: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            blocks[name].append(time_block(side, rows, seconds))
    for name, times in blocks.items():
        result[f"{name}_us"] = statistics.median(times)
    if with_torch:
        ratios = sorted(theirs / own for own, theirs in zip(blocks["pynn"], blocks["torch"], strict=True))
        result["ratio"] = statistics.median(ratios)
        result["ratio_quartiles"] = ratios[len(ratios) // 4], ratios[len(ratios) - 1 - len(ratios) // 4]
    return {**result, "blocks_us": blocks}


# -- report ------------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def row(result: dict[str, Any]) -> str:
    """Return a result's line of the table."""
    line = f"| {result['title']:<36} | {result['pynn_us']:9,.0f} |"
    if "ratio" in result:
        low, high = result["ratio_quartiles"]
        line += f" {result['torch_us']:10,.0f} | {result['ratio']:5.2f} ({low:.2f} to {high:.2f}) |"
    return line


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filter", default="", metavar="NAME", help=", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--threads", type=int, default=pynn.info()["max_threads"], help="of both (%(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of blocks (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few short blocks: shows that it runs, not how fast")
    parser.add_argument("--seed", type=int, default=0, help="of weights, data and order (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures, with the time of every block")
    args = parser.parse_args(argv)
    workloads = [w for w in WORKLOADS if args.filter in w.name]
    if not workloads:
        parser.error(f"--filter {args.filter}: no workload has this in its name")
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: needs at least 1")
    pynn.set_num_threads(args.threads)
    info = pynn.info()
    report: dict[str, Any] = {
        "machine": machine(),
        "isa": info["isa"],
        "threads": args.threads,
        "versions": {name: info[name] for name in ("pynn", "python", "numpy", "compiler")},
    }
    with_torch = importlib.util.find_spec("torch") is not None
    if with_torch:
        import torch

        torch.set_num_threads(args.threads)
        report["versions"]["torch"] = torch.__version__
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    print(f"{report['machine']}; {args.threads} threads; pynn runs {info['isa']}; {versions}")
    load = os.getloadavg()[0]
    report["load_average"] = load
    if load > 0.5:
        print(f"Load average {load:.1f}: others compute here, so figures of more than one thread mean little")
    if not with_torch:
        print("PyTorch is not installed: pynn's times alone")
    print(f"\n| {'training step, median µs':<36} |      pynn |" + " PyTorch    | PyTorch / pynn       |" * with_torch)
    print("|---|---:|" + "---:|---:|" * with_torch, flush=True)
    report["results"] = []
    for workload in workloads:
        repeats, seconds = (2, 0.02) if args.quick else (args.repeats, 0.25)
        report["results"].append(measure(workload, with_torch, repeats, seconds, args.seed))
        print(row(report["results"][-1]), flush=True)
    if args.json:
        with atomic_file(args.json) as file:
            file.write(json.dumps(report, indent=2).encode() + b"\n")
    if with_torch:
        worst = max(result["loss_difference"] for result in report["results"])
        print(f"\nThe losses of the first {CHECKED_STEPS} steps agree to {worst:.1e}.")


if __name__ == "__main__":
    main()
