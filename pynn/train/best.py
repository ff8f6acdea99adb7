"""The weights of the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy.typing as npt

from pynn.nn import Module

Array: TypeAlias = npt.NDArray[Any]
Row: TypeAlias = Mapping[str, float]
Score: TypeAlias = tuple[float, ...]


def default_score(row: Row) -> Score:
    """Return the validation accuracy, and among equal ones the lower validation loss; higher is better."""
    return row.get("val_accuracy", 0.0), -row["val_loss"]


class BestWeights:
    """A copy of the weights of the best epoch so far: that with the largest score."""

    def __init__(self, model: Module, score: Callable[[Row], Score] = default_score) -> None:
        self._model, self._score = model, score
        self.score: Score | None = None
        self.epoch: int | None = None
        self.state: dict[str, Array] = {}

    def offer(self, row: dict[str, float]) -> None:
        """Take the model's weights if the epoch with these figures is better than those before; never if one is NaN."""
        score = self._score(row)
        if any(map(math.isnan, score)) or (self.score is not None and score <= self.score):
            return
        # In this order, since Ctrl-C may come between any two lines.
        self.state = self._model.state_dict()
        self.score, self.epoch = score, int(row["epoch"])

    def restore(self) -> int | None:
        """Give the weights back to the model; return their epoch, or None if no epoch has finished."""
        if self.epoch is not None:
            self._model.load_state_dict(self.state)
        return self.epoch
