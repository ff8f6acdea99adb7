"""`compare.py --mode train`: training steps."""

from __future__ import annotations

from typing import Any

from sides import TorchSide, check_agreement, make_data, numpy_side, pynn_side, row_batches
from timing import alternate, summarize
from workloads import Workload

import pynn


def measure(workload: Workload, others: list[str], repeats: int, seconds: float, seed: int) -> dict[str, Any]:
    """Check and time one workload; return its figures."""
    images, labels = make_data(workload, seed)
    pynn.seed(seed)
    ours = pynn_side(workload, images, labels)
    sides: dict[str, Any] = {"pynn": ours}
    if "torch" in others:
        sides["torch"] = TorchSide(workload, images, labels, ours.model.state_dict())
    if "jax" in others:
        from jax_side import JaxSide

        sides["jax"] = JaxSide(ours, workload)
    if "numpy" in others and (side := numpy_side(ours, workload)) is not None:
        sides["numpy"] = side
    rows = row_batches(len(images), workload.batch, seed)
    difference = check_agreement(sides, rows)
    blocks = alternate({name: side.step for name, side in sides.items()}, rows, repeats, seconds)
    return {**summarize(blocks), "loss_difference": difference}
