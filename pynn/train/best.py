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


class State(NamedTuple):
    """What is trained: the weights of the model, and those that the loss may have."""

    model: dict[str, Array]
    loss: dict[str, Array]


class Kept(NamedTuple):
    """An epoch, how good it was, and the weights after it."""

    score: Score
    epoch: int
    state: State


def state_of(model: Module, loss: object) -> State:
    """Return the `state_dict` of the model, and of a loss that is a module."""
    return State(model.state_dict(), loss.state_dict() if isinstance(loss, Module) else {})


def load_state(model: Module, loss: object, state: State) -> None:
    """Give back what `state_of` returned."""
    model.load_state_dict(state.model)
    if isinstance(loss, Module):
        loss.load_state_dict(state.loss)


class BestWeights:
    """A copy of the weights of the best epoch so far: that with the largest score."""

    def __init__(
        self, model: Module, score: Callable[[Row], Score] = default_score, loss: object | None = None
    ) -> None:
        self._model, self._loss, self._score = model, loss, score
        # One value, since Ctrl-C may come between any two lines: weights never stand beside another epoch's figures.
        self.kept: Kept | None = None

    @property
    def epoch(self) -> int | None:
        """The best epoch; None if there is none yet."""
        return None if self.kept is None else self.kept.epoch

    def offer(self, row: dict[str, float]) -> None:
        """Take the weights of now if the epoch with these figures is better than those before; never if one is NaN."""
        score = self._score(row)
        if any(map(math.isnan, score)) or (self.kept is not None and score <= self.kept.score):
            return
        self.kept = Kept(score, int(row["epoch"]), state_of(self._model, self._loss))

    def go_on(self, row: Row, state: State) -> None:
        """Begin with weights of a checkpoint; with none if their epoch lacks the figure that decides from now on."""
        try:
            score = self._score(row)  # what the checkpoint has may be another one's
        except (KeyError, ValueError):
            return
        if not any(map(math.isnan, score)):
            self.kept = Kept(score, int(row["epoch"]), state)

    def restore(self) -> int | None:
        """Give the weights back; return their epoch, or None if no epoch has finished."""
        if self.kept is None:
            return None
        load_state(self._model, self._loss, self.kept.state)
        return self.kept.epoch
