"""What Python does beside the calls of the core: repeated by every replay, in its place, or refused."""

import types

import numpy as np
import pytest
from captured_steps import X, Y, mlp, step_of

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


kept, counted = [], 0


def counts(x):
    global counted
    counted += 1
    return x * 2


steps = {"taken": 0}


def counts_in_dict(x):
    steps["taken"] += 1
    return x * 2


def counts_in_object(x):
    counter.taken += 1
    return x * 2


def stores_in_object(x):
    counter.latest = x * 2


def stores_in_tensor(x):
    kept_tensor.data = (x * 2).data


def replaces_first(x):
    scores["first"] = y = x * 2
    return y


def keeps(x):
    kept.append(x * 2)
    return kept[-1]


class Owner:
    def __init__(self):
        self.state, self.history = np.zeros(6, np.float32), {}

    def recurs(self, x):
        self.state = x + self.state
        return self.state

    def stores(self, x):
        self.latest = x * 2

    def logs(self, x):
        self.history["y"] = y = x * 2
        return y if self.history else x


counter = types.SimpleNamespace(taken=0)
kept_tensor = pynn.zeros(5, 6)
scores = {"first": None, "last": 1}


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (counts, "changes counted"),
        (counts_in_dict, "changes taken"),
        (counts_in_object, "changes taken"),
        (keeps, "puts a result into kept"),
        (Owner().recurs, "changes state"),
        (Owner().logs, "puts a result into history"),
        (stores_in_object, "changes latest"),
        (stores_in_tensor, "changes data"),
        (replaces_first, "puts a result into scores"),
        (Owner().stores, "changes latest"),
    ],
    ids=["counts", "dict", "object", "keeps", "recurs", "logs", "attribute", "data", "replaces", "stores"],
)
def test_what_a_function_changes_around_it_is_refused(function, what):
    with pytest.raises(CaptureError, match=rf"^capture: the function {what}, which it has from around it"):
        pynn.capture(function)(X)


@pytest.mark.parametrize("fails", [False, True])
def test_a_refused_capture_leaves_attributes_that_the_function_sets(fails):
    owner = Owner()
    owner.state = before = owner.state

    def step(x):
        owner.state = owner.latest = x * 2
        if fails:
            raise KeyError("afterwards")

    with pytest.raises(KeyError if fails else CaptureError):
        pynn.capture(step)(X)
    assert owner.state is before
    assert not hasattr(owner, "latest")


def test_a_refused_capture_leaves_the_data_of_parameters():
    model = mlp()
    params = list(model.parameters())
    before = [p.data for p in params]

    @pynn.capture
    def step(x):
        loss = (model(x) * 2).sum()
        with pynn.no_grad():
            for p, grad in zip(params, pynn.grad(loss, params), strict=True):
                p.data = (p - pynn.Tensor(grad)).data

    with pytest.raises(
        CaptureError, match=r"^capture: the data of a tensor \[8, 6\] are replaced, at .*let an optimiser"
    ):
        step(X)
    assert all(p.data is data for p, data in zip(params, before, strict=True))


def halves_before(model):
    model[0].weight.data = model[0].weight.data * np.float32(0.5)
    return model(X)


def clips_behind(model):
    y = model(X)
    for p in model.parameters():
        p.data = np.clip(p.data, -0.1, 0.1)
    return y


def averages_meanwhile(model):
    before = [p.data for p in model.parameters()]
    for p in model.parameters():
        p.data = p.data * np.float32(0.9)
    y = model(X)
    for p, data in zip(model.parameters(), before, strict=True):
        p.data = data
    return y


@pytest.mark.parametrize("function", [halves_before, clips_behind, averages_meanwhile])
def test_arrays_of_parameters_that_numpy_makes_are_refused(function):
    model = mlp()
    before = [p.data for p in model.parameters()]
    with pytest.raises(
        CaptureError, match=r"^capture: the (data of a tensor \[8, 6\] are replaced|function changes data)"
    ):
        pynn.capture(lambda: function(model))()
    assert all(p.data is data for p, data in zip(model.parameters(), before, strict=True))


def test_a_variable_around_the_function_is_named():
    count = 0

    @pynn.capture
    def step(x):
        nonlocal count
        count += 1
        return x * 2

    with pytest.raises(CaptureError, match="the function changes count"):
        step(X)


def test_options_of_an_optimizer_changed_inside_are_refused():
    w = nn.Parameter([1.0])
    optimizer = optim.SGD([w], lr=1.0)

    @pynn.capture
    def step(x):
        optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.zero_grad()
        F.sum(w * x).backward()
        optimizer.step()

    with pytest.raises(CaptureError, match=r"^capture: options of SGD are changed inside of the captured function"):
        step(X)
    assert w.data.tolist() == [1.0]
    assert optimizer.param_groups[0]["lr"] == 1.0


STATE = pynn.random.get_rng_state()


@pytest.mark.parametrize(
    "function", [lambda: pynn.seed(1), lambda: pynn.random.set_rng_state(STATE)], ids=["seed", "state"]
)
def test_random_numbers_that_start_inside_are_refused(function):
    @pynn.capture
    def step(x):
        function()
        return F.dropout(x)

    before = pynn.random.get_rng_state()
    with pytest.raises(CaptureError, match=r"^capture: random numbers start anew, at .*:\d+, which"):
        step(X)
    assert pynn.random.get_rng_state() == before


def test_random_numbers_forked_inside_are_refused():
    def step(x):
        with pynn.random.fork_rng(1):
            return F.dropout(x)

    with pytest.raises(CaptureError, match=r"^capture: random numbers start anew, at .*:\d+, which"):
        pynn.capture(step)(X)


def test_a_parameter_that_was_frozen_for_a_while_counts_its_own_steps():
    """The plan from before it was frozen updates all with one step count, and must not be taken again."""

    def run(wrap):
        pynn.seed(0)
        model = mlp()
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        step, losses = wrap(step_of(model, optimizer)), []
        for i in range(9):
            model[0].bias.requires_grad = i not in (3, 4)
            losses.append(step(pynn.Tensor(X), pynn.Tensor(Y)).item())
        return losses, [p.data.tolist() for p in model.parameters()]

    assert run(pynn.capture) == run(lambda f: f)
