"""What a captured function names of the things around it is compared, and captured anew when it changes."""

import dis
import runpy
import types
import warnings

import numpy as np
import pytest
from captured_steps import X, make, mlp

import pynn
from pynn import CaptureError, _surroundings, nn, optim
from pynn import functional as F
from pynn._surroundings import names


def test_models_that_methods_of_the_same_object_call_are_guarded():
    class Step:
        def __init__(self):
            self.model = mlp()

        def run(self, x):
            return self.scores(x)

        def scores(self, x):
            return self.model(x)

    step = Step()
    f = pynn.capture(step.run)
    for _ in range(2):
        for _ in range(2):
            np.testing.assert_array_equal(f(X).data, step.run(X).data)
        step.model = mlp()


def many_names():
    """A function with more names than fit into one byte."""
    names = [f"name{i}" for i in range(700)]
    scope = {}
    exec(
        f"def f(a):\n  return ({', '.join(names)}, {', '.join('a.' + name for name in names)}, [len(a) for _ in a])",
        scope,
    )
    return scope["f"]


@pytest.mark.parametrize("function", [many_names(), make, pynn.capture, warnings.formatwarning])
def test_names_are_those_of_the_disassembler(function):
    def by_dis(code, operation):
        inner = [constant for constant in code.co_consts if isinstance(constant, type(code))]
        found = {i.argval for i in dis.get_instructions(code) if i.opname == operation}
        return found.union(*(by_dis(constant, operation) for constant in inner))

    code = function.__code__
    found = names(code)
    assert found.globals == by_dis(code, "LOAD_GLOBAL") != set()
    assert found.attributes == by_dis(code, "LOAD_ATTR") | by_dis(code, "LOAD_METHOD")
    assert found.stored == by_dis(code, "STORE_ATTR")


def test_instructions_of_the_compiler_alone_are_not_looked_for(monkeypatch):
    monkeypatch.setitem(dis.opmap, "LOAD_METHOD", 262)  # as in Python 3.12

    class Scaled:
        factor = 2.0

        def of(self, x):
            return x * self.factor

    owner = Scaled()
    surroundings = runpy.run_path(_surroundings.__file__)["surroundings"]
    assert surroundings(Scaled.of, owner)[0] == [(owner, "factor", 2.0)]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.names, self.flag = {"relu": 1}, 1

    def forward(self, x):
        return F.relu(x) if hasattr(self, "flag") and "relu" in self.names else F.neg(x)


def test_the_name_of_an_attribute_is_guarded():
    module, x = Named(), np.array([-1, 2], np.float32)
    f = pynn.capture(module)
    assert [f(x).data.tolist() for _ in range(2)] == [[0, 2]] * 2
    del module.flag
    module.other = 1
    assert [f(x).data.tolist() for _ in range(2)] == [[1, -2]] * 2


def test_the_key_of_an_entry_is_guarded():
    module, x = Named(), np.array([-1, 2], np.float32)
    f = pynn.capture(module)
    assert [f(x).data.tolist() for _ in range(2)] == [[0, 2]] * 2
    module.names["neg"] = module.names.pop("relu")
    assert [f(x).data.tolist() for _ in range(2)] == [[1, -2]] * 2


def test_a_function_that_is_an_argument_is_guarded():
    factor = 1.0

    def scaled(x):
        return x * factor

    f = pynn.capture(lambda loss, x: loss(x))
    assert f(scaled, np.ones(1, np.float32)).item() == 1
    factor = 2.0
    assert f(scaled, np.ones(1, np.float32)).item() == 2


def test_numbers_around_the_function_are_guarded():
    factor = 2.0

    @pynn.capture
    def f(x):
        return x * factor

    x = np.ones(2, np.float32)
    assert [f(x).data[0], f(x).data[0]] == [2, 2]
    factor = 3.0
    assert [f(x).data[0], f(x).data[0]] == [3, 3]


