"""`nn.Sequential` where nothing is recorded: what it leaves out between layers must not be missed by anyone."""

import contextlib
import copy
import pickle
import threading

import numpy as np
import pytest
from unrecorded_models import MODELS, check, images

import pynn
from pynn import _core, nn
from pynn import functional as F


@MODELS
def test_bits_are_those_of_the_layers(rng, build):
    model = build()
    for batch in (1, 2, 0, 7, 1, 64, 2):
        check(model, images(build, rng, batch))


@MODELS
def test_what_is_recorded_before_and_after(rng, build):
    model, x = build(), images(build, rng)
    for _ in range(2):
        check(model, x)
        model.zero_grad()
        y = model(x)
        assert y.requires_grad
        y.sum().backward()
        assert all(p.grad is not None for p in model.parameters())


class _Twice(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


class _Custom(nn.Module):
    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x)


class _Plus(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


def test_subclasses(rng):
    x = rng.normal(size=(2, 4)).astype(np.float32)
    layers = [nn.Linear(4, 4), _Twice(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()]
    y = check(nn.Sequential(*layers), x)
    with pynn.no_grad():
        np.testing.assert_array_equal(_Plus(*layers)(x).numpy(), y.numpy() + 1)


def test_a_parameter_of_a_subclass(rng):
    class Scaled(nn.Parameter):
        scale = 1

        @property
        def data(self):
            return nn.Parameter.data.__get__(self) * np.float32(self.scale)

        @data.setter
        def data(self, value):
            nn.Parameter.data.__set__(self, value)

    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), rng.normal(size=(2, 3)).astype(np.float32)
    model[0].weight = Scaled(model[0].weight)
    check(model, x)
    Scaled.scale = 3
    check(model, x)


def test_what_is_no_tensor_in_the_place_of_a_parameter(rng):
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), rng.normal(size=(2, 3)).astype(np.float32)
    vars(model[0])["weight"] = np.ones((2, 3), np.float32)
    check(model, x)
    vars(model[0])["bias"] = np.ones(2, np.float32)
    check(model, x)
    del model[0].bias
    with pytest.raises(AttributeError, match="bias"), pynn.no_grad():
        model(x)


@pytest.mark.parametrize("switch", [True, False])
def test_a_layer_that_switches_recording(rng, switch):
    def change(x):
        pynn.grad_mode.mode.enabled = switch
        return x

    model = nn.Sequential(nn.Linear(3, 3), _Custom(change), nn.Linear(3, 2), nn.ReLU())
    x = rng.normal(size=(2, 3)).astype(np.float32)
    for enabled in (True, False):
        with contextlib.nullcontext() if enabled else pynn.no_grad():
            try:
                assert model(x).requires_grad is switch
            finally:
                pynn.grad_mode.mode.enabled = enabled
    assert pynn.grad_mode.is_grad_enabled()


def outcome(model, x):
    """The values, or the error and its text."""
    try:
        return np.array(model(x)).tolist()
    except (AttributeError, TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("made", [np.asarray, lambda x: (x,), lambda x: None], ids=["array", "tuple", "nothing"])
@pytest.mark.parametrize("behind", [nn.Linear(3, 3), nn.Flatten()], ids=["Linear", "Flatten"])
def test_what_is_no_tensor_between_layers(rng, made, behind):
    model = nn.Sequential(nn.Linear(3, 3), _Custom(made), behind, nn.Linear(3, 2))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    recorded = outcome(model, x)
    with pynn.no_grad():
        assert outcome(model, x) == recorded


BAD = {
    "float64": lambda x: x.astype(np.float64),
    "int64": lambda x: x.astype(np.int64),
    "float16": lambda x: x.astype(np.float16),
    "one column": lambda x: x[:, :, :1],
    "one sample": lambda x: x[0],
    "a number": lambda x: x.sum(),
    "two more axes": lambda x: x[..., None, None],
    "a list": lambda x: x.tolist(),
    "None": lambda x: None,
}


@MODELS
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_errors_are_those_of_recorded_layers(rng, build, bad):
    model, x = build(), bad(images(build, rng))
    recorded = outcome(model, x)
    with pynn.no_grad():
        assert outcome(model, x) == recorded


def test_an_axis_that_is_no_integer(rng):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), rng.normal(size=(4, 2, 3)).astype(np.float32)
    check(model, x)
    model[0].start_dim = 1.0
    recorded = outcome(model, x)
    assert recorded[0] is TypeError
    with pynn.no_grad():
        assert outcome(model, x) == recorded


