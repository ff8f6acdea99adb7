"""`compare.py --mode captured`: training steps under `pynn.capture`, beside compilers."""

from __future__ import annotations

import logging
from typing import Any

import overhead
import training
from sides import CapturedSide, check_agreement, make_data, pynn_side, row_batches
from timing import alternate, summarize
from workloads import CAPTURED_TARGETS, EMPTY_TARGET, Workload

import pynn

COMPILERS = ("compile", "jax")
CAPTURES = 5  # blocks of first calls
FEW, MANY = 10, 110  # operations of two steps, whose difference is the time of what one has more


def targets(name: str) -> dict[str, float]:
    """Return the ratios that a captured step should reach, by the other side's name."""
    to_torch, to_compiler = CAPTURED_TARGETS.get(name, (None, None))
    wanted = {"torch": to_torch, **dict.fromkeys(COMPILERS, to_compiler)}
    return {side: target for side, target in wanted.items() if target is not None}


def keep_faster(result: dict[str, Any]) -> None:
    """Leave the target of one compiler, the one that was faster."""
    measured = [side for side in COMPILERS if side in result["us"]]
    for slower in sorted(measured, key=lambda side: float(result["us"][side]))[1:]:
        result["targets"].pop(slower, None)


def measure(workload: Workload, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one workload; return its figures."""
    images, labels = make_data(workload, seed)
    pynn.seed(seed)
    eager = pynn_side(workload, images, labels)
    sides: dict[str, Any] = {"pynn": CapturedSide(workload, images, labels, eager.model.state_dict())}
    if "eager" in others:
        sides["eager"] = eager
    sides |= training.other_sides(workload, eager, images, labels, others)
    rows = row_batches(len(images), workload.batch, seed)
    difference = check_agreement(sides, rows)
    result = summarize(alternate({name: side.step for name, side in sides.items()}, rows, repeats, seconds))
    first = {"eager": eager.step, "capture": lambda rows: pynn.capture(eager.step)(rows)}
    blocks = alternate(first, rows, min(repeats, CAPTURES), seconds / 2)
    return {
        **result,
        "capture_steps": summarize(blocks, "eager")["ratios"]["capture"]["median"],
        "capture_blocks_us": blocks,
        "loss_difference": difference,
    }


def empty_steps(repeats: int = 15) -> dict[str, float]:
    """Print and return the µs of captured steps that do nothing."""
    rows = next(row_batches(4096, 32, 0))
    without, ignoring = pynn.capture(lambda: None), pynn.capture(lambda rows: None)
    us = {
        "without arguments": overhead.best(without, repeats, 1000),
        "with an array of 32 rows": overhead.best(lambda: ignoring(rows), repeats, 1000),
    }
    cells = [f"{time:.2f} µs {what}" for what, time in us.items()]
    verdict = "" if max(us.values()) <= EMPTY_TARGET else " MISSED"
    print(f"Empty captured step: {', '.join(cells)}; target at most {EMPTY_TARGET}{verdict}")
    return us


def further_operation(repeats: int = 15) -> float:
    """Print and return the ns of each operation more in a captured step: a sum over [1, 4], work and all."""
    x = pynn.ones(1, 4)

    def us(count: int) -> float:
        def step(x: pynn.Tensor) -> pynn.Tensor:
            for _ in range(count):
                x = x.sum(axis=0, keepdims=True)
            return x

        captured = pynn.capture(step)
        return overhead.best(lambda: captured(x), repeats, 1000)

    ns = 1e3 * (us(MANY) - us(FEW)) / (MANY - FEW)
    print(f"Each further operation: {ns:.0f} ns (sum over the rows of [1, 4])")
    return ns


def compiler_problem() -> str | None:
    """Return why torch.compile does not work here, if it does not: it needs a C++ compiler that works."""
    import torch

    torch._logging.set_logs(dynamo=logging.ERROR)
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1))
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0]
    return None
