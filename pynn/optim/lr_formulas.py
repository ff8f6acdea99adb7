"""Learning-rate schedules that are a formula of the number of steps each, of epochs or of batches."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable

from pynn._checks import flag, real, whole
from pynn.optim.lr_base import LRScheduler
from pynn.optim.optimizer import Optimizer, check_range


class LambdaLR(LRScheduler):
    """lr = base · lr_lambda(epoch), with one function for all groups, or an iterable of one for each.

    TypeError for anything else, ValueError for another number of functions than groups.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.LambdaLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), lambda epoch: 1 / (1 + epoch))
    >>> [scheduler.get_last_lr()[0] for _ in range(3) if scheduler.step() is None]
    [0.5, 0.3333333333333333, 0.25]
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Iterable[Callable[[int], float]]
    ) -> None:
        given = list(lr_lambda) if isinstance(lr_lambda, Iterable) and not callable(lr_lambda) else [lr_lambda]
        if not all(map(callable, given)):
            raise TypeError(f"LambdaLR: lr_lambda is {lr_lambda!r}, needs a function, or one for each group")
        groups = len(optimizer.param_groups) if isinstance(optimizer, Optimizer) else len(given)
        self.lr_lambdas = given * groups if callable(lr_lambda) else given
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"LambdaLR: lr_lambda has {len(given)} functions, the optimizer {groups} groups")
        super().__init__(optimizer)

    def _apply(self) -> None:
        groups = self._groups()
        factors = [lr_lambda(self.step_count) for lr_lambda in self.lr_lambdas]
        for factor in factors:  # all of them before the first group changes
            check_range("LambdaLR", 0, **{f"lr_lambda({self.step_count})": factor})
        for (group, base_lr), factor in zip(groups, factors, strict=True):
            group["lr"] = base_lr * factor


class StepLR(LRScheduler):
    """lr = base · gamma^⌊epoch / step_size⌋.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.StepLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), step_size=2, gamma=0.5)
    >>> [scheduler.get_last_lr()[0] for _ in range(5) if scheduler.step() is None]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        check_range("StepLR", 0, gamma=gamma)
        self.step_size = whole("StepLR: step_size", step_size, 1)
        self.gamma = gamma
        super().__init__(optimizer)

    def _factor(self) -> float:
        return float(self.gamma ** (self.step_count // self.step_size))


class ExponentialLR(LRScheduler):
    """lr = base · gamma^epoch.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.ExponentialLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), gamma=0.5)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        check_range("ExponentialLR", 0, gamma=gamma)
        self.gamma = gamma
        super().__init__(optimizer)

    def _factor(self) -> float:
        return float(self.gamma**self.step_count)


class MultiStepLR(LRScheduler):
    """lr = base · gamma^(number of milestones reached).

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.MultiStepLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), milestones=[2, 4], gamma=0.5)
    >>> [scheduler.get_last_lr()[0] for _ in range(5) if scheduler.step() is None]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        check_range("MultiStepLR", 0, gamma=gamma)
        if not isinstance(milestones, Iterable):
            raise TypeError(f"MultiStepLR: milestones is {milestones!r}, needs several integers")
        self.milestones = sorted(whole(f"MultiStepLR: milestones[{i}]", at, 0) for i, at in enumerate(milestones))
        self.gamma = gamma
        super().__init__(optimizer)

    def _factor(self) -> float:
        return float(self.gamma ** bisect.bisect_right(self.milestones, self.step_count))


class LinearLR(LRScheduler):
    """lr = base · a factor that goes from `start_factor` to `end_factor` in `total_iters` equal steps, and stays.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.LinearLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), start_factor=0.5, total_iters=2)
    >>> [scheduler.get_last_lr()[0] for _ in range(3) if scheduler.step() is None]
    [0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        check_range("LinearLR", 0, start_factor=start_factor, end_factor=end_factor)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = whole("LinearLR: total_iters", total_iters, 1)
        super().__init__(optimizer)

    def _factor(self) -> float:
        done = min(self.step_count, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * done


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base - eta_min) · (1 + cos(π epoch / T_max)) / 2, without restarts (arXiv:1608.03983).

    After `T_max` epochs it rises again, as in PyTorch; `CosineWarmupLR` stays at its lowest rate, and warms up.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.CosineAnnealingLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), T_max=2)
    >>> [round(scheduler.get_last_lr()[0], 6) for _ in range(4) if scheduler.step() is None]
    [0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        check_range("CosineAnnealingLR", 0, eta_min=eta_min)
        self.T_max = whole("CosineAnnealingLR: T_max", T_max, 1)
        self.eta_min = eta_min
        super().__init__(optimizer)

    def _lr(self, base_lr: float) -> float:
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * self.step_count / self.T_max)) / 2


