"""What an operation costs around its arithmetic: the time of operations on 4 x 4, forward and backward, beside PyTorch.

    python benchmarks/overhead.py

Forward is the mean over a chain of operations that records a tape; backward is that of the chain's gradients, of both
operands where there are two. The last lines are training steps of networks so small that they compute next to nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pynn
import pynn.nn
import pynn.optim

CHAIN = 20  # operations in a row
Operation = Callable[[Any, Any, Any], Any]  # library's functional module, x, w -> y

OPERATIONS: dict[str, Operation] = {
    "relu": lambda F, x, w: F.relu(x),
    "tanh": lambda F, x, w: x.tanh(),
    "add": lambda F, x, w: x + w,
    "mul": lambda F, x, w: x * w,
    "matmul": lambda F, x, w: x @ w,
    "linear": lambda F, x, w: F.linear(x, w),
    "reshape": lambda F, x, w: x.reshape(4, 4),
}


def best(function: Callable[[], object], repeats: int, calls: int) -> float:
    """Return the shortest mean time of a call in µs: what disturbs a measurement only adds to it."""
    shortest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        shortest = min(shortest, (time.perf_counter() - start) / calls)
    return 1e6 * shortest


def time_operation(op: Operation, functional: Any, x: Any, w: Any, dy: Any, repeats: int) -> tuple[float, float]:
    """Return µs of one operation forward and backward."""

    def forward() -> Any:
        y = x
        for _ in range(CHAIN):
            y = op(functional, y, w)
        return y

    forward()
    forward_us = best(forward, repeats, 100) / CHAIN
    backward_us = float("inf")
    for _ in range(repeats):
        outputs = [forward() for _ in range(100)]
        start = time.perf_counter()
        for y in outputs:
            x.grad = w.grad = None
            y.backward(dy)
        backward_us = min(backward_us, 1e6 * (time.perf_counter() - start) / len(outputs) / CHAIN)
    return forward_us, backward_us


def mlp(nn: Any) -> Any:
    """Return Linear, ReLU, Linear of four features."""
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


def lenet(nn: Any) -> Any:
    """Return LeNet's layers with as few channels and features as they can have."""
    return nn.Sequential(
        *(nn.Conv2d(1, 1, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(1, 1, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)),
    )


def time_step(build: Any, nn: Any, optimizer: Any, cross_entropy: Any, x: Any, target: Any, repeats: int) -> float:
    """Return µs of a training step."""
    model = build(nn)
    optimizer = optimizer(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), target).backward()
        optimizer.step()

    step()
    return best(step, repeats, 200)


def measure(library: str, repeats: int) -> dict[str, list[float]]:
    """Return the figures of one library by the name of their line."""
    rng = np.random.default_rng(0)
    square, dy = rng.normal(size=(2, 4, 4)).astype(np.float32)
    images, labels = rng.normal(size=(2, 1, 12, 12)).astype(np.float32), np.array([0, 1])
    if library == "pynn":
        functional, nn, optim, wrap = pynn.functional, pynn.nn, pynn.optim, lambda a: a
        x, w = (pynn.tensor(square, requires_grad=True) for _ in range(2))
    else:
        import torch
        from torch import nn, optim
        from torch.nn import functional

        torch.set_num_threads(1)
        wrap = torch.from_numpy
        x, w = (torch.tensor(square, requires_grad=True) for _ in range(2))
    figures: dict[str, list[float]] = {}
    for name, op in OPERATIONS.items():
        figures[name] = [*time_operation(op, functional, x, w, wrap(dy), repeats)]
    for name, build, inputs in (("mlp", mlp, images[:, 0, 0, :4].copy()), ("lenet", lenet, images)):
        for optimizer in ("SGD", "Adam"):
            line = f"step of a tiny {name}, {optimizer}"
            with_state = getattr(optim, optimizer)
            data = wrap(inputs), wrap(labels)
            figures[line] = [time_step(build, nn, with_state, functional.cross_entropy, *data, repeats)]
    return figures


def main(argv: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="of which the quickest counts (%(default)s)")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: needs at least 1")
    pynn.set_num_threads(1)
    gc.disable()  # neither library makes cycles here, and a collection in between would count as theirs
    libraries = ["pynn"] + ["PyTorch"] * (importlib.util.find_spec("torch") is not None)
    figures = {library: measure(library, args.repeats) for library in libraries}
    gc.enable()
    print("| µs, forward and backward | " + " | ".join(libraries) + " |")
    print("|---|" + "---:|" * len(libraries))
    for name in figures["pynn"]:
        cells = [" + ".join(f"{t:.1f}" for t in figures[library][name]) for library in libraries]
        print(f"| {name} | " + " | ".join(cells) + " |")
    if len(libraries) == 1:
        print("\nPyTorch is not installed: pynn's times alone")


if __name__ == "__main__":
    main()
