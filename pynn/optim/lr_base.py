"""What learning-rate schedules have in common, and the one that looks at a metric instead of counting.

`interval` tells a training loop when to call `step`: after every batch ("step") or every epoch ("epoch").
`needs_metric` tells that `step` wants the value watched, such as the validation loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from pynn._checks import whole
from pynn.grad_mode import mode
from pynn.optim.optimizer import Group, Optimizer, check_range

P = ParamSpec("P")
S = TypeVar("S", bound="LRScheduler")


def _captured(step: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Let the replays of a function that is being captured take this step, too.

    Steps within a step, such as that of `super()` or of another scheduler, are a part of it.
    """

    @functools.wraps(step)
    def one_step(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if mode.recorder is None:
            return step(self, *args, **kwargs)
        mode.recorder.undo(self._restorer())
        if mode.is_scheduling:
            mode.recorder.around.forget(self.optimizer)
            return step(self, *args, **kwargs)
        again = functools.partial(step, self, *args, **kwargs)
        mode.recorder.schedules(f"{type(self).__name__}.step", self.optimizer, again)
        mode.is_scheduling = True
        try:
            return again()
        finally:
            mode.is_scheduling = False

    return one_step


class LRScheduler:
    """Base class: a subclass defines `_factor`, or `_lr` for what is not a multiple of the group's first rate.

    Making a scheduler sets the learning rate of step 0. The groups' rates at that moment are the base rates. Captured
    steps call `step` as it is written in each replay, also that of a subclass, which may step twice, or step others.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> class HalfAfterTen(optim.LRScheduler):
    ...     def _factor(self):
    ...         return 1.0 if self.step_count < 10 else 0.5
    >>> scheduler = HalfAfterTen(optim.SGD([nn.Parameter([0.0])], lr=1.0))
    >>> for _ in range(10):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    interval: ClassVar[Literal["step", "epoch"]] = "epoch"
    needs_metric: ClassVar[bool] = False
    _saved: tuple[str, ...] = ("step_count", "base_lrs")  # attributes that a checkpoint needs

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer is a {type(optimizer).__name__}, needs an Optimizer")
        if "lr" not in optimizer.defaults:
            raise ValueError(f"{type(self).__name__}: {type(optimizer).__name__} has no option 'lr' to set")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.step_count = 0
        self._apply()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "step" in vars(cls):
            cls.step = _captured(cls.step)  # type: ignore[method-assign]

    @_captured
    def step(self) -> None:
        """Count one step and set the learning rates; call it after `optimizer.step()`."""
        self.step_count += 1
        try:
            self._apply()
        except BaseException:  # one's own formula may refuse, and groups may have been added
            self.step_count -= 1
            raise

    def get_last_lr(self) -> list[float]:
        """Return the present learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: numbers and lists of numbers."""
        return {name: _copied(getattr(self, name)) for name in self._saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned and set the learning rates accordingly.

        Raises
        ------
        TypeError, ValueError
            If it is no such state, keys or the number of groups differ, or no rate follows from it; the scheduler is
            then unchanged.
        """
        kind = type(self).__name__
        if not isinstance(state, Mapping):
            raise TypeError(f"{kind}: state is a {type(state).__name__}, needs what state_dict returned")
        if state.keys() != set(self._saved):
            raise ValueError(f"{kind}: state has {sorted(state)}, needs {sorted(self._saved)}")
        groups = len(self.optimizer.param_groups)
        for name, value in state.items():
            has_several = isinstance(getattr(self, name), list)
            numbers = value if has_several else [value]
            if not isinstance(numbers, list | tuple) or not all(map(_is_number, numbers)):
                needs = "a list of numbers" if has_several else "a number"
                raise TypeError(f"{kind}: state has {name} {value!r}, needs {needs}")
            if has_several and len(numbers) != groups:
                raise ValueError(f"{kind}: state has {len(numbers)} {name}, needs one for each of the {groups} groups")
            if name in ("base_lrs", "lrs"):
                check_range(kind, 0, **{f"state has {name}[{i}], which": rate for i, rate in enumerate(numbers)})
        whole(f"{kind}: state has step_count, which", state["step_count"], 0)
        undo = self._restorer()
        try:
            for name in self._saved:
                setattr(self, name, _copied(state[name]))
            self._apply()
        except BaseException:  # one's own formula may refuse what is a number
            undo()
            raise

    def _apply(self) -> None:
        groups = self._groups()
        rates = [self._lr(base_lr) for _, base_lr in groups]  # all of them before the first group changes
        for (group, _), rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def _groups(self) -> list[tuple[Group, float]]:
        """Return the groups with their base rates; ValueError if some were added since these were noted."""
        groups, rates = self.optimizer.param_groups, self.base_lrs
        if len(groups) != len(rates):
            raise ValueError(
                f"{type(self).__name__}: the optimizer has {len(groups)} groups, needs the {len(rates)} that it had "
                "when the schedule was made; add groups before, or make a new schedule"
            )
        return list(zip(groups, rates, strict=True))

    def _restorer(self) -> Callable[[], None]:
        """Return what undoes the steps from now on."""
        groups = self.optimizer.param_groups
        attributes, options = dict(vars(self)), [dict(group) for group in groups]

        def undo() -> None:
            vars(self).clear()
            vars(self).update(attributes)
            for group, before in zip(groups, options, strict=True):
                group.update(before)

        return undo

    def _lr(self, base_lr: float) -> float:
        return base_lr * self._factor()

    def _factor(self) -> float:
        raise NotImplementedError


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rates by `factor` once the metric has not improved for more than `patience` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Whose rates are lowered.
    mode : {"min", "max"}
        Whether less or more is better.
    factor : float
        Less than 1.
    patience : int
        Epochs without improvement that are still tolerated.
    threshold, threshold_mode : float, {"rel", "abs"}
        The improvement on the best value that counts, as a share of it or in its units.
    cooldown : int
        Epochs after a reduction that are not counted as bad.
    min_lr : float
        No rate falls below this.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.ReduceLROnPlateau(optim.SGD([nn.Parameter([0.0])], lr=1.0), patience=0)
    >>> for loss in (0.5, 0.6):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.1]
    """

    needs_metric = True
    _saved = ("step_count", "lrs", "best", "bad_epochs", "cooldown_left")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: mode is {mode!r} and threshold_mode {threshold_mode!r}, "
                "needs 'min' or 'max', 'rel' or 'abs'"
            )
        check_range("ReduceLROnPlateau", 0, 1, factor=factor)
        check_range("ReduceLROnPlateau", 0, threshold=threshold, min_lr=min_lr)
        patience = whole("ReduceLROnPlateau: patience", patience, 0)
        cooldown = whole("ReduceLROnPlateau: cooldown", cooldown, 0)
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.bad_epochs = 0
        self.cooldown_left = 0
        super().__init__(optimizer)

    def step(self, metric: float) -> None:  # type: ignore[override]  # needs_metric tells
        """Take the epoch's value of the metric into account; NaN counts as no improvement."""
        try:
            metric = float(metric)
        except (TypeError, ValueError):
            raise TypeError(f"ReduceLROnPlateau: metric is {metric!r}, needs a number") from None
        self.step_count += 1
        if self._improves(metric):
            self.best = metric
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.bad_epochs = 0
        if self.bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * self.factor, min(self.min_lr, group["lr"]))
            self.cooldown_left = self.cooldown
            self.bad_epochs = 0

    @property
    def lrs(self) -> list[float]:
        """The present rates: the history, not a formula, decides them."""
        return self.get_last_lr()

    @lrs.setter
    def lrs(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr

    def _apply(self) -> None:
        """Leave the rates alone: `step` lowers them, `lrs` restores them."""

    def _improves(self, metric: float) -> bool:
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1)
        if math.isinf(self.best):  # a share of which would be another infinity
            margin = 0.0
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
