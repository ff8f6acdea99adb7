"""What a replay relies on is noticed when it changes, and captured anew."""

import dis
import runpy
import types
import warnings

import numpy as np
import pytest
from captured_steps import X, Y, make, mlp

import pynn
from pynn import CaptureError, _surroundings, nn, optim
from pynn import functional as F
from pynn._core import Recording
from pynn._surroundings import names


def test_weights_written_from_outside_are_used():
    model, _, step, calls = make()
    first = step(X, Y).item()
    state = model.state_dict()
    step(X, Y)
    model.load_state_dict({name: np.zeros_like(value) for name, value in state.items()})
    assert step(X, Y).item() == pytest.approx(np.log(3), rel=1e-6) != first
    assert len(calls) <= 2


@pytest.mark.parametrize(
    "change",
    [
        lambda model, optimizer: model.eval(),
        lambda model, optimizer: setattr(model[0].weight, "requires_grad", False),
        lambda model, optimizer: setattr(model[0].weight, "data", model[0].weight.data.copy()),
        lambda model, optimizer: setattr(model[0], "weight", nn.Parameter(np.ones((8, 6), np.float32), False)),
        lambda model, optimizer: optimizer.param_groups[0].update(momentum=0.5),
        lambda model, optimizer: optimizer.load_state_dict(optimizer.state_dict()),
        lambda model, optimizer: optimizer.add_param_group({"params": [nn.Parameter([1.0])]}),
        lambda model, optimizer: optimizer.param_groups[0]["params"].reverse(),
        lambda model, optimizer: optimizer.param_groups.__setitem__(0, dict(optimizer.param_groups[0], lr=0.0)),
    ],
    ids=[
        "eval",
        "requires_grad",
        "data",
        "parameter",
        "momentum",
        "load_state_dict",
        "add_param_group",
        "params",
        "group",
    ],
)
def test_what_a_replay_relies_on_is_guarded(change):
    model, optimizer, step, calls = make()
    step(X, Y)
    step(X, Y)
    change(model, optimizer)
    step(X, Y)
    step(X, Y)
    assert len(calls) == 2


def test_other_shapes_dtypes_and_values_capture_anew():
    calls = []

    @pynn.capture
    def f(x, factor=1):
        calls.append(1)
        return F.relu(x) * factor

    x = pynn.tensor([[-1.0, 2.0]])
    for _ in range(2):
        assert f(x).data.tolist() == [[0.0, 2.0]]
        assert f(x, factor=3).data.tolist() == [[0.0, 6.0]]
        assert f(x.data.astype(np.float64)).dtype == np.float64
        assert f(np.zeros((2, 2), np.float32)).shape == (2, 2)
    assert len(calls) == 4


def test_a_state_that_was_cleared_is_guarded():
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @pynn.capture
    def step(x, y):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    step(X, Y)
    step(X, Y)
    optimizer.state.clear()
    step(X, Y)
    assert optimizer.state[model[0].weight]["step"] == 1


