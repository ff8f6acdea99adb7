"""Callbacks that write the history while it comes about."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pynn._files import atomic_file, check_path
from pynn.train.callbacks import Callback

if TYPE_CHECKING:
    from pynn.train.trainer import Trainer

__all__ = ["CSVLogger", "JSONLinesLogger", "TensorBoardLogger"]

FLUSH_S = 1  # after which TensorBoard sees an epoch at the latest


class _FileLogger(Callback):
    """Lines that are appended to a file, each whole or not at all; parents are made as needed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_path(f"{type(self).__name__}: path", path)
        self.path = Path(path)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin the file anew, with the rows from before a `resume`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite(trainer.history)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Append a line."""
        self._append(self._lines([row]))

    def _rewrite(self, rows: Iterable[Mapping[str, float]]) -> None:
        # The history and not the file tells what came before: a process that was killed may have written a line more
        # than its last checkpoint has, or one less.
        with atomic_file(self.path) as file:
            file.write(self._lines(rows).encode())

    def _append(self, text: str) -> None:
        with open(self.path, "ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            data = memoryview(text.encode())
            try:
                while data:
                    data = data[file.write(data) :]
            except BaseException:  # the disk is full: no half of a line
                file.truncate(end)
                raise

    def _lines(self, rows: Iterable[Mapping[str, float]]) -> str:
        raise NotImplementedError


class JSONLinesLogger(_FileLogger):
    """Write one JSON object for each epoch, on a line of its own (https://jsonlines.org).

    Each line is there as soon as its epoch has ended. `fit` with `resume` goes on with the lines of the epochs before;
    without, it begins the file anew.

    Parameters
    ----------
    path : path
        NaN and infinity, which JSON has not, are written as null.

    Raises
    ------
    OSError
        From `fit`, if the file cannot be written; what it has are whole lines.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> from pynn.train import JSONLinesLogger, Trainer
    >>> path = pathlib.Path(tempfile.mkdtemp(), "history.jsonl")
    >>> model = nn.Linear(1, 1)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    >>> batches = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))]
    >>> history = trainer.fit(batches, 2, callbacks=[JSONLinesLogger(path)])
    >>> [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
    [1, 2]
    """

    def _lines(self, rows: Iterable[Mapping[str, float]]) -> str:
        return "".join(f"{json.dumps(as_json(row), allow_nan=False)}\n" for row in rows)


class CSVLogger(_FileLogger):
    """Write the history as a table: a line of names, then one for each epoch.

    Each line is there as soon as its epoch has ended. `fit` with `resume` goes on with the lines of the epochs before;
    without, it begins the file anew.

    Parameters
    ----------
    path : path
        Separated by commas, UTF-8; numbers as Python writes them, so that they are read back exactly.

    Raises
    ------
    OSError
        From `fit`, if the file cannot be written; what it has are whole lines.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> from pynn.train import CSVLogger, Trainer
    >>> path = pathlib.Path(tempfile.mkdtemp(), "history.csv")
    >>> model = nn.Linear(1, 1)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    >>> batches = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))]
    >>> history = trainer.fit(batches, 2, callbacks=[CSVLogger(path)])
    >>> path.read_text().splitlines()[0]
    'epoch,loss,lr,seconds,images_per_s'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._columns: list[str] = []

    def on_epoch_end(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Append a line, or write all anew if there is a figure that had no column."""
        if row.keys() <= set(self._columns):
            super().on_epoch_end(trainer, row)
        else:
            self._rewrite(trainer.history)

    def _rewrite(self, rows: Iterable[Mapping[str, float]]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with atomic_file(self.path) as file:
            file.write((self._table([self._columns] if self._columns else []) + self._lines(rows)).encode())

    def _lines(self, rows: Iterable[Mapping[str, float]]) -> str:
        return self._table([row.get(name, "") for name in self._columns] for row in rows)

    def _table(self, rows: Iterable[Iterable[Any]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


class TensorBoardLogger(Callback):
    """Write the figures of each epoch for TensorBoard, by tensorboardX (``pip install 'pynn-cpu[tensorboard]'``).

    Parameters
    ----------
    folder : path
        Of the events; one for each run, below the one given to ``tensorboard --logdir``. With `resume`, events of
        epochs after the checkpoint are hidden.

    Raises
    ------
    ImportError
        If tensorboardX is missing.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from pynn import nn, optim
    >>> from pynn.train import TensorBoardLogger, Trainer
    >>> folder = pathlib.Path(tempfile.mkdtemp(), "run")
    >>> model = nn.Linear(1, 1)
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    >>> batches = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))]
    >>> history = trainer.fit(batches, 2, callbacks=[TensorBoardLogger(folder)])
    >>> len(list(folder.glob("events.out.tfevents.*")))
    1
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("TensorBoardLogger: needs tensorboardX: pip install 'pynn-cpu[tensorboard]'") from error
        check_path("TensorBoardLogger: folder", folder)
        self.folder = Path(folder)
        self._open = tensorboardX.SummaryWriter
        self._writer: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the file of events."""
        before = len(trainer.history)
        hidden = before + 1 if before else None
        # A name of its own: that by the second would be taken if one resumed at once.
        self._writer = self._open(
            os.fspath(self.folder), purge_step=hidden, flush_secs=FLUSH_S, filename_suffix=f".{before}"
        )

    def on_epoch_end(self, trainer: Trainer, row: dict[str, float]) -> None:
        """Write the figures of the epoch."""
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self._writer.close()


def as_json(value: Any) -> Any:
    """Return figures as JSON has them, also if they are NumPy's: NaN and infinity become None.

    >>> as_json({"loss": math.nan, "history": [{"loss": 0.5}]})
    {'loss': None, 'history': [{'loss': 0.5}]}
    """
    if isinstance(value, Mapping):
        return {name: as_json(figure) for name, figure in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(figure) for figure in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
