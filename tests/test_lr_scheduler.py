"""Schedules of learning rates against their formulas and PyTorch's."""

import math

import numpy as np
import pytest

from pynn import nn, optim

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def two_groups(kind=optim.SGD):
    return kind([{"params": [nn.Parameter([1.0])]}, {"params": [nn.Parameter([1.0])], "lr": 0.02}], lr=0.1)


def rates(scheduler, steps):
    """Return the rates before the first step and after each of the others."""
    result = [scheduler.get_last_lr()]
    for _ in range(steps - 1):
        scheduler.step()
        result.append(scheduler.get_last_lr())
    return result


def warm_cosine(t):
    return (t + 1) / 4 if t < 3 else 0.5 * (1 + math.cos(math.pi * min((t - 3) / 7, 1)))


@pytest.mark.parametrize(
    ("make", "factor", "interval"),
    [
        (lambda o: optim.StepLR(o, 3, 0.5), lambda t: 0.5 ** (t // 3), "epoch"),
        (lambda o: optim.ExponentialLR(o, 0.9), lambda t: 0.9**t, "epoch"),
        (lambda o: optim.CosineWarmupLR(o, 10, 3), warm_cosine, "step"),
        (lambda o: optim.LambdaLR(o, lambda t: 1 / (t + 1)), lambda t: 1 / (t + 1), "epoch"),
        (lambda o: optim.MultiStepLR(o, [7, 3, 3], 0.5), lambda t: 0.5 ** (2 * (t >= 3) + (t >= 7)), "epoch"),
        (lambda o: optim.LinearLR(o, 0.25, 0.5, 4), lambda t: 0.25 + min(t, 4) / 16, "epoch"),
        (lambda o: optim.CosineAnnealingLR(o, 6), lambda t: 0.5 * (1 + math.cos(math.pi * t / 6)), "epoch"),
    ],
)
def test_schedules_follow_the_formula(make, factor, interval):
    scheduler = make(two_groups())
    assert (scheduler.interval, scheduler.needs_metric) == (interval, False)
    expected = [[0.1 * factor(t), 0.02 * factor(t)] for t in range(15)]
    np.testing.assert_allclose(rates(scheduler, 15), expected, rtol=1e-12, atol=1e-17)


def test_the_module_lr_scheduler_has_all_schedules():  # where PyTorch's programs look for them
    assert optim.lr_scheduler.__all__ == [name for name in optim.__all__ if "LR" in name]
    assert all(getattr(optim.lr_scheduler, name) is getattr(optim, name) for name in optim.lr_scheduler.__all__)


def test_cosine_ends_at_min_lr():
    scheduler = optim.CosineWarmupLR(two_groups(), 4, min_lr=0.01)
    assert rates(scheduler, 7)[4:] == [[0.01, 0.01]] * 3


@needs_torch
@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("StepLR", "StepLR", {"step_size": 4, "gamma": 0.3}),
        ("ExponentialLR", "ExponentialLR", {"gamma": 0.8}),
        ("LambdaLR", "LambdaLR", {"lr_lambda": [lambda t: 0.9**t, lambda t: 1 + t]}),
        ("MultiStepLR", "MultiStepLR", {"milestones": [3, 8, 15], "gamma": 0.3}),
        ("LinearLR", "LinearLR", {}),
        ("LinearLR", "LinearLR", {"start_factor": 0.9, "end_factor": 0.2, "total_iters": 12}),
        ("CosineAnnealingLR", "CosineAnnealingLR", {"T_max": 7, "eta_min": 0.005}),
        ("CosineWarmupLR", "CosineAnnealingLR", {"total_steps": 20}),
        ("CosineWarmupLR", "CosineAnnealingLR", {"total_steps": 30, "min_lr": 0.005}),
        ("OneCycleLR", "OneCycleLR", {"max_lr": 0.5, "total_steps": 20}),
        ("OneCycleLR", "OneCycleLR", {"max_lr": 0.5, "total_steps": 23, "pct_start": 0.45, "div_factor": 10.0,
                                      "final_div_factor": 100.0, "base_momentum": 0.7, "max_momentum": 0.9}),
        ("OneCycleLR", "OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "cycle_momentum": False}),
        ("OneCycleLR", "OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "pct_start": 0.0}),
        ("OneCycleLR", "OneCycleLR", {"max_lr": 0.5, "total_steps": 20, "pct_start": 1.0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # PyTorch's: we take no optimiser steps
def test_schedules_equal_pytorchs(kind, name, theirs, options):
    names = {"total_steps": "T_max", "min_lr": "eta_min"} if name == "CosineWarmupLR" else {}
    ours = getattr(optim, name)(two_groups(kind), **options)
    p, q = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = getattr(torch.optim, kind.__name__)([{"params": [p]}, {"params": [q], "lr": 0.02}], lr=0.1)
    reference = getattr(torch.optim.lr_scheduler, theirs)(
        optimizer, **{names.get(key, key): value for key, value in options.items()}
    )
    for t in range(20):
        np.testing.assert_allclose(ours.get_last_lr(), reference.get_last_lr(), rtol=1e-9, atol=1e-15, err_msg=str(t))
        for mine, other in zip(ours.optimizer.param_groups, optimizer.param_groups, strict=True):
            key = "momentum" if kind is optim.SGD else "betas"
            np.testing.assert_allclose(mine[key], other[key], rtol=1e-12, err_msg=str(t))
        ours.step()
        if t < 19:
            reference.step()


@needs_torch
@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"patience": 1, "factor": 0.5, "cooldown": 2, "threshold": 0.1},
        {"patience": 0, "mode": "max", "threshold": 0.05, "threshold_mode": "abs", "min_lr": 0.003},
    ],
)
def test_plateau_equals_pytorchs(options):
    ours = optim.ReduceLROnPlateau(two_groups(), **options)
    p, q = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.02}], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0, **options)
    rng = np.random.default_rng(6)
    for t in range(40):
        metric = math.nan if t == 20 else float(rng.uniform(0.5, 1.5))
        ours.step(metric)
        reference.step(metric)
        np.testing.assert_allclose(
            ours.get_last_lr(), [g["lr"] for g in optimizer.param_groups], rtol=1e-12, err_msg=str(t)
        )
    assert ours.get_last_lr()[0] < 0.1
    assert (ours.interval, ours.needs_metric) == ("epoch", True)


