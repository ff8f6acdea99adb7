"""A training run in one file, from which it goes on exactly as if it had never stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import random, serialize
from pynn._files import check_path, make_folder, remove_leftovers
from pynn.train.best import State, load_state, state_of
from pynn.train.callbacks import Callback
from pynn.train.epoch import RunningEpoch
from pynn.train.history import History

if TYPE_CHECKING:
    from pynn.train.best import BestWeights
    from pynn.train.trainer import Trainer

__all__ = ["BEST", "LAST", "checkpoint_weights"]

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]

LAST = "last.safetensors"
"""The latest checkpoint."""

BEST = "best.safetensors"
"""The checkpoint of the epoch that was best on the validation data."""

FORMAT = "pynn checkpoint 1"

ENTRIES: dict[str, type | tuple[type, ...]] = {  # of the metadata, and what they may be
    "kinds": dict,
    "optimizer": dict,
    "scheduler": (dict, NoneType),
    "loaders": dict,
    "random": dict,
    "history": list,
    "best": (dict, NoneType),
    "callbacks": dict,
    "epoch": (dict, NoneType),
}

FIGURES = ("loss", "lr", "seconds", "images_per_s")  # of each row of the history
OPTIONAL_FIGURES = {"accuracy", "val_loss", "val_accuracy"}


def checkpoint_weights(path: str | os.PathLike[str]) -> Arrays:
    """Return the model's `state_dict` from a checkpoint that `Trainer.fit` wrote; of a folder, from its last one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is no path.
    ValueError
        If the file is no checkpoint.
    ImportError
        If the safetensors package is missing.

    Examples
    --------
    >>> import tempfile
    >>> from pynn import nn, optim
    >>> from pynn.train import Trainer
    >>> model, folder = nn.Linear(1, 1), tempfile.mkdtemp()
    >>> trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    >>> history = trainer.fit([(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))], 2, checkpoint=folder)
    >>> model.load_state_dict(checkpoint_weights(folder))
    LoadResult(missing_keys=[], unexpected_keys=[])
    """
    check_path("checkpoint_weights: path", path)
    return _group(_read("checkpoint_weights", path)[0], "model")


@dataclass
class Training:
    """What a checkpoint is of."""

    trainer: Trainer
    loaders: Mapping[str, Any]  # "training", and perhaps "validation"
    callbacks: Sequence[Callback]
    best: BestWeights | None
    folder: CheckpointFolder | None
    epoch: RunningEpoch | None = None  # None between two epochs
    loaded: _Loaded | None = None

    @property
    def has_best(self) -> bool:
        """The best weights are those that the model has."""
        return self.epoch is None and self.best is not None and self.best.epoch == len(self.trainer.history)

    def begin_epoch(self) -> RunningEpoch:
        """Begin an epoch, or go on with that of the checkpoint."""
        if self.epoch is None:
            keep_start = self.folder is not None and self.folder.every is not None
            self.epoch = RunningEpoch.begin(self.loaders["training"], keep_start)
        else:
            with self.all_or_nothing():
                self.restore()
        return self.epoch

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take a load back if a callback cannot go on from it; not on Ctrl-C, which ends a training as it stands."""
        try:
            yield
        except Exception:
            if self.loaded is not None:
                _apply(self.trainer, self.loaders, self.loaded.before)
                self.trainer.history, self.trainer.should_stop = self.loaded.history, self.loaded.should_stop
                if self.best is not None:
                    self.best.kept = None  # fit would restore them
            raise

    def restore(self) -> None:
        """Do the rest of a load, once the callbacks have heard of the begin: give them their states.

        Within an epoch everything else gets its state once more: what `on_epoch_begin` changes, it has changed before.
        """
        if self.loaded is None:
            return
        if self.epoch is not None:
            _apply(self.trainer, self.loaders, self.loaded.state)
            self.trainer.should_stop |= self.epoch.should_stop
        for callback in _stateful(self.callbacks):
            if states := self.loaded.callbacks.get(type(callback).__name__):
                callback.load_state_dict(states.pop(0))
        self.loaded = None


class _Loaded(NamedTuple):
    state: tuple[Any, ...]  # what `_apply` takes
    callbacks: dict[str, list[Any]]  # the states of each class, in order
    before: tuple[Any, ...]  # what `_apply` takes to undo the load
    history: History  # the trainer's, of before
    should_stop: bool


