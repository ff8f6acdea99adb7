"""What Python does beside the calls of the core: repeated by every replay, in its place, or refused."""

import types

import numpy as np
import pytest
from captured_steps import X, Y, mlp, step_of

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F

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