@needs_torch
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "metrics", [[math.inf] * 4, [-math.inf] * 4, [1.0, -math.inf, 5.0, 6.0], [1.0, math.inf, 5.0, 0.1]]
)
def test_plateau_takes_infinities_as_pytorch_does(mode, metrics):
    ours = optim.ReduceLROnPlateau(two_groups(), mode, patience=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, patience=0, eps=0)
    for metric in metrics:
        ours.step(metric)
        reference.step(metric)
        assert ours.get_last_lr()[0] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_one_cycle_peaks_ends_and_refuses_more():
    scheduler = optim.OneCycleLR(two_groups(), max_lr=1.0, total_steps=10, pct_start=0.4)
    lrs = [lr for lr, _ in rates(scheduler, 10)]
    assert lrs[0] == pytest.approx(1 / 25)
    assert lrs[3] == max(lrs) == 1.0
    assert lrs[9] == pytest.approx(1 / 25 / 1e4)
    scheduler.step()  # after the last batch
    assert scheduler.get_last_lr()[0] == pytest.approx(1 / 25 / 1e4)
    with pytest.raises(ValueError, match="OneCycleLR: step 11 of a schedule of 10"):
        scheduler.step()


SCHEDULERS = {
    "StepLR": lambda o: optim.StepLR(o, 2),
    "ExponentialLR": lambda o: optim.ExponentialLR(o, 0.9),
    "CosineWarmupLR": lambda o: optim.CosineWarmupLR(o, 12, 3),
    "LambdaLR": lambda o: optim.LambdaLR(o, lambda t: 0.9**t),
    "MultiStepLR": lambda o: optim.MultiStepLR(o, [2, 5]),
    "LinearLR": optim.LinearLR,
    "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, 12),
    "OneCycleLR": lambda o: optim.OneCycleLR(o, 1.0, 12),
    "ReduceLROnPlateau": lambda o: optim.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedules_go_on_from_a_checkpoint(make):
    scheduler = make(two_groups())
    metric = (1.0,) if scheduler.needs_metric else ()
    for _ in range(4):
        scheduler.step(*metric)
    other = make(two_groups(optim.AdamW))
    other.load_state_dict(scheduler.state_dict())
    for _ in range(4):
        assert other.get_last_lr() == scheduler.get_last_lr()
        scheduler.step(*metric)
        other.step(*metric)
    before = other.state_dict()
    lrs = "lrs" if scheduler.needs_metric else "base_lrs"
    for change in ({"more": 1}, {lrs: [0.1]}, {lrs: [0.1, math.nan]}, {lrs: [0.1, -0.1]}, {"step_count": -1}):
        with pytest.raises(ValueError, match=r"LR.*: state has .* needs"):
            other.load_state_dict({**before, **change})
    for change in ({"step_count": "4"}, {"step_count": 4.5}, {lrs: 0.1}, {lrs: ["1", "2"]}):
        with pytest.raises(TypeError, match=rf"LR.*: state has (step_count|{lrs})\b.* needs"):
            other.load_state_dict({**before, **change})
    with pytest.raises(ValueError, match="state has"):
        other.load_state_dict({})
    with pytest.raises(TypeError, match="state is a NoneType, needs"):
        other.load_state_dict(None)
    assert other.state_dict() == before


@pytest.mark.parametrize("given", [3, None, [3], "ab"])
def test_lambdas_are_functions(given):
    with pytest.raises(TypeError, match=r"^LambdaLR: lr_lambda is .*, needs a function, or one for each group$"):
        optim.LambdaLR(two_groups(), given)


def test_lambdas_may_come_from_any_iterable():
    scheduler = optim.LambdaLR(two_groups(), (lambda t, k=k: k + t for k in (1, 2)))
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.2, 0.06], rel=1e-12)