class CheckpointFolder:
    """Where a training leaves its last and its best checkpoint: after each epoch, and after `every` steps of one."""

    def __init__(self, folder: str | os.PathLike[str], every: int | None) -> None:
        serialize._import_safetensors("fit: checkpoint")  # before the first epoch, not after it
        self.every = every
        self._folder = make_folder("fit: checkpoint", folder)
        for name in (LAST, BEST):
            remove_leftovers(self._folder / name)

    def due(self, step: int) -> bool:
        """Whether a checkpoint follows this step of an epoch; they count from 1."""
        return self.every is not None and step % self.every == 0

    def write(self, training: Training) -> None:
        """Write the state of now; OSError, with the old files intact, if the disk does not take it."""
        arrays, metadata = _collect(training)
        # The best one first: if the process dies in between, the epoch is done again, and finds the same.
        for name in (BEST, LAST) if training.has_best else (LAST,):
            path = self._folder / name
            try:
                serialize.save(path, arrays, metadata)
            except OSError as error:
                raise OSError(error.errno, f"fit: checkpoint not written: {error.strerror}", str(path)) from error


def load_checkpoint(path: str | os.PathLike[str], training: Training) -> History:
    """Give everything the state it had when the checkpoint was written, all or nothing; return the history.

    `Training.restore` does the rest.
    """
    trainer, loaders, best = training.trainer, training.loaders, training.best
    check_path("fit: resume", path)
    arrays, saved = _read("fit: resume", path)
    running = saved["epoch"]  # None between epochs
    what = f"fit: resume: {os.fspath(path)}"
    for name, kind in _kinds(trainer).items():
        if saved["kinds"].get(name) != kind:
            raise ValueError(f"{what} was written with {name} {saved['kinds'].get(name)}, this training has {kind}")
    for name in saved["loaders"].keys() & loaders.keys():
        if not hasattr(loaders[name], "load_state_dict"):
            got = type(loaders[name]).__name__
            raise ValueError(f"{what} has the position of the {name} data, but a {got} has no load_state_dict")
    weights = State(_group(arrays, "model"), _group(arrays, "loss"))
    own = state_of(trainer.model, trainer.loss).loss
    if weights.loss.keys() != own.keys():
        then, now = (", ".join(names) or "none" for names in (weights.loss, own))
        raise ValueError(
            f"{what} was written with a loss of these parameters and buffers: {then}; this training's loss has: {now}"
        )
    before = _snapshot(trainer, loaders)
    try:
        epoch = None if running is None else RunningEpoch.go_on(running, loaders["training"])
        optimizer = _optimizer_state(saved["optimizer"], arrays, trainer)
        state = (weights, optimizer, saved["scheduler"], saved["loaders"], saved["random"])
        _apply(trainer, loaders, state)
    except BaseException as error:
        _apply(trainer, loaders, before)
        if isinstance(error, (AttributeError, KeyError, TypeError, ValueError)):
            raise ValueError(f"{what} does not fit this training: {error}") from error
        raise
    history = History()
    history.epochs = saved["history"]
    if best is not None and saved["best"] is not None:
        kept = State(_group(arrays, "best"), _group(arrays, "best_loss"))
        best.go_on(history.epochs[saved["best"]["epoch"] - 1], kept if any(kept) else weights)
    training.epoch = epoch
    training.loaded = _Loaded(state, saved["callbacks"], before, trainer.history, trainer.should_stop)
    return history


def _collect(training: Training) -> tuple[Arrays, dict[str, str]]:
    """Return what goes into the file: arrays, and the rest as JSON."""
    trainer, best, epoch = training.trainer, training.best, training.epoch
    weights, optimizer, scheduler, positions, random_state = _snapshot(trainer, training.loaders)
    arrays = _named("model", weights.model) | _named("loss", weights.loss)
    numbers: dict[int, dict[str, Any]] = {}
    for number, state in optimizer["state"].items():
        numbers[number] = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
        arrays |= {f"optimizer.{number}.{name}": v for name, v in state.items() if isinstance(v, np.ndarray)}
    kept = None if best is None else best.kept
    if kept is not None and not training.has_best:
        arrays |= _named("best", kept.state.model) | _named("best_loss", kept.state.loss)
    callbacks: dict[str, list[Any]] = {}
    for callback in _stateful(training.callbacks):
        callbacks.setdefault(type(callback).__name__, []).append(callback.state_dict())
    rest = {
        "kinds": _kinds(trainer),
        "optimizer": {**optimizer, "state": numbers},
        "scheduler": scheduler,
        "loaders": positions,
        "random": random_state,
        "history": trainer.history.epochs,
        "best": None if kept is None else {"epoch": kept.epoch, "score": kept.score},
        "callbacks": callbacks,
        "epoch": None if epoch is None else epoch.state_dict(training.loaders["training"], trainer.should_stop),
    }
    return arrays, {"format": FORMAT, "training": json.dumps(rest, default=_plain)}


