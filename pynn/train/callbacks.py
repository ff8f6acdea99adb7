"""Callbacks: what else happens while `Trainer.fit` runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pynn._checks import real, whole
from pynn.train.best import Row, Score

if TYPE_CHECKING:
    from pynn.train.trainer import Trainer

__all__ = ["Callback", "EarlyStopping"]


class Callback:
    """Something that `Trainer.fit` calls as it goes along; override what you need.

    `trainer.history` has the rows of the finished epochs, also those from before a `resume`. An exception ends the
    training, and `fit` raises it; ``trainer.should_stop = True`` ends it without one.

    Examples
    --------
    >>> class Announce(Callback):
    ...     def on_epoch_end(self, trainer, row):
    ...         print(f"epoch {row['epoch']} is done")
    >>> Announce().on_epoch_end(None, {"epoch": 1, "loss": 0.5})
    epoch 1 is done
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before an epoch; they count from 1. Called again where a training goes on within an epoch."""

    def on_batch_end(self, trainer: Trainer, epoch: int, step: int, loss: float) -> None:
        """After an optimiser's step; they count from 1 in each epoch. Who does not override it costs no time here."""

    def on_epoch_end(self, trainer: Trainer, row: dict[str, float]) -> None:
        """After an epoch with its validation, before the checkpoint; `row` is the history's, and may get entries."""

    def on_train_end(self, trainer: Trainer) -> None:
        """At the end, also if that is an exception or Ctrl-C; the best weights are restored."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return what checkpoints are to keep of this callback, fit for JSON; by default nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned: after `on_train_begin`, within an epoch after its `on_epoch_begin`."""


def listeners(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return those that want to hear of batches.

    Raises
    ------
    TypeError
        If one is not a `Callback`, or there is one where a sequence of them belongs.
    """
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"fit: callbacks is a {type(callbacks).__name__}, needs a sequence of pynn.train.Callback")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: a callback is a {type(callback).__name__}, needs a pynn.train.Callback")
    return [callback for callback in callbacks if type(callback).on_batch_end is not Callback.on_batch_end]


class EarlyStopping(Callback):
    """End the training once a figure has not become better for some epochs.

    `fit` then takes this figure to tell which epoch was best: for the weights that it restores (unless
    ``restore_best=False``), and for ``best.safetensors``. Of several each may end the training, and the first one in
    `callbacks` decides which epoch was best.

    Parameters
    ----------
    monitor : str
        A figure of the history's rows: "val_loss", "val_accuracy", "loss", or one that a callback before this one adds.
    patience : int
        How many epochs in a row may bring no progress; the last of them ends the training.
    min_delta : float
        What is at most so much better is no progress. It has no say in which epoch was best.
    mode : "min" or "max", optional
        Whether lower or higher is better; by default "max" for names that end in "accuracy".

    Attributes
    ----------
    stopped_epoch : int or None
        After which epoch it ended the latest training.

    Raises
    ------
    ValueError
        If `patience`, `min_delta` or `mode` is out of range; from `fit`, if one of its epochs has no such figure.
    TypeError
        If `monitor` is no string, `patience` no integer, or `min_delta` no number.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> from pynn.train import EarlyStopping, Trainer
    >>> model = nn.Linear(1, 1)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.0), verbose=False)
    >>> batches = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))]
    >>> len(trainer.fit(batches, 100, callbacks=[EarlyStopping("loss", patience=3)]))  # it learns nothing
    4
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"EarlyStopping: monitor is {monitor!r}, needs the name of a figure, such as 'val_loss'")
        patience = whole("EarlyStopping: patience", patience, 1)
        min_delta = real("EarlyStopping: min_delta", min_delta, 0)
        if mode not in (None, "min", "max"):
            raise ValueError(f"EarlyStopping: mode is {mode!r}, needs 'min' or 'max'")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.mode = mode or ("max" if monitor.endswith("accuracy") else "min")
        self.stopped_epoch: int | None = None
        self._best = -math.inf
        self._waited = 0

    def score(self, row: Row) -> Score:
        """Return the figure of an epoch so that higher is better."""
        if self.monitor not in row:
            raise ValueError(
                f"EarlyStopping: there is no {self.monitor!r} among the figures of epoch {row['epoch']}, which are "
                f"{', '.join(row)}"
            )
        return (row[self.monitor] if self.mode == "max" else -row[self.monitor],)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin anew, or where the history ends."""
        self.stopped_epoch, self._best, self._waited = None, -math.inf, 0
        for row in trainer.history:
            if self.monitor in row:  # before a resume nobody may have measured it
                self._see(trainer, row)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Compare with the best epoch."""
        self._see(trainer, row)
        if self.stopped_epoch is not None and trainer.verbose:
            epochs = "1 epoch" if self.patience == 1 else f"{self.patience} epochs"
            trainer.log(f"{trainer.prefix}stopped after epoch {row['epoch']}: no better {self.monitor} for {epochs}")

    def _see(self, trainer: Trainer, row: Row) -> None:
        (score,) = self.score(row)
        if score > self._best + self.min_delta:  # never if it is NaN
            self._best, self._waited = score, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = int(row["epoch"])
            trainer.should_stop = True
