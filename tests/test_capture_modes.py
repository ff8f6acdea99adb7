"""Captured functions that set `training` or `requires_grad` themselves."""

import warnings

import numpy as np
import pytest
from captured_steps import X, Y

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F
from pynn.replay import Captured


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


def evaluates(model):
    model.eval()
    y = model(X)
    model.train()
    return y


def trains(model):
    model.train()
    return model(X)


def leaves_evaluation(model):
    y = model(X)
    model.eval()
    return y


def looks_twice(model):
    y = model(X)
    z = evaluates(model)
    return y + z


@pytest.mark.parametrize("function", [evaluates, trains, leaves_evaluation, looks_twice])
def test_a_mode_that_the_function_sets_is_as_without_capture_after_every_call(function):
    found = []
    for wrap in (lambda f: f, pynn.capture):
        pynn.seed(0)
        model, results = network(), []
        step = wrap(lambda model=model: function(model))
        for i in range(40):
            if i % 5 == 1:
                model.train(i % 2 == 0)
            results.append((step().numpy().tolist(), [m.training for m in model.modules()]))
        found.append(results)
    assert found[0] == found[1]
    assert isinstance(step, Captured)
    assert sum(map(len, step._plans.values())) <= 3  # each mode to begin with; the first call makes the attribute


def adversaries(wrap, freeze):
    pynn.seed(0)
    maker, judge = nn.Linear(2, 6), nn.Linear(6, 1)
    first, second = optim.Adam(judge.parameters(), lr=0.01), optim.Adam(maker.parameters(), lr=0.01)

    @wrap
    def step(x, noise):
        freeze(judge, False)
        first.zero_grad()
        loss = F.softplus(-judge(x)).mean() + F.softplus(judge(maker(noise).detach())).mean()
        loss.backward()
        first.step()
        freeze(judge, True)
        second.zero_grad()
        other = F.softplus(-judge(maker(noise))).mean()
        other.backward()
        second.step()
        return loss, other

    rng = np.random.default_rng(0)
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of plans that are thrown away
        for _ in range(40):
            losses = step(X, rng.standard_normal((5, 2)).astype(np.float32))
            results.append(([loss.item() for loss in losses], judge.weight.requires_grad, judge.weight.grad.tolist()))
    return results


def freeze_module(module, is_frozen):
    module.requires_grad_(not is_frozen)


def freeze_each(module, is_frozen):
    for p in module.parameters():
        p.requires_grad = not is_frozen


def freeze_each_by_method(module, is_frozen):
    for p in module.parameters():
        p.requires_grad_(not is_frozen)


def frozen_between(module, is_frozen):
    module.requires_grad_(True)


@pytest.mark.parametrize("freeze", [freeze_module, freeze_each, freeze_each_by_method, frozen_between])
def test_parameters_may_be_frozen_inside(freeze):
    assert adversaries(lambda f: f, freeze) == adversaries(pynn.capture, freeze)


def test_a_refused_capture_leaves_modes_as_they_were():
    model = network()
    model[0].bias.requires_grad = False

    @pynn.capture
    def step(x):
        model.eval()
        model.requires_grad_(False)
        model[0].bias.requires_grad_(True)
        model[3].weight.requires_grad = False
        return model(x).numpy().sum()

    with pytest.raises(pynn.CaptureError, match="is read"):
        step(X)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]


def test_a_parameter_that_begins_to_require_a_gradient_inside_is_told_from_one_that_does():
    w = nn.Parameter(np.ones((6, 3), np.float32))

    @pynn.capture
    def step(x, y):
        w.requires_grad_(True)
        w.grad = None
        loss = F.cross_entropy(x @ w, y)
        loss.backward()
        return loss

    assert step(X, Y).item() == step(X, Y).item()
    made = pynn.capture(lambda x: x @ pynn.tensor(np.ones((6, 3), np.float32), requires_grad=True))
    with pytest.raises(pynn.CaptureError, match=r"a parameter \[6, 3\] is made, or begins to require a gradient"):
        made(X)


def test_a_mode_that_is_set_hides_no_other_attribute_that_changes():
    """Which attributes a function sets through `vars` its code does not tell: it is captured anew, and so counts."""
    model, x = nn.Sequential(nn.Linear(2, 2)), np.ones((1, 2), np.float32)

    @pynn.capture
    def step(x):
        model.eval()
        y = model(x)
        vars(model)["counted"] = vars(model).get("counted", 0) + 1
        return y

    for counted in range(1, 5):
        model.train()
        step(x)
        assert model.counted == counted


class Softens(nn.Module):
    """Changes a layer of pynn's in a way that its code does not tell."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        vars(self.drop)["p"] = vars(self.drop)["p"] / 2
        return x * 2


def test_a_layer_that_another_module_changes_is_refused():
    with pytest.raises(CaptureError, match=r"^capture: Dropout changes its attributes in forward, at "):
        pynn.capture(nn.Sequential(Softens()))(np.ones(2, np.float32))
