"""Batches, and the figures of an epoch, added up over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pynn.tensor import Tensor


@dataclass
class Totals:
    """Sums over the batches of an epoch; checkpoints hold the fields."""

    batches: int = 0
    count: int = 0  # of samples
    loss_sum: float = 0.0
    correct: int = 0
    labelled: bool = True
    seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The mean over the samples so far."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> float | None:
        """The share of the samples that got the right label; None without class labels."""
        return self.correct / self.count if self.labelled else None

    def add(self, loss: float, outputs: Tensor, targets: Any) -> None:
        """Add a batch with its mean loss."""
        labels = targets.data if isinstance(targets, Tensor) else np.asarray(targets)
        scores = outputs.data
        count = len(scores) if scores.ndim else 1
        self.batches += 1
        self.count += count
        self.loss_sum += loss * count
        if scores.ndim == 2 and scores.shape[1] > 1 and labels.ndim == 1 and labels.dtype.kind in "iu":
            self.correct += int(np.count_nonzero(scores.argmax(axis=1) == labels))
        else:
            self.labelled = False

    def figures(self) -> dict[str, float]:
        """Return "loss", and with class labels "accuracy"."""
        accuracy = self.accuracy
        return {"loss": self.loss} if accuracy is None else {"loss": self.loss, "accuracy": accuracy}


def as_pair(operation: str, batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets; TypeError if the batch is no pair."""
    if not isinstance(batch, (tuple, list)):
        raise TypeError(f"{operation}: a batch is a {type(batch).__name__}, expected a pair (inputs, targets)")
    if len(batch) != 2:
        raise TypeError(f"{operation}: a batch has {len(batch)} entries, expected a pair (inputs, targets)")
    return batch[0], batch[1]
