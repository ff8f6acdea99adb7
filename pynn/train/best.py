"""The weights of the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy.typing as npt

from pynn.nn import Module

Array: TypeAlias = npt.NDArray[Any]
Row: TypeAlias = Mapping[str, float]
Score: TypeAlias = tuple[float, ...]


def default_score(row: Row) -> Score:
    """Return the validation accuracy, and among equal ones the lower validation loss; higher is better."""
    return row.get("val_accuracy", 0.0), -row["val_loss"]


class Kept(NamedTuple):
    """An epoch, how good it was, and the weights after it."""

    score: Score
    epoch: int
    state: dict[str, Array]


class BestWeights:
    """A copy of the weights of the best epoch so far: that with the largest score."""

    def __init__(self, model: Module, score: Callable[[Row], Score] = default_score) -> None:
        self._model, self._score = model, score
        # One value, since Ctrl-C may come between any two lines: weights never stand beside another epoch's figures.
        self.kept: Kept | None = None

    @property
    def epoch(self) -> int | None:
        """The best epoch; None if there is none yet."""
        return None if self.kept is None else self.kept.epoch

    def offer(self, row: dict[str, float]) -> None:
        """Take the model's weights if the epoch with these figures is better than those before; never if one is NaN."""
        score = self._score(row)
        if any(map(math.isnan, score)) or (self.kept is not None and score <= self.kept.score):
            return
        self.kept = Kept(score, int(row["epoch"]), self._model.state_dict())

    def go_on(self, row: Row, state: dict[str, Array]) -> None:
        """Begin with weights of a checkpoint; with none if their epoch lacks the figure that decides from now on."""
        try:
            score = self._score(row)  # what the checkpoint has may be another one's
        except (KeyError, ValueError):
            return
        if not any(map(math.isnan, score)):
            self.kept = Kept(score, int(row["epoch"]), state)

    def restore(self) -> int | None:
        """Give the weights back to the model; return their epoch, or None if no epoch has finished."""
        if self.kept is None:
            return None
        self._model.load_state_dict(self.kept.state)
        return self.kept.epoch
