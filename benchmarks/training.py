"""`compare.py --mode train`: training steps."""

from __future__ import annotations

from typing import Any

from sides import (
    Array,
    CompiledSide,
    EagerSide,
    TorchSide,
    check_agreement,
    make_data,
    numpy_side,
    pynn_side,
    row_batches,
)
from timing import alternate, summarize
from workloads import Workload

import pynn


def measure(workload: Workload, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one workload; return its figures."""
    images, labels = make_data(workload, seed)
    pynn.seed(seed)
    ours = pynn_side(workload, images, labels)
    sides = {"pynn": ours, **other_sides(workload, ours, images, labels, others)}
    rows = row_batches(len(images), workload.batch, seed)
    difference = check_agreement(sides, rows)
    blocks = alternate({name: side.step for name, side in sides.items()}, rows, repeats, seconds)
    return {**summarize(blocks), "loss_difference": difference}


def other_sides(workload: Workload, ours: EagerSide, images: Array, labels: Array, others: list[str]) -> dict[str, Any]:
    """Return the sides of the other libraries, with the weights that pynn's has now."""
    sides: dict[str, Any] = {}
    if "torch" in others:
        sides["torch"] = TorchSide(workload, images, labels, ours.model.state_dict())
    if "compile" in others:
        sides["compile"] = CompiledSide(workload, images, labels, ours.model.state_dict())
    if "jax" in others:
        from jax_side import JaxSide

        sides["jax"] = JaxSide(ours, workload)
    if "numpy" in others and (side := numpy_side(ours, workload)) is not None:
        sides["numpy"] = side
    return sides
