"""What the estimators train: a module with its loss and optimiser, in captured steps."""

from __future__ import annotations

import copy
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn import _core, nn
from pynn import functional as F
from pynn.data import take
from pynn.guarded import CaptureError
from pynn.optim import Optimizer
from pynn.replay import Captured
from pynn.sklearn._packed import PackedLayers
from pynn.tape import no_grad
from pynn.tensor import Tensor

Array: TypeAlias = npt.NDArray[Any]
Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # of outputs, targets and weights with the sum 1

PREDICTED_ROWS = 1024  # at once


class Network:
    """A module in training.

    `alpha` is the strength of the L2 penalty alpha / 2 · ‖weights‖² / samples on the optimiser's first group.
    """

    def __init__(self, module: nn.Module, loss: Loss, optimizer: Optimizer, alpha: float = 0.0) -> None:
        self.module, self.loss, self.optimizer, self.alpha = module, loss, optimizer, alpha
        self._captures = True  # until a step cannot be captured
        self._step = Captured(self._train_step)
        self._packed: PackedLayers | None = None  # once there were packed rows
        self._packed_step = Captured(self._train_packed_step)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_packed": None}

    def keep(self, is_one_step: bool) -> Callable[[], None]:
        """Return what restores weights, the optimiser's state and its options, of which it takes a copy.

        One step needs none unless there are running averages: where it fails, it does so before the weights change.
        """
        optimizer = self.optimizer
        if is_one_step and next(self.module.buffers(), None) is None:
            return optimizer.zero_grad
        weights = self.module.state_dict()
        states = {p: copy.deepcopy(state) for p, state in optimizer.state.items()}
        options = [group.copy() for group in optimizer.param_groups]

        def restore() -> None:
            self.module.load_state_dict(weights)
            optimizer.state.clear()
            optimizer.state.update(states)
            for group, values in zip(optimizer.param_groups, options, strict=True):
                group.update(values)
            optimizer.zero_grad()

        return restore

    @contextmanager
    def training(self, rows: _core.PackedRows | None) -> Iterator[PackedLayers | None]:
        """Prepare for epochs; where the data are packed and the module can train on that, give what does."""
        layers, module = self._packed, self.module
        if rows is not None and (layers is None or not layers.fits(module, rows)) and isinstance(module, nn.Sequential):
            layers = self._packed = PackedLayers(module, self.optimizer)
        if rows is None or layers is None or not layers.fits(module, rows):
            yield None
            return
        with layers.training(rows):
            yield layers

    def train_epoch(
        self,
        X: Any,
        y: Array,
        weights: Array | None,
        order: Array | None,
        batch_size: int,
        packed: PackedLayers | None = None,
    ) -> float:
        """Train on all samples once, in this order, `packed` ones if they are; return the mean loss.

        Raises ValueError if the loss is NaN or infinite.
        """
        self.module.train()
        samples: int = X.shape[0]
        total = penalties = 0.0
        is_one_step = samples <= batch_size
        squares = self._squares() if is_one_step else 0.0  # what fails behind the only step cannot be restored
        numbers = np.arange(samples) if order is None else order
        if order is not None:
            y, weights = take(y, order), None if weights is None else take(weights, order)
        x: Array | None = None
        step = self._step if packed is None else self._packed_step
        for start in range(0, samples, batch_size):
            stop = min(start + batch_size, samples)
            rows = slice(start, stop)
            counted: float = stop - start
            share = None
            if weights is not None:
                counted = weights[rows].sum().item()
                if counted == 0:
                    continue
                share = weights[rows] / counted
            if self.alpha:
                self.optimizer.param_groups[0]["weight_decay"] = self.alpha / counted
            if packed is not None:
                x = numbers[rows]
            elif order is None or x is None or len(x) != stop - start or not isinstance(X, np.ndarray):
                x = rows_of(X, rows if order is None else order[rows])
            else:  # the same memory, which is cached, and which the step knows
                _core.take_rows(X, order[rows], x)
            try:
                loss = self._run(step, x, y[rows], share).item()
            except FloatingPointError as error:
                raise _advice(str(error)) from None
            total += loss * (stop - start)
            penalties += (stop - start) / counted
        if packed is not None:
            packed.write_back()
        if not is_one_step:
            squares = self._squares()
        return (total + 0.5 * self.alpha * squares * penalties) / samples

    def _squares(self) -> float:
        """Return the sum of squares of the penalty, if there is one; ValueError if it is infinite."""
        if not self.alpha:
            return 0.0
        with np.errstate(over="ignore"):
            squares: float = sum(np.square(p.data).sum().item() for p in self.optimizer.param_groups[0]["params"])
        if not math.isfinite(squares):
            raise _advice(f"the loss is {squares}")
        return squares

    def _run(self, step: Captured, *arrays: Array | None) -> Tensor:
        """Replay a step, or run it as it is written if it cannot be captured."""
        loss: Tensor
        if self._captures:
            try:
                loss = step(*arrays)
                return loss
            except CaptureError as error:
                warnings.warn(f"fit: trains without capture, which takes longer: {error}", stacklevel=6)
                self._captures = False
        loss = step.function(*[None if array is None else Tensor(array) for array in arrays])
        return loss

    def _train_step(self, x: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
        return self._update(self.loss(self.module(x), y, share))

    def _train_packed_step(self, numbers: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
        assert self._packed is not None
        return self._update(self.loss(self._packed(numbers), y, share))

    def _update(self, loss: Tensor) -> Tensor:
        F.require_finite(loss, "the loss")  # before anything is updated
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def outputs(self, X: Any, then: Callable[[Tensor], Tensor] = lambda z: z) -> Array:
        """Return what the module computes, and `then` of it, for each row."""
        return outputs(self.module, X, then)


def _advice(what: str) -> ValueError:
    return ValueError(f"fit: {what}; scale the data (such as with StandardScaler), or lower the learning rate")


def outputs(module: nn.Module, X: Any, then: Callable[[Tensor], Tensor] = lambda z: z) -> Array:
    """Return what the module computes in evaluation mode, and `then` of it, for each row."""
    module.eval()
    samples = X.shape[0]
    with no_grad():
        parts = [
            then(module(rows_of(X, slice(start, start + PREDICTED_ROWS)))).data
            for start in range(0, samples, PREDICTED_ROWS)
        ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def rows_of(X: Any, rows: Any) -> Array:
    """Return these rows, dense."""
    if not isinstance(X, np.ndarray):  # SciPy's sparse matrices
        dense: Array = np.ascontiguousarray(X[rows].toarray())
        return dense
    return X[rows] if isinstance(rows, slice) else take(X, rows)


def log_loss(z: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
    """Return the cross-entropy of logits [N, C] and classes [N]."""
    return F.cross_entropy(z, y) if share is None else (F.cross_entropy(z, y, reduction="none") * share).sum()


def binary_log_loss(z: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
    """Return the binary cross-entropy of logits [N, K] and 0 or 1, summed over K."""
    if share is None:
        return F.binary_cross_entropy_with_logits(z, y, "sum") / z.shape[0]
    return (F.binary_cross_entropy_with_logits(z, y, "none") * share.reshape(-1, 1)).sum()


def half_squared_error(z: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
    """Return half of the squared error of [N, K], summed over K."""
    if share is None:
        return F.mse_loss(z, y, "sum") * (0.5 / z.shape[0])
    return (F.mse_loss(z, y, "none") * share.reshape(-1, 1)).sum() * 0.5


class _Shares:
    """The threads of the core, divided among the fits that run at once in threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fits = 0
        self._whole = self._given = 0

    def change(self, fits: int) -> None:
        with self._lock:
            if self._fits == 0 or _core.num_threads() != self._given:  # or the user has set another number
                self._whole = _core.num_threads()
            self._fits += fits
            self._given = max(1, self._whole // max(1, self._fits))
            _core.set_num_threads(self._given)


_shares = _Shares()


def _forget_other_threads() -> None:
    global _shares
    if _shares._fits:
        _core.set_num_threads(_shares._whole)
    _shares = _Shares()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


@contextmanager
def share_of_threads() -> Iterator[None]:
    """Take a share of the threads, so that fits in several threads at once together use those of one."""
    shares = _shares
    shares.change(1)
    try:
        yield
    finally:
        shares.change(-1)