class Loose(nn.Module):
    """Modules in a list, which `modules()` does not know."""

    def __init__(self):
        self.layers = [nn.Linear(6, 6), nn.Dropout(0.5)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_modules_in_lists_are_guarded():
    model = Loose()
    f = pynn.capture(model)
    f(X)
    for change in (model.layers[1].eval, lambda: model.layers.__setitem__(0, nn.Linear(6, 6))):
        change()
        for _ in range(2):
            np.testing.assert_array_equal(f(X).data, model(X).data)
    model.layers[0].register_forward_hook(lambda *args: None)
    with pytest.raises(CaptureError, match=r"^capture: Linear has a hook"):
        f(X)


def test_models_and_functions_around_the_function_are_guarded():
    model, factor = mlp(), 1.0

    def scaled(x):
        return model(x) * factor

    class Step:
        factor = 1.0

        def run(self, x):
            return F.stack([scaled(x) * self.factor for _ in range(2)])

    step = Step()
    f = pynn.capture(step.run)
    for change in ("nothing", "model", "factor", "attribute"):
        if change == "model":
            model = mlp()
        elif change == "factor":
            factor = 2.0
        elif change == "attribute":
            step.factor = 3.0
        for _ in range(2):
            np.testing.assert_array_equal(f(X).data, step.run(X).data)


WHOLE = np.ones(3, np.float32)
NOWHERE = Recording.extents([])
LARGE = np.arange(6000, dtype=np.float32).reshape(60, 100)  # more bytes than are copied


@pytest.mark.parametrize("start", [LARGE[:3, :4].copy(), LARGE], ids=["copied", "bound"])
def test_arguments_of_every_kind_reach_a_replay(start):
    calls = []

    @pynn.capture
    def f(x, factor, add=None):
        calls.append(1)
        return x * factor if add is None else x * factor + add

    wide = np.zeros((start.shape[0], 2 * start.shape[1]), np.float32)
    wide[:, ::2] = start + 5
    swapped = (start + 6).astype(start.dtype.newbyteorder())
    offset = np.frombuffer(b"x" + (start + 7).tobytes(), np.uint8)[1:].view(np.float32).reshape(start.shape)

    class Own(np.ndarray):
        pass

    arguments = [start, start + 1, pynn.tensor(start + 2), pynn.tensor(start + 3), start + 4, wide[:, ::2], offset]
    arguments += [start[::-1], (start + 8).view(Own), start + 9]
    for _ in range(2):
        for x in arguments:
            assert not offset.flags.aligned
            np.testing.assert_array_equal(f(x, 3).data, np.asarray(x.data if isinstance(x, pynn.Tensor) else x) * 3)
    assert len(calls) == 1
    np.testing.assert_array_equal(f(swapped, 3).data, swapped * np.float32(3))
    for factor in (3, 3.0, True, 2, 3):
        np.testing.assert_array_equal(f(start, factor).data, start * np.float32(factor))
    np.testing.assert_array_equal(f(start, 3, start).data, start * 4)
    np.testing.assert_array_equal(f(start, 3, add=start).data, start * 4)
    np.testing.assert_array_equal(f(start, 3).data, start * 3)


def test_an_argument_that_begins_to_require_a_gradient_is_refused():
    f = pynn.capture(lambda x: x * 2)
    x = pynn.tensor([1.0, 2.0])
    f(x)
    assert f(x).data.tolist() == [2, 4]
    x.requires_grad_()
    with pytest.raises(CaptureError, match=r"an argument \[2\] requires a gradient"):
        f(x)


def test_an_attribute_that_is_deleted_is_noticed():
    class Step:
        def __init__(self):
            self.factor = 2.0

        def run(self, x):
            return x * self.factor

    step, x = Step(), np.ones(2, np.float32)
    f = pynn.capture(step.run)
    f(x)
    assert f(x).data[0] == 2
    del step.factor
    with pytest.raises(AttributeError, match="factor"):
        f(x)


@pytest.mark.parametrize(
    "arguments",
    [
        ("is_ready", (X,), (np.ndarray, X), NOWHERE, (), (), (), ()),
        ("is_ready", (X,), (np.ndarray, X, True), X, (), (), (), ()),
        ("unchanged", (), (), (), (bool,)),
        ("unchanged", (), (), (), (1, True)),
        ("finish", (), (1, "x")),
        ("finish", (1,), ()),
        ("unchanged", (1, "x"), (), ()),
        ("unchanged", (), ({}, "x"), ()),
        ("unchanged", (), (), ([1],)),
        ("unchanged", (), (), ([1], [1])),
        ("unchanged", (), (), (1, (1,))),
        ("unchanged", (), ([], 0, 1), ()),
        ("unchanged", (1, 2, 3), (), ()),
        ("place", [WHOLE], {}, np.broadcast_to(WHOLE, (2, 3))),
        ("place", [WHOLE], {id(WHOLE): "0"}, WHOLE),
        ("place", [WHOLE], {id(WHOLE): 1 << 70}, WHOLE),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_the_core_compares_is_checked(arguments):
    name, *args = arguments
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(Recording, name)(*args)


@pytest.mark.parametrize("offset", [-64, 8, 1 << 62])
def test_arrays_are_placed_only_where_they_fit(offset):
    x = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"^Recording\.place: an array of 16 bytes does not fit"):
        Recording.place((x,), {id(x): offset}, np.zeros(5, np.float32))


def test_arrays_are_found_and_placed_in_nested_lists():
    x, y = np.ones((2, 4), np.float32), np.ones(3)
    value = (x[1], [(1, "a"), [x.reshape(8), (y,)], None], 2.0)
    arrays, memory = Recording.arrays_in(value)
    assert [a.shape for a in arrays] == [(4,), (8,), (3,)]
    assert memory == [id(x), id(x), id(y)] == [Recording.memory(a) for a in arrays]
    assert Recording.memory_of_call((y, 1), value) == ([id(y)], memory, [64] * 3)
    block = np.zeros(20, np.float32)
    (first, (numbers, (whole, (other,)), none), two) = Recording.place(value, {id(x): 16}, block)
    block[:] = range(20)
    assert (first.tolist(), whole.tolist()) == ([8, 9, 10, 11], list(range(4, 12)))
    assert (numbers, none, two) == ((1, "a"), None, 2.0)
    assert other is y
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        Recording.arrays_in(endless)


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


def test_equal_keys_are_the_same_and_what_their_comparison_raises_is_raised():
    class Broken:
        __hash__ = object.__hash__

        def __eq__(self, other):
            raise RuntimeError("no order")

    value = object()
    assert Recording.unchanged((), (), ({1: value}, (1.0, value)))
    assert not Recording.unchanged((), (), ({1: value}, (2, value)))
    assert not Recording.unchanged((), (), ({1: value}, (1,)))
    assert Recording.unchanged((), (), (), (lambda: 1.0, 1))
    assert not Recording.unchanged((), (), (), (lambda: 1.0, 1, lambda: 1.0, 2))
    with pytest.raises(RuntimeError, match="no order"):
        Recording.unchanged((), (), ({Broken(): value}, (1, value)))
    with pytest.raises(RuntimeError, match="no order"):
        Recording.unchanged((), (), (), (Broken, 1))


def test_a_function_that_is_an_argument_is_guarded():
    factor = 1.0

    def scaled(x):
        return x * factor

    f = pynn.capture(lambda loss, x: loss(x))
    assert f(scaled, np.ones(1, np.float32)).item() == 1
    factor = 2.0
    assert f(scaled, np.ones(1, np.float32)).item() == 2


def test_gradients_from_before_are_seen_by_a_step_that_drops_them_at_its_end():
    model, optimizer, _, _ = make()

    @pynn.capture
    def step(x, y):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    step(X, Y)
    step(X, Y)
    F.cross_entropy(model(X), Y).backward()
    with pytest.raises(CaptureError, match="already has a gradient from before"):
        step(X, Y)


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


def test_a_dict_that_is_an_argument_may_hold_another_array_in_each_call():
    f, batch = pynn.capture(lambda batch: batch["x"] * 2), {}
    for value in (1, 2, 3):
        batch["x"] = np.full(2, value, np.float32)
        assert f(batch).tolist() == [2 * value] * 2
    assert repr(f).endswith("plans=1)")


def test_options_of_an_optimizer_within_a_thing_are_not_to_be_changed_inside():
    thing = Holder(optimizer=optim.SGD([nn.Parameter(np.ones(2, np.float32))], lr=1.0))

    @pynn.capture
    def step(x):
        thing.optimizer.param_groups[0]["lr"] *= 0.5
        return x * 2

    with pytest.raises(CaptureError, match=r"^capture: options of SGD are changed"):
        step(np.ones(2, np.float32))
    assert thing.optimizer.param_groups[0]["lr"] == 1


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_a_zero_of_another_sign_is_another_value(kind):
    f = pynn.capture(lambda x, factor: x * factor)
    assert [str(f(np.ones(1, np.float32), kind(factor)).item()) for factor in (0.0, -0.0)] == ["0.0", "-0.0"]


def test_arguments_by_name_are_not_those_in_a_dict():
    f = pynn.capture(lambda batch=None, **named: batch["x"] * 1 if batch else named["x"] * 2)
    x = np.ones(1, np.float32)
    assert [f({"x": x}).item(), f(x=x).item(), f({"x": x}).item()] == [1, 2, 1]


def test_a_cache_that_thrashes_warns_once_and_stays_bounded():
    f = pynn.capture(F.relu)
    for n in range(1, 32):
        f(np.zeros(n, np.float32))
    with pytest.warns(RuntimeWarning, match=r"capture: 32 plans were made for relu.* around it, captures anew"):
        f(np.zeros(32, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(33, 100):
            f(np.zeros(n, np.float32))
    assert sum(len(plans) for plans in f._plans.values()) <= 16


def test_no_grad_inside_and_outside():
    model = mlp()

    @pynn.capture
    def f(x):
        with pynn.no_grad():
            return model(x)

    expected = model(X).data
    for _ in range(3):
        np.testing.assert_array_equal(f(X).data, expected)
    predict = pynn.capture(model)
    with pynn.no_grad():
        predict(X)
        np.testing.assert_array_equal(predict(X).data, expected)
    np.testing.assert_array_equal(predict(X).data, expected)