def _read(operation: str, path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    path = Path(path)
    if path.is_dir():
        path /= LAST
    if not path.exists():
        raise FileNotFoundError(f"{operation}: {path} does not exist, needs a checkpoint or the folder of one")
    arrays, metadata = serialize.load(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{operation}: {path} has format {metadata.get('format')!r}, expected {FORMAT!r}")
    try:
        rest = {"callbacks": {}, "epoch": None, **json.loads(metadata["training"])}  # the oldest files lack these two
        for name, types in ENTRIES.items():
            if not isinstance(rest[name], types):
                raise ValueError(f"its {name!r} is {json.dumps(rest[name])[:40]}")
        for epoch, row in enumerate(rest["history"], 1):
            _check_row(epoch, row)
        if not all(isinstance(states, list) for states in rest["callbacks"].values()):
            raise ValueError("a state of its callbacks is none")
        if rest["best"] is not None:
            rest["best"] = {"epoch": int(rest["best"]["epoch"]), "score": tuple(map(float, rest["best"]["score"]))}
            if not (1 <= rest["best"]["epoch"] <= len(rest["history"]) and rest["best"]["score"]):
                raise ValueError(f"its 'best' is {json.dumps(rest['best'])[:40]}")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{operation}: {path} has no readable state of a training: {error}") from error
    return arrays, rest


def _check_row(epoch: int, row: Any) -> None:
    """Raise ValueError unless a row of the history is that of this epoch; figures of callbacks are their affair."""
    if not isinstance(row, dict) or row.get("epoch") != epoch:
        raise ValueError(f"row {epoch} of its history is {json.dumps(row)[:40]}")
    for name in (*FIGURES, *(OPTIONAL_FIGURES & row.keys())):
        if type(row.get(name)) not in (int, float):
            raise ValueError(f"{name!r} in row {epoch} of its history is {json.dumps(row.get(name))[:40]}")


def _named(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _group(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}."): array for name, array in arrays.items() if name.startswith(f"{prefix}.")}


def _kinds(trainer: Trainer) -> dict[str, str | None]:
    scheduler = trainer.scheduler
    return {
        "optimizer": type(trainer.optimizer).__name__,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
    }


def _optimizer_state(saved: Mapping[str, Any], arrays: Arrays, trainer: Trainer) -> dict[str, Any]:
    """Put numbers and arrays together again, and give options such as betas, lists in JSON, their own type."""
    groups = saved["param_groups"]
    for group, own in zip(groups, trainer.optimizer.param_groups, strict=False):  # it complains of another number
        group |= {name: tuple(group[name]) for name in own.keys() & group.keys() if isinstance(own[name], tuple)}
    states = {
        int(number): {**numbers, **_group(arrays, f"optimizer.{number}")} for number, numbers in saved["state"].items()
    }
    return {"param_groups": groups, "state": states}


def _stateful(callbacks: Sequence[Callback]) -> list[Callback]:
    return [callback for callback in callbacks if type(callback).state_dict is not Callback.state_dict]


def _snapshot(trainer: Trainer, loaders: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        state_of(trainer.model, trainer.loss),
        trainer.optimizer.state_dict(),
        None if trainer.scheduler is None else trainer.scheduler.state_dict(),
        {name: loader.state_dict() for name, loader in loaders.items() if hasattr(loader, "state_dict")},
        random.get_rng_state(),
    )


def _apply(trainer: Trainer, loaders: Mapping[str, Any], state: tuple[Any, ...]) -> None:
    weights, optimizer, scheduler, positions, random_state = state
    load_state(trainer.model, trainer.loss, weights)
    if trainer.scheduler is not None:
        trainer.scheduler.load_state_dict(scheduler)
    trainer.optimizer.load_state_dict(optimizer)  # after the scheduler, which sets the rates from its formula
    for name, position in positions.items():
        if name in loaders:
            loaders[name].load_state_dict(position)
    random.set_rng_state(random_state)


def _plain(value: Any) -> Any:
    """Return a NumPy number or array, which JSON does not know, as Python's own."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"fit: a checkpoint cannot hold a {type(value).__name__}: {value!r}")
