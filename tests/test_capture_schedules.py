"""Schedules that step inside of a captured function."""

import numpy as np
import pytest
from captured_steps import X, Y, mlp

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F

SCHEDULES = {
    "exponential": lambda o: optim.ExponentialLR(o, 0.8),
    "steps": lambda o: optim.StepLR(o, 2),
    "cosine": lambda o: optim.CosineWarmupLR(o, 12, 3),
    "cycle": lambda o: optim.OneCycleLR(o, max_lr=0.1, total_steps=20),
}


def scheduled(wrap, schedule, make, order):
    """Losses, weights, rates and counts of ten steps with the schedule inside of the function."""
    pynn.seed(0)
    model = mlp()
    optimizer = make(model.parameters())
    scheduler = SCHEDULES[schedule](optimizer)

    def step(x, y):
        optimizer.zero_grad()
        if order == "before":
            scheduler.step()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if order != "before":
            scheduler.step()
        if order == "between":
            optimizer.step()
            scheduler.step()
        return loss

    step = wrap(step)
    rows = [(step(X, Y).item(), scheduler.get_last_lr(), scheduler.state_dict()) for _ in range(9)]
    return rows, [p.data.tolist() for p in model.parameters()], optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("order", ["after", "before", "between"])
@pytest.mark.parametrize(
    "make",
    [lambda p: optim.Adam(p, lr=0.01), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)],
    ids=["adam", "momentum"],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_inside_steps_in_every_replay(schedule, make, order):
    assert scheduled(lambda f: f, schedule, make, order) == scheduled(pynn.capture, schedule, make, order)


def test_a_schedule_inside_steps_once_for_muon_too():
    def run(wrap, first):
        pynn.seed(0)
        w = nn.Parameter(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
        optimizer = optim.Muon([w], lr=0.02)
        scheduler = optim.StepLR(optimizer, 2)

        def step(x):
            optimizer.zero_grad()
            if first:
                scheduler.step()
            F.sum((x @ w) ** 2).backward()
            optimizer.step()
            if not first:
                scheduler.step()

        step = wrap(step)
        for _ in range(6):
            step(pynn.Tensor(np.eye(3, dtype=np.float32)))
        return w.data.tolist(), scheduler.step_count

    assert run(lambda f: f, False) == run(pynn.capture, False)
    with pytest.raises(CaptureError, match="a schedule steps before the optimizer"):
        run(pynn.capture, True)


def test_a_plateau_is_counted_in_every_replay():
    optimizer = optim.SGD([nn.Parameter([0.0])], lr=1.0)
    scheduler = optim.ReduceLROnPlateau(optimizer, patience=1)
    step = pynn.capture(lambda x: scheduler.step(0.5))
    for _ in range(6):
        step(X)
    assert scheduler.get_last_lr() == [pytest.approx(0.01)]


class TwoAtOnce(optim.StepLR):
    """Counts twice, steps another schedule, and counts calls of its own."""

    other = None
    calls = 0

    def step(self):
        super().step()
        super().step()
        self.calls += 1
        if self.other is not None:
            self.other.step()


class ByHand(optim.ExponentialLR):
    """Without the step of its base class."""

    def step(self, by=1):
        self.step_count += by
        self._apply()


@pytest.mark.parametrize("other", [optim.LinearLR, lambda o: TwoAtOnce(o, 3)], ids=["linear", "two at once"])
def test_a_schedule_of_ones_own_steps_once_in_every_replay(other):
    def run(wrap):
        first, second, third = (optim.SGD([nn.Parameter([0.0])], lr=1.0) for _ in range(3))
        scheduler, by_hand = TwoAtOnce(first, 2), ByHand(third, 0.5)
        scheduler.other = other(second)

        def step(x):
            assert second.param_groups  # so that the options of the second are looked at, too
            scheduler.step()
            by_hand.step(by=2)
            return x.sum()

        step, rows = wrap(step), []
        for _ in range(5):
            step(X)
            schedulers = scheduler, scheduler.other, by_hand
            rows.append([(each.state_dict(), each.get_last_lr(), getattr(each, "calls", 0)) for each in schedulers])
        return rows

    assert run(pynn.capture) == run(lambda f: f)


def test_a_failed_capture_leaves_every_schedule_as_it_was():
    first, second = (optim.SGD([nn.Parameter([0.0])], lr=1.0) for _ in range(2))
    scheduler = TwoAtOnce(first, 1)
    scheduler.other = optim.LinearLR(second)
    before = [dict(vars(each)) for each in (scheduler, scheduler.other)], first.state_dict(), second.state_dict()

    @pynn.capture
    def step(x):
        scheduler.step()
        return x.sum().item()

    with pytest.raises(CaptureError, match="is read"):
        step(X)
    after = [dict(vars(each)) for each in (scheduler, scheduler.other)], first.state_dict(), second.state_dict()
    assert after == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_failed_capture_leaves_the_schedule_as_it_was(fails):
    w = nn.Parameter([1.0])
    optimizer = optim.SGD([w], lr=1.0)
    scheduler = optim.OneCycleLR(optimizer, max_lr=0.5, total_steps=1, cycle_momentum=False)
    before = scheduler.state_dict(), dict(optimizer.param_groups[0])

    @pynn.capture
    def step(x):
        scheduler.step()
        return x.sum().item() if fails else scheduler.step()

    with pytest.raises(CaptureError if fails else ValueError, match="is read" if fails else "a schedule of 1"):
        step(X)
    assert (scheduler.state_dict(), optimizer.param_groups[0]) == before


def test_a_replay_that_fails_between_updates_has_counted_the_first():
    """As in eager mode: the update before is done, counted, and has its rate; what follows is not."""

    def run(wrap):
        pynn.seed(0)
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        first, second = optim.Adam(model[0].parameters(), lr=0.1), optim.Adam(model[2].parameters(), lr=0.1)
        scheduler = optim.StepLR(second, 1, gamma=0.5)

        def step(x, y):
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            first.step()
            scheduler.step()
            other = F.cross_entropy(model(x)[:, :2], y)
            second.step()
            return loss, other

        step, rows = wrap(step), []
        for i in range(6):
            y = Y if i % 3 == 2 else np.minimum(Y, 1)
            try:
                step(pynn.Tensor(X), pynn.Tensor(y))
            except IndexError as error:
                rows.append(str(error))
            rows.append((first.state_dict(), second.state_dict(), scheduler.state_dict(), model.state_dict()))
            rows.append([None if p.grad is None else p.grad.copy() for p in model.parameters()])
        return rows

    np.testing.assert_equal(run(pynn.capture), run(lambda f: f))