class Settings:
    factor = 2.0


class TimesSetting(nn.Module):
    def __init__(self, settings):
        self.settings = settings

    def forward(self, x):
        return x * self.settings.factor


settings, around, entries = Settings(), types.ModuleType("around"), {"factor": 2.0}
around.factor = 2.0


class TimesGlobal(nn.Module):
    def forward(self, x):
        return x * settings.factor


def times_global(x):
    return x * settings.factor


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (lambda x: x * settings.factor, lambda value: setattr(settings, "factor", value)),
        (lambda x: x * Settings.factor, lambda value: setattr(Settings, "factor", value)),
        (lambda x: x * around.factor, lambda value: setattr(around, "factor", value)),
        (lambda x: x * entries["factor"], lambda value: entries.update(factor=value)),
        (lambda x: sum([x * entries["factor"] for _ in range(1)]), lambda value: entries.update(factor=value)),
        (lambda x: times_global(x), lambda value: setattr(settings, "factor", value)),
        (TimesSetting(settings), lambda value: setattr(settings, "factor", value)),
        (
            nn.Sequential(TimesSetting(Settings()), TimesSetting(settings)),
            lambda value: setattr(settings, "factor", value),
        ),
        (TimesGlobal(), lambda value: setattr(settings, "factor", value)),
    ],
    ids=["object", "class", "module", "dict", "inside", "function", "attribute", "second", "forward"],
)
def test_numbers_that_the_function_names_are_guarded(function, change):
    f, x = pynn.capture(function), np.ones(2, np.float32)
    for value in (2.0, 2.0, 3.0, 3.0, 2.0):
        change(value)
        np.testing.assert_array_equal(f(x).data, function(pynn.Tensor(x)).data)
    assert repr(f).endswith("plans=2)")


class Holder:
    """Compared by identity, whatever it holds."""

    def __init__(self, **held):
        vars(self).update(held)


@pytest.mark.parametrize(
    ("thing", "function", "change"),
    [
        (Holder(model=nn.Linear(2, 3)), lambda h: lambda x: h.model(x), lambda h: setattr(h, "model", nn.Linear(2, 4))),
        ({"model": nn.Linear(2, 3)}, lambda h: lambda x: h["model"](x), lambda h: h.update(model=nn.Linear(2, 4))),
        (Holder(x=pynn.ones(2)), lambda h: lambda x: x * h.x, lambda h: setattr(h, "x", pynn.zeros(2))),
        (nn.Linear(2, 3), lambda h: lambda x: x * 2 if h.training else x, lambda h: h.eval()),
    ],
    ids=["model", "entry", "tensor", "mode"],
)
def test_what_the_function_names_of_a_thing_is_guarded(thing, function, change):
    f, x = pynn.capture(function(thing)), np.ones(2, np.float32)
    for plans in (1, 2):
        for _ in range(2):
            np.testing.assert_array_equal(f(x).data, f.function(pynn.Tensor(x)).data)
        assert repr(f).endswith(f"plans={plans})")
        change(thing)


def test_what_the_function_names_of_an_argument_is_guarded():
    f, x, settings = pynn.capture(lambda x, settings: x * settings.factor), np.ones(2, np.float32), Holder(factor=2.0)
    for value in (2.0, 2.0, 3.0, 3.0, 2.0):
        settings.factor = value
        assert f(x, settings).tolist() == [value, value]


def test_options_of_an_optimizer_within_a_thing_are_not_to_be_changed_inside():
    thing = Holder(optimizer=optim.SGD([nn.Parameter(np.ones(2, np.float32))], lr=1.0))

    @pynn.capture
    def step(x):
        thing.optimizer.param_groups[0]["lr"] *= 0.5
        return x * 2

    with pytest.raises(CaptureError, match=r"^capture: options of SGD are changed"):
        step(np.ones(2, np.float32))
    assert thing.optimizer.param_groups[0]["lr"] == 1