def test_the_function_of_each_group_is_looked_at():
    scheduler = optim.LambdaLR(two_groups(), [lambda t: -1.0 if t == 2 else 1.0, lambda t: 0.5])
    scheduler.step()
    before = scheduler.get_last_lr()
    with pytest.raises(ValueError, match=r"^LambdaLR: lr_lambda\(2\) is -1.0, needs a finite number of at least 0"):
        scheduler.step()
    assert (scheduler.step_count, scheduler.get_last_lr()) == (1, before)


def test_a_rate_that_fails_leaves_count_and_groups_as_they_were():
    class Refusing(optim.LRScheduler):
        def _lr(self, base_lr):
            if self.step_count == 2 and base_lr < 0.1:  # the second group
                raise ArithmeticError("no rate")
            return base_lr / (1 + self.step_count)

    scheduler = Refusing(two_groups())
    scheduler.step()
    before = scheduler.get_last_lr()
    with pytest.raises(ArithmeticError, match="no rate"):
        scheduler.step()
    assert (scheduler.step_count, scheduler.get_last_lr()) == (1, before)


def test_a_state_whose_rates_are_refused_leaves_the_schedule_as_it_was():
    scheduler = optim.LambdaLR(two_groups(), lambda t: 0.5 if t < 3 else math.inf)
    before = scheduler.state_dict(), scheduler.get_last_lr()
    with pytest.raises(ValueError, match=r"lr_lambda\(3\) is inf"):
        scheduler.load_state_dict({"step_count": 3, "base_lrs": [1.0, 1.0]})
    assert (scheduler.state_dict(), scheduler.get_last_lr()) == before


@pytest.mark.parametrize("make", [optim.LinearLR, lambda o: optim.LambdaLR(o, lambda t: 0.5)], ids=["linear", "lambda"])
def test_a_group_that_is_added_needs_a_new_schedule(make):
    optimizer = two_groups()
    scheduler = make(optimizer)
    optimizer.add_param_group({"params": nn.Parameter([1.0])})
    before = scheduler.get_last_lr()
    with pytest.raises(ValueError, match=r"LR: the optimizer has 3 groups, needs the 2 that it had"):
        scheduler.step()
    assert (scheduler.step_count, scheduler.get_last_lr()) == (0, before)


