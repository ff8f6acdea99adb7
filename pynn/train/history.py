"""What a training has achieved, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pynn._files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History:
    """One row for each finished epoch.

    Attributes
    ----------
    epochs : list of dict
        Rows with "epoch" (from 1), "loss" (mean over the epoch's batches, as they were trained), "lr" (at the epoch's
        end), "seconds" (training only), "images_per_s"; with class labels "accuracy" (0 to 1); with validation data
        "val_loss" and "val_accuracy".
    interrupted : bool
        Ctrl-C ended the training early.
    best_epoch : int or None
        The epoch whose weights the model has, if the best ones were restored.

    Examples
    --------
    >>> history = History()
    >>> history.epochs.append({"epoch": 1, "loss": 0.5})
    >>> history["loss"]
    [0.5]
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.interrupted = False
        self.best_epoch: int | None = None

    def __len__(self) -> int:
        """Return the number of finished epochs."""
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, float]]:
        """Iterate over the rows."""
        return iter(self.epochs)

    def __getitem__(self, name: str) -> list[float]:
        """Return one figure of all epochs; KeyError if an epoch has none of that name."""
        return [row[name] for row in self.epochs]

    def __repr__(self) -> str:
        """Return the number of epochs and the last row's figures."""
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items()) if self.epochs else "empty"
        return f"History({len(self)} epochs; {last})"

    def plot(self, path: str | os.PathLike[str] | None = None, *, title: str = "") -> Figure:
        """Draw loss and accuracy over the epochs; write a picture to `path` if given.

        The suffix of `path` chooses the format (.png, .svg, .pdf).

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If no epoch has finished.
        """
        if not self.epochs:
            raise ValueError("History.plot: no epoch has finished")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("History.plot: needs matplotlib: pip install 'pynn-cpu[viz]'") from error
        there = {key for row in self.epochs for key in row}
        figures = [name for name in ("loss", "accuracy") if {name, f"val_{name}"} & there]
        figure = Figure(figsize=(5 * len(figures), 3.5), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures, strict=True):
            for key, label in ((name, "training"), (f"val_{name}", "validation")):
                rows = [row for row in self.epochs if key in row]  # a resume may add validation data, or leave it out
                if rows:
                    axes.plot([row["epoch"] for row in rows], [row[key] for row in rows], marker="o", label=label)
            axes.set_xlabel("epoch")
            axes.set_ylabel(name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        if title:
            figure.suptitle(title)
        if path is not None:
            save_figure(figure, path)
        return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all."""
    suffix = Path(path).suffix.removeprefix(".") or "png"
    with atomic_file(path) as file:
        figure.savefig(file, format=suffix, dpi=120)