@MODELS
def test_forms_of_the_input(rng, build):
    model, x = build(), images(build, rng, 3)
    y = check(model, x).numpy()
    read_only = x.copy()
    read_only.flags.writeable = False
    for form in (
        pynn.Tensor(x),
        pynn.Tensor(x, requires_grad=True),
        nn.Parameter(x),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        x[::-1][::-1],
        x.astype(">f4"),
        np.ma.asarray(x),
        read_only,
    ):
        np.testing.assert_array_equal(check(model, form).numpy(), y)
    with pynn.no_grad():
        np.testing.assert_array_equal(model.forward(pynn.Tensor(x)).numpy(), y)


@MODELS
def test_results_are_memory_of_their_own(rng, build):
    model, x = build(), images(build, rng)
    arrays = [x, *(p.data for p in model.parameters())]
    kept = []
    for _ in range(3):
        y = check(model, x).numpy()
        assert not any(np.shares_memory(y, array) for array in arrays)
        arrays.append(y)
        kept.append(y.copy())
    for y, values in zip(arrays[-3:], kept, strict=True):
        np.testing.assert_array_equal(y, values)


def test_layers_that_return_their_input(rng):
    x = pynn.Tensor(rng.normal(size=(2, 3)).astype(np.float32))
    with pynn.no_grad():
        assert nn.Sequential(nn.Dropout().eval())(x) is x
        y = nn.Sequential(nn.Flatten(), nn.Dropout().eval())(x)
    assert y.data.base is x.data
    assert y._version is x._version


@MODELS
def test_threads_share_a_model(rng, build):
    model = build()
    inputs = [images(build, rng, 1 + i % 3) for i in range(4)]
    expected = [check(model, x).numpy() for x in inputs]
    wrong = []

    def work(i):
        with pynn.no_grad():
            same = [np.array_equal(model(inputs[i]).numpy(), expected[i]) for _ in range(100)]
        wrong.extend(i for s in same if not s)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):  # while others are not to be recorded
        assert model(inputs[0]).requires_grad
    for thread in threads:
        thread.join()
    assert not wrong


@MODELS
def test_capture_inside_of_no_grad(rng, build):
    model, x = build(), images(build, rng)
    y = check(model, x).numpy()
    captured = pynn.capture(model)
    with pynn.no_grad():
        for _ in range(2):
            np.testing.assert_array_equal(captured(x).numpy(), y)
    assert len(captured.plan().calls) >= 2
    check(model, x)


@MODELS
def test_a_plan_made_while_another_thread_captures(rng, build):
    model, other, x, seen = build(), nn.Linear(2, 2), images(build, rng), []

    def recorded(y):
        thread = threading.Thread(target=lambda: seen.append(check(model, x).numpy()))
        thread.start()
        thread.join()
        return other(y)

    pynn.capture(recorded)(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(check(model, x).numpy(), seen[0])


@MODELS
def test_a_graph_sees_nothing_of_what_is_not_recorded(rng, build):
    model, x = build(), images(build, rng)
    with pynn.graph.Graph() as graph, pynn.no_grad():
        model(x)
    assert graph.dot() == "digraph {\n  rankdir=LR\n}"
    with pynn.graph.Graph() as graph:
        model(x)
    assert graph.dot().count("label") >= 9


@MODELS
def test_copies(rng, build):
    model, x = build(), images(build, rng)
    y = check(model, x).numpy()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(check(other, x).numpy(), y)
        for parameter in other.parameters():
            parameter.data *= 2
        assert not np.array_equal(check(other, x).numpy(), y)
    np.testing.assert_array_equal(check(model, x).numpy(), y)


@MODELS
def test_nothing_is_kept_for_a_shape(rng, build):
    model = build()
    check(model, images(build, rng))
    before = pynn._core.arena_stats()["bytes_in_use"]
    for batch in range(1, 50):
        check(model, images(build, rng, batch))
    assert pynn._core.arena_stats()["bytes_in_use"] == before


def test_threads_of_the_core_do_not_change_bits(rng):
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9000, 64)).eval()
    x, threads, results = rng.normal(size=(4, 3, 32, 32)).astype(np.float32), pynn.num_threads(), []
    try:
        for n in (1, 2, 3):
            pynn.set_num_threads(n)
            results.append(check(model, x).numpy())
    finally:
        pynn.set_num_threads(threads)
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


def test_the_core_knows_which_weights_are_trained(monkeypatch):
    said = []
    linear = _core.linear

    def spy(x, weight, bias, activation, trained):
        said.append(trained)
        return linear(x, weight, bias, activation, trained)

    monkeypatch.setattr(_core, "linear", spy)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)), np.ones((5, 4), np.float32)
    model(x)
    model[0].weight.requires_grad = False
    model(x)
    with pynn.no_grad():
        model(x)
        F.linear(x, model[0].weight)
    assert said == [True, True, False, True, False, False, False]