def test_a_group_that_is_added_is_in_the_state_of_a_schedule_without_base_rates():
    optimizer, other = two_groups(), two_groups()
    scheduler = optim.ReduceLROnPlateau(optimizer, patience=0)
    for o in (optimizer, other):
        o.add_param_group({"params": nn.Parameter([1.0]), "lr": 0.3})
    for metric in (1.0, 2.0):
        scheduler.step(metric)
    resumed = optim.ReduceLROnPlateau(other, patience=0)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.get_last_lr() == scheduler.get_last_lr() == pytest.approx([0.01, 0.002, 0.03], rel=1e-12)


class Unrated(optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"momentum": 0.9})


SGD = optim.SGD([nn.Parameter([1.0])])
BAD = {
    "lambdas": (lambda: optim.LambdaLR(SGD, [abs, abs]), ValueError, "LambdaLR: lr_lambda has 2 functions"),
    "milestones": (lambda: optim.MultiStepLR(SGD, ["x"]), TypeError, r"MultiStepLR: milestones\[0\] is 'x'"),
    "total_iters": (lambda: optim.LinearLR(SGD, total_iters=0), ValueError, "LinearLR: total_iters is 0"),
    "start_factor": (lambda: optim.LinearLR(SGD, -1), ValueError, "LinearLR: start_factor is -1"),
    "T_max": (lambda: optim.CosineAnnealingLR(SGD, 0), ValueError, "CosineAnnealingLR: T_max is 0"),
    "eta_min": (lambda: optim.CosineAnnealingLR(SGD, 3, -1), ValueError, "CosineAnnealingLR: eta_min is -1"),
    "scheduler": (lambda: optim.StepLR(nn.Parameter([1.0]), 1), TypeError, "StepLR: optimizer is a Parameter"),
    "no lr": (lambda: optim.StepLR(Unrated([nn.Parameter([1.0])]), 1), ValueError, "Unrated has no option 'lr'"),
    "step_size": (lambda: optim.StepLR(SGD, 0), ValueError, "StepLR: step_size is 0"),
    "gamma": (lambda: optim.ExponentialLR(SGD, math.nan), ValueError, "ExponentialLR: gamma is nan"),
    "gamma type": (lambda: optim.StepLR(SGD, 1, "x"), TypeError, "StepLR: gamma is 'x', needs a number"),
    "warmup": (lambda: optim.CosineWarmupLR(SGD, 5, 5), ValueError, "CosineWarmupLR: needs 0 <= warmup"),
    "pct_start": (lambda: optim.OneCycleLR(SGD, 1, 5, 2), ValueError, "OneCycleLR: pct_start is 2, needs 0 to 1"),
    "total_steps": (lambda: optim.OneCycleLR(SGD, 1, "5"), TypeError, "OneCycleLR: total_steps is '5', needs an int"),
    "step_size type": (lambda: optim.StepLR(SGD, 1.5), TypeError, "StepLR: step_size is 1.5, needs an integer"),
    "one milestone": (lambda: optim.MultiStepLR(SGD, 3), TypeError, "MultiStepLR: milestones is 3, needs several"),
    "patience": (lambda: optim.ReduceLROnPlateau(SGD, patience=-1), ValueError, "ReduceLROnPlateau: patience is -1"),
    "metric": (lambda: optim.ReduceLROnPlateau(SGD).step("x"), TypeError, "ReduceLROnPlateau: metric is 'x', needs a"),
    "no metric": (lambda: optim.ReduceLROnPlateau(SGD).step(None), TypeError, "ReduceLROnPlateau: metric is None"),
    "metrics": (lambda: optim.ReduceLROnPlateau(SGD).step(np.ones(2)), TypeError, "ReduceLROnPlateau: metric is array"),
    "lambda": (lambda: optim.LambdaLR(SGD, lambda t: math.nan), ValueError, r"LambdaLR: lr_lambda\(0\) is nan, needs"),
    "lambda type": (lambda: optim.LambdaLR(SGD, str), TypeError, r"LambdaLR: lr_lambda\(0\) is '0', needs a number"),
    "max_lr": (lambda: optim.OneCycleLR(SGD, 0, 5), ValueError, "OneCycleLR: max_lr"),
    "mode": (lambda: optim.ReduceLROnPlateau(SGD, "least"), ValueError, "mode is 'least'"),
    "factor": (lambda: optim.ReduceLROnPlateau(SGD, factor=1), ValueError, "factor is 1"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
