"""Learning-rate schedules that are one formula of the epoch each."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable

from pynn._checks import whole
from pynn.optim.lr_scheduler import LRScheduler
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
        groups = self.optimizer.param_groups
        factors = [lr_lambda(self.step_count) for lr_lambda in self.lr_lambdas]
        check_range("LambdaLR", 0, **{f"lr_lambda({self.step_count})": factor for factor in factors})
        for group, base_lr, factor in zip(groups, self.base_lrs, factors, strict=True):
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
