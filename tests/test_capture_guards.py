"""What a replay relies on is noticed when it changes, and captured anew."""

import warnings

import numpy as np
import pytest
from captured_steps import X, Y, make, mlp

import pynn
from pynn import CaptureError, nn, optim
from pynn import functional as F


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


def test_a_dict_that_is_an_argument_may_hold_another_array_in_each_call():
    f, batch = pynn.capture(lambda batch: batch["x"] * 2), {}
    for value in (1, 2, 3):
        batch["x"] = np.full(2, value, np.float32)
        assert f(batch).tolist() == [2 * value] * 2
    assert repr(f).endswith("plans=1)")


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
