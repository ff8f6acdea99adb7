"""The training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn._array import as_array
from pynn._checks import whole
from pynn.guarded import CaptureError
from pynn.nn import Module
from pynn.optim import LRScheduler, Optimizer, ReduceLROnPlateau
from pynn.replay import Captured
from pynn.tensor import Tensor
from pynn.train.best import BestWeights, default_score
from pynn.train.callbacks import Callback, EarlyStopping, listeners
from pynn.train.checkpoint import CheckpointFolder, Training, load_checkpoint
from pynn.train.diagnose import explain_non_finite
from pynn.train.history import History
from pynn.train.progress import Progress, format_figures
from pynn.train.steps import evaluation_mode, forward, train_step
from pynn.train.totals import Totals, as_pair

Array: TypeAlias = npt.NDArray[Any]
Batches: TypeAlias = Iterable[tuple[Any, Any]]


class Trainer:
    """Train, evaluate and apply a model.

    Parameters
    ----------
    model : Module
    loss : callable
        ``loss(outputs, targets)`` gives a scalar Tensor, the mean over the batch: a module or a function.
    optimizer : Optimizer
    scheduler : LRScheduler, optional
        Its `interval` ("step" or "epoch") tells when it is stepped; `ReduceLROnPlateau` gets the loss, in
        mode "max" the accuracy: of the validation data if given, else of the training data.
    verbose : bool
        Write one line for each epoch through `log`, and while an epoch runs a progress line with loss, accuracy,
        images/s and time left if standard error is a terminal.
    log : callable
        Gets each line of text.
    prefix : str
        Put before every line.
    capture : bool
        Replay steps and predictions with `pynn.capture`: Python code in `forward` and in the loss runs once for each
        shape of a batch. What cannot be captured runs as it is written, and `log` gets the reason.

    Attributes
    ----------
    history : History
        Of the latest `fit`, also if that raised.
    should_stop : bool
        Set to True in a callback, it ends the training after the epoch at hand.

    Raises
    ------
    TypeError
        If `model`, `loss`, `optimizer` or `scheduler` is of another kind, such as a class in the place of an instance.
    ValueError
        If the optimizer has no parameter of the model, nor of the loss, or no option `lr`.

    Examples
    --------
    >>> import pynn
    >>> from pynn import nn, optim, data
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    >>> loader = data.DataLoader(x, (x[:, 0] > x[:, 1]).astype(np.int64), batch_size=16)
    >>> pynn.seed(0)
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.1), verbose=False)
    >>> history = trainer.fit(loader, epochs=5)
    >>> trainer.evaluate(loader)["accuracy"] > 0.9
    True
    >>> trainer.predict(x).shape
    (64, 2)
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[[Tensor, Any], Tensor],
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        *,
        verbose: bool = True,
        log: Callable[[str], object] = print,
        prefix: str = "",
        capture: bool = True,
    ) -> None:
        _require("model", model, isinstance(model, Module), "a Module")
        _require("loss", loss, callable(loss), "a loss module or a function")
        _require("optimizer", optimizer, isinstance(optimizer, Optimizer), "an Optimizer")
        _require("scheduler", scheduler, isinstance(scheduler, LRScheduler | None), "an LRScheduler or None")
        trained = [*model.parameters(), *(loss.parameters() if isinstance(loss, Module) else ())]
        if not {id(p) for p in trained} & {id(p) for group in optimizer.param_groups for p in group["params"]}:
            raise ValueError("Trainer: the optimizer has no parameter of the model; make it with model.parameters()")
        if "lr" not in optimizer.defaults:
            raise ValueError(f"Trainer: {type(optimizer).__name__} has no option 'lr', which goes into the history")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.verbose = verbose
        self.log = log
        self.prefix = prefix
        self.history = History()
        self.should_stop = False
        self.capture = capture
        self._train_step, self._forward = Captured(train_step), Captured(forward)

    def __repr__(self) -> str:
        """Return a summary: what is trained, how, and whether its steps are captured."""
        parameters = sum(parameter.size for parameter in self.model.parameters())
        loss = getattr(self.loss, "__name__", type(self.loss).__name__)
        return (
            f"Trainer({type(self.model).__name__} of {parameters:,} parameters, {loss}, "
            f"{type(self.optimizer).__name__}, {'captured' if self.capture else 'eager'} steps)"
        )

    def fit(
        self,
        loader: Batches,
        epochs: int,
        val: Batches | None = None,
        *,
        callbacks: Sequence[Callback] = (),
        restore_best: bool | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for a number of epochs.

        Ctrl-C ends the training cleanly: the history of the finished epochs is returned with `interrupted` set.

        Parameters
        ----------
        loader : iterable of (inputs, targets)
            Iterated once per epoch, as `DataLoader`. Arrays and Tensors are accepted.
        epochs : int
        val : iterable of (inputs, targets), optional
            Evaluated after each epoch.
        callbacks : sequence of Callback, optional
            Called at the begin and end of the training, of epochs and batches, in this order (at the end in the
            opposite one), such as `CSVLogger` and `EarlyStopping`.
        restore_best : bool, optional
            At the end, also after an exception, give the model the weights of the epoch with the best validation
            accuracy (the lowest validation loss without class labels), or of the one best by the figure of
            `EarlyStopping`. By default True if `val` or an `EarlyStopping` is given.
        checkpoint : path, optional
            Folder in which each epoch leaves ``last.safetensors``, and with `val` or an `EarlyStopping` the best one so
            far ``best.safetensors``: model, parameters and buffers of the loss, optimizer, scheduler, random numbers,
            positions of the loaders that have `state_dict`, and history. A file is whole or not there, whenever the
            process dies. Needs safetensors.
        checkpoint_every : int, optional
            Write ``last.safetensors`` also within epochs, after each so many steps of one.
        resume : path, optional
            Such a file, or a folder with ``last.safetensors``: go on from it, up to `epochs` epochs in all. With the
            same model, loss, optimizer, scheduler, data and machine, all bits are those of a training in one go. Within
            an epoch, `loader` must cut the data as it did; unless it is a `DataLoader`, the batches that are done are
            made once more, and left out.

        Raises
        ------
        ValueError
            If ``epochs < 1`` or ``checkpoint_every < 1``, a loader has no batches, `restore_best` is asked for without
            `val`, or `checkpoint_every` without `checkpoint`.
        TypeError
            If `epochs` or `checkpoint_every` is no integer or a batch is not a pair.
        FloatingPointError
            If the loss is NaN or infinite; the message names the first layer with a non-finite output. The optimizer
            has not stepped on it.
        FileNotFoundError, ValueError
            If `resume` is not there, or is not a checkpoint of such a training; everything is then as it was, as it is
            if a callback cannot begin or take its state.
        OSError
            If a checkpoint cannot be written; the one before is intact.
        """
        epochs = whole("fit: epochs", epochs, 1)
        _require_batches("fit: loader", loader)
        if val is not None:
            _require_batches("fit: val", val)
        if checkpoint_every is not None:
            checkpoint_every = whole("fit: checkpoint_every", checkpoint_every, 1)
            if checkpoint is None:
                raise ValueError("fit: checkpoint_every needs a folder for the checkpoints (checkpoint=...)")
        listening = listeners(callbacks)
        choosing = next((callback for callback in callbacks if isinstance(callback, EarlyStopping)), None)
        can_choose = val is not None or choosing is not None
        if restore_best and not can_choose:
            raise ValueError(
                "fit: restore_best needs validation data (val=...) or an EarlyStopping to tell which weights are best"
            )
        keeps_best = can_choose and (restore_best is not False or checkpoint is not None)
        best = BestWeights(self.model, choosing.score if choosing else default_score, self.loss) if keeps_best else None
        loaders = {"training": loader} | ({} if val is None else {"validation": val})
        folder = None if checkpoint is None else CheckpointFolder(checkpoint, checkpoint_every)
        training = Training(self, loaders, callbacks, best, folder)
        history = History() if resume is None else load_checkpoint(resume, training)
        self.history, self.should_stop = history, False
        if resume is not None and self.verbose:
            within = f", step {training.epoch.totals.batches} of epoch {len(history) + 1}" if training.epoch else ""
            self.log(f"{self.prefix}resumed from {os.fspath(resume)}: after epoch {len(history)}/{epochs}{within}")
        with ExitStack() as stack:
            with training.all_or_nothing():
                for callback in callbacks:
                    callback.on_train_begin(self)
                    stack.callback(callback.on_train_end, self)
                if training.epoch is None:
                    training.restore()
            try:
                for epoch in range(len(history) + 1, epochs + 1):
                    if self.should_stop:
                        break
                    for callback in callbacks:
                        callback.on_epoch_begin(self, epoch)
                    row = self._train_epoch(training, epoch, epochs, listening)
                    if val is not None:
                        row.update({f"val_{name}": figure for name, figure in self.evaluate(val).items()})
                    history.epochs.append(row)
                    self._report(row, epochs)
                    for callback in callbacks:
                        callback.on_epoch_end(self, row)
                    if best is not None:
                        best.offer(row)
                    self._schedule_epoch(row)
                    if folder is not None:
                        folder.write(training)
            except KeyboardInterrupt:
                history.interrupted = True
                if self.verbose:
                    self.log(f"{self.prefix}interrupted in epoch {min(len(history) + 1, epochs)}/{epochs}")
            finally:
                if best is not None and restore_best is not False:
                    history.best_epoch = best.restore()
        return history

    def evaluate(self, loader: Batches) -> dict[str, float]:
        """Return the mean "loss" and, with class labels, the "accuracy" (0 to 1), in evaluation mode without a tape.

        Raises
        ------
        ValueError
            If the loader has no batches.
        TypeError
            If a batch is not a pair.
        """
        _require_batches("evaluate: loader", loader)
        totals = Totals()
        with evaluation_mode(self.model):
            for batch in loader:
                inputs, targets = as_pair("evaluate", batch)
                outputs = self._run(self._forward, self.model, inputs)
                totals.add(self.loss(outputs, targets).item(), outputs, targets)
        if totals.count == 0:
            raise ValueError("evaluate: the loader has no batches")
        return totals.figures()

    def predict(self, data: Any, batch_size: int = 256) -> Array:
        """Return the model's outputs ``[N, ...]``, in evaluation mode without a tape.

        Parameters
        ----------
        data : ndarray or Tensor ``[N, ...]``, or iterable of batches
            Batches are inputs, or tuples that begin with the inputs (targets are left out).
        batch_size : int
            How an array is cut.

        Raises
        ------
        ValueError
            If there are no samples, or ``batch_size < 1``.
        TypeError
            If `data` is neither an array nor iterable, or `batch_size` no integer.
        """
        batch_size = whole("predict: batch_size", batch_size, 1)
        array = data.data if isinstance(data, Tensor) else data
        if isinstance(array, np.ndarray):
            if array.ndim == 0:
                raise ValueError("predict: got an array of shape [], needs [N, ...]")
            batches: Iterable[Any] = (array[i : i + batch_size] for i in range(0, len(array), batch_size))
        else:
            _require_batches("predict: data", data)
            batches = data
        outputs = []
        with evaluation_mode(self.model):
            for batch in batches:
                inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
                if not isinstance(inputs, (np.ndarray, Tensor, list)):
                    got = type(inputs).__name__
                    raise TypeError(f"predict: the inputs of a batch are a {got}, need an array [N, ...]")
                outputs.append(self._run(self._forward, self.model, inputs).data)
        if not outputs:
            raise ValueError("predict: there are no samples")
        return np.concatenate(outputs)

    def _train_epoch(
        self, training: Training, epoch: int, epochs: int, listening: Sequence[Callback]
    ) -> dict[str, float]:
        scheduler = self.scheduler if self.scheduler is not None and self.scheduler.interval == "step" else None
        folder, loader = training.folder, training.loaders["training"]
        batches = len(loader) if isinstance(loader, Sized) else None
        label = f"{self.prefix}epoch {epoch}/{epochs}"
        self.model.train()
        running = training.begin_epoch()
        totals, after = running.totals, (batches or 0) * (epochs - epoch)
        progress = Progress(label, batches, after, elapsed=totals.seconds, enabled=self.verbose)
        start = time.perf_counter() - totals.seconds
        try:
            for step, batch in enumerate(running.batches, totals.batches + 1):
                inputs, targets = as_pair("fit", batch)
                try:
                    loss, outputs = self._run(self._train_step, self.model, self.loss, self.optimizer, inputs, targets)
                except FloatingPointError as error:
                    reason = explain_non_finite(self.model, _unlisted(inputs) if self.capture else inputs)
                    raise FloatingPointError(f"fit: {error} in epoch {epoch}, step {step}: {reason}") from None
                if scheduler is not None:
                    scheduler.step()
                value = loss.item()
                totals.add(value, outputs, targets)
                progress.update(step, totals.count, totals.loss, totals.accuracy)
                for callback in listening:
                    callback.on_batch_end(self, epoch, step, value)
                if folder is not None and folder.due(step):
                    totals.seconds = time.perf_counter() - start
                    folder.write(training)
                    start = time.perf_counter() - totals.seconds
        finally:
            progress.close()
        training.epoch = None
        totals.seconds = time.perf_counter() - start
        if totals.count == 0:
            raise ValueError(f"fit: the loader has no batches in epoch {epoch}")
        return {
            "epoch": epoch,
            **totals.figures(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": totals.seconds,
            "images_per_s": totals.count / totals.seconds,
        }

    def _run(self, captured: Captured, *args: Any) -> Any:
        """Replay a captured function, or run it as it is written if it cannot be captured."""
        if not self.capture:
            return captured.function(*args)
        try:
            return captured(*map(_unlisted, args))
        except (CaptureError, AttributeError, TypeError) as error:  # such as a loss that needs a NumPy array
            reason = str(error)
        result = captured.function(*args)  # an error that has nothing to do with the capture comes out here
        self.capture = False
        if self.verbose:
            self.log(f"{self.prefix}runs without capture: {reason}")
        return result

    def _schedule_epoch(self, row: dict[str, float]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            name = "loss" if self.scheduler.mode == "min" else "accuracy"
            name = f"val_{name}" if "val_loss" in row else name
            if name not in row:
                raise ValueError(
                    f"fit: ReduceLROnPlateau in mode 'max' needs class labels: epoch {row['epoch']} has no {name!r}"
                )
            self.scheduler.step(row[name])
        elif self.scheduler is not None and self.scheduler.interval == "epoch":
            self.scheduler.step()

    def _report(self, row: dict[str, float], epochs: int) -> None:
        if not self.verbose:
            return
        text = f"epoch {row['epoch']}/{epochs}  {format_figures(row['loss'], row.get('accuracy'))}"
        if "val_loss" in row:
            text += f"  {format_figures(row['val_loss'], row.get('val_accuracy'), 'val ')}"
        self.log(f"{self.prefix}{text}  {row['images_per_s']:,.0f} images/s  {row['seconds']:.1f} s")


def _unlisted(value: Any) -> Any:
    return as_array("Trainer: a list in a batch", value) if isinstance(value, list) else value


def _require(name: str, value: object, fits: bool, needed: str) -> None:
    if isinstance(value, type):
        raise TypeError(f"Trainer: {name} is the class {value.__name__}, needs {needed}: {value.__name__}(...)")
    if not fits:
        raise TypeError(f"Trainer: {name} is a {type(value).__name__}, needs {needed}")


def _require_batches(what: str, value: object) -> None:
    if not isinstance(value, Iterable) and not hasattr(value, "__getitem__"):
        raise TypeError(f"{what} is a {type(value).__name__}, needs an iterable of batches")