class CosineWarmupLR(LRScheduler):
    """Linear warm-up, then half a cosine from the base rate down to `min_lr` (Loshchilov and Hutter 2017).

    With w = warmup_steps, T = total_steps and t batches done: lr = base · (t + 1) / (w + 1) for t < w, then
    min_lr + (base - min_lr) · (1 + cos(π (t - w) / (T - w))) / 2, and min_lr from t = T on. Without warm-up this is
    PyTorch's CosineAnnealingLR with T_max = T. The cosine is that of arXiv:1608.03983.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.CosineWarmupLR(optim.SGD([nn.Parameter([0.0])], lr=1.0), total_steps=4, warmup_steps=1)
    >>> [round(scheduler.get_last_lr()[0], 2) for _ in range(4) if scheduler.step() is None]
    [1.0, 0.75, 0.25, 0.0]
    """

    interval = "step"

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, min_lr: float = 0.0) -> None:
        check_range("CosineWarmupLR", 0, min_lr=min_lr)
        total_steps = whole("CosineWarmupLR: total_steps", total_steps, 1)
        warmup_steps = whole("CosineWarmupLR: warmup_steps", warmup_steps, 0)
        if warmup_steps >= total_steps:
            raise ValueError(
                f"CosineWarmupLR: needs 0 <= warmup_steps < total_steps, got {warmup_steps}, {total_steps}"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.min_lr = min_lr
        super().__init__(optimizer)

    def _lr(self, base_lr: float) -> float:
        if self.step_count < self.warmup_steps:
            return base_lr * (self.step_count + 1) / (self.warmup_steps + 1)
        done = (self.step_count - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return _cosine(base_lr, self.min_lr, done)


class OneCycleLR(LRScheduler):
    """One cosine up to `max_lr` and one down again, momentum the other way round (Smith and Topin 2018).

    The rate goes from max_lr / div_factor to max_lr during the first `pct_start` of the steps, then to
    max_lr / div_factor / final_div_factor, which it reaches with the last step; arXiv:1708.07120, in PyTorch's form.

    Parameters
    ----------
    optimizer : Optimizer
        With `cycle_momentum`, one with momentum or betas (then beta1 moves).
    max_lr : float
        The highest rate, for all groups.
    total_steps : int
        Number of batches of the whole training.
    pct_start : float
        Share of the steps in which the rate rises, 0 to 1.
    div_factor, final_div_factor : float
        As above.
    cycle_momentum : bool
        Whether momentum falls from `max_momentum` to `base_momentum` while the rate rises, and then back.
    base_momentum, max_momentum : float
        As above.

    Examples
    --------
    >>> from pynn import nn, optim
    >>> scheduler = optim.OneCycleLR(optim.Adam([nn.Parameter([0.0])]), max_lr=1.0, total_steps=11)
    >>> [round(scheduler.get_last_lr()[0], 2) for _ in range(3) if scheduler.step() is None]
    [0.42, 0.96, 0.98]
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
    ) -> None:
        total_steps = whole("OneCycleLR: total_steps", total_steps, 1)
        if real("OneCycleLR: pct_start", pct_start, 0) > 1:
            raise ValueError(f"OneCycleLR: pct_start is {pct_start}, needs 0 to 1")
        for name, value in (("max_lr", max_lr), ("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if real(f"OneCycleLR: {name}", value) <= 0:
                raise ValueError(f"OneCycleLR: {name} is {value}, needs more than 0")
        check_range("OneCycleLR", 0, 1, base_momentum=base_momentum, max_momentum=max_momentum)
        self.max_lr = max_lr
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.cycle_momentum = cycle_momentum = flag("OneCycleLR", "cycle_momentum", cycle_momentum)
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        if (
            cycle_momentum
            and isinstance(optimizer, Optimizer)
            and not {"momentum", "betas"} & optimizer.defaults.keys()
        ):
            raise ValueError("OneCycleLR: cycle_momentum needs an optimizer with momentum or betas")
        super().__init__(optimizer)

    def step(self) -> None:
        """Count one step and set the learning rates.

        Raises
        ------
        ValueError
            If `total_steps` have been taken already.
        """
        if self.step_count >= self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.step_count + 1} of a schedule of {self.total_steps}")
        super().step()

    def _apply(self) -> None:
        super()._apply()
        if self.cycle_momentum:
            momentum = self._at(self.max_momentum, self.base_momentum, self.max_momentum)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, group["betas"][1])
                else:
                    group["momentum"] = momentum

    def _lr(self, base_lr: float) -> float:
        first = self.max_lr / self.div_factor
        return self._at(first, self.max_lr, first / self.final_div_factor)

    def _at(self, first: float, middle: float, last: float) -> float:
        peak, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if self.step_count < peak:
            return _cosine(first, middle, self.step_count / peak)
        # With a pct_start of 1 the last step is the peak, and there is no way down.
        return _cosine(middle, last, (self.step_count - peak) / (end - peak) if end > peak else 0.0)


def _cosine(start: float, end: float, done: float) -> float:
    """Return the value after `done` (0 to 1; beyond 1 it stays) of half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
