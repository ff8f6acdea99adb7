"""Timing: blocks of steps, taken alternately by the libraries that are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Step = Callable[[Any], Any]  # gets a batch, of whatever kind the caller's batches are

SETTLE_S = 0.05  # pause between two sides: OpenMP threads without work spin for up to 300,000 pauses, about 20 ms
LEAST_STEPS = 3


def time_block(step: Step, batches: Iterator[Any], seconds: float) -> float:
    """Take steps for so many seconds, and return their median time in µs."""
    time.sleep(SETTLE_S)
    step(next(batches))  # wakes this side's threads and fetches its weights; not counted
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(times) < LEAST_STEPS or time.perf_counter() < deadline:
        batch = next(batches)
        start = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def alternate(
    steps: Mapping[str, Step], batches: Iterator[Any], repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Warm up, then time a block of each side in turn, `repeats` times; return each side's times of a step in µs."""
    for step in steps.values():
        time_block(step, batches, seconds)
    blocks: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            blocks[name].append(time_block(step, batches, seconds))
    return blocks


def summarize(blocks: dict[str, list[float]], base: str = "pynn") -> dict[str, Any]:
    """Return each side's median time in µs, and the ratio of every other side to `base` with its quartiles.

    The ratio is the median of the ratios of neighbouring blocks: the machine's speed may change from block to block.

    >>> summarize({"pynn": [1.0, 2.0, 1.0], "torch": [2.0, 4.0, 3.0]})["ratios"]
    {'torch': {'median': 2.0, 'quartiles': (2.0, 3.0)}}
    """
    ratios = {}
    for name, times in blocks.items():
        if name != base:
            each = sorted(theirs / ours for ours, theirs in zip(blocks[base], times, strict=True))
            quarter = len(each) // 4
            ratios[name] = {"median": statistics.median(each), "quartiles": (each[quarter], each[-1 - quarter])}
    return {"us": {name: statistics.median(t) for name, t in blocks.items()}, "ratios": ratios, "blocks_us": blocks}
