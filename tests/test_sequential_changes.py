"""`nn.Sequential` where nothing is recorded: what changes between two calls counts."""

import numpy as np
import pytest
from unrecorded_models import MODELS, check, images, mlp, one_by_one

import pynn
from pynn import nn

VALUES = {
    "written": lambda p: np.add(p.data, 0.5, out=p.data),
    "written through the tensor": lambda p: p.__iadd__(0.5),
    "replaced": lambda p: setattr(p, "data", p.data + np.float32(0.5)),
    "replaced by a view": lambda p: setattr(p, "data", np.concatenate([p.data, p.data + 0.5])[len(p.data) :]),
}


@MODELS
@pytest.mark.parametrize("change", VALUES.values(), ids=VALUES.keys())
def test_values_of_parameters(rng, build, change):
    model, x = build(), images(build, rng)
    before = check(model, x).numpy()
    for parameter in model.parameters():
        with pynn.no_grad():
            change(parameter)
        after = check(model, x).numpy()
    assert not np.array_equal(before, after)


def test_data_of_another_shape_or_dtype_or_layout(rng):
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), rng.normal(size=(5, 4)).astype(np.float32)
    check(model, x)
    model[0].weight.data, model[0].bias.data = np.ones((6, 4), np.float32), np.ones(6, np.float32)
    with pytest.raises(ValueError, match=r"^linear: .*\[5, 6\]"), pynn.no_grad():
        model(x)
    model[2].weight.data = rng.normal(size=(7, 6)).astype(np.float32)
    model[2].bias = None
    assert check(model, x).shape == (5, 7)
    model[2].weight.data.shape = (6, 7)  # in place
    with pytest.raises(ValueError, match=r"^linear: "), pynn.no_grad():
        model(x)
    model[2].weight.data = model[2].weight.data.T
    with pytest.raises(TypeError, match=r"^linear: weight .* not C-contiguous"), pynn.no_grad():
        model(x)
    model[2].weight.data = np.ones((7, 6))
    with pytest.raises(TypeError, match=r"^linear: .*float64"), pynn.no_grad():
        model(x)
    model.astype(np.float64)
    check(model, x.astype(np.float64))


@MODELS
def test_states_and_steps(rng, build):
    model, other, x = build(), build(), images(build, rng)
    check(model, x)
    model.load_state_dict(other.state_dict())
    with pynn.no_grad():
        np.testing.assert_array_equal(check(model, x).numpy(), other(x).numpy())
    optimizer = pynn.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        check(model, x)
    model.requires_grad_(False)
    check(model, x)


@MODELS
@pytest.mark.parametrize("backward", [False, True])
def test_hooks_come_and_go(rng, build, backward):
    model, x = build(), images(build, rng)
    for layer in (*model, model):
        check(model, x)
        seen = []
        if backward:  # called by no backward; but the module is
            handle = layer.register_full_backward_hook(lambda *args: None)
        else:
            handle = layer.register_forward_hook(lambda module, args, y, seen=seen: seen.append((module, args, y)))
        y = check(model, x)
        if not backward:
            assert {id(module) for module, _, _ in seen} == {id(layer)}
            assert layer is not model or seen[-1][2] is y
        handle.remove()
        seen.clear()
        check(model, x)
        assert not seen


@MODELS
def test_a_hook_that_writes_to_an_output(rng, build):
    model, x = build(), images(build, rng)
    plain = check(model, x).numpy()
    model[1].register_forward_hook(lambda module, args, y: np.negative(y.data, out=y.data))
    assert not np.array_equal(check(model, x).numpy(), plain)


@MODELS
@pytest.mark.parametrize("position", range(5))
def test_a_forward_of_its_own(rng, build, position):
    model, x = build(), images(build, rng)
    check(model, x)
    layer, seen = model[position], []
    forward = layer.forward
    layer.forward = lambda x: seen.append(x) or forward(x)
    with pynn.no_grad():
        model(x)
    assert len(seen) == 1
    assert isinstance(seen[0], pynn.Tensor)
    del layer.forward
    check(model, x)
    assert len(seen) == 1


def test_options(rng):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2), nn.LeakyReLU())
    x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
    check(model, x)
    model[0].padding = "same"
    model[3] = nn.Linear(128, 2)
    check(model, x)
    model[0].weight.data = rng.normal(size=(2, 1, 5, 5)).astype(np.float32)
    check(model, x)
    model[0].padding = [2, 2]
    check(model, x)
    model[0].padding[:] = [1, 1]
    model[3] = nn.Linear(72, 2)
    check(model, x)
    model[2].start_dim = 0
    with pytest.raises(ValueError, match=r"^linear: .*\[144\]"), pynn.no_grad():
        model(x)
    model[2].start_dim = -3
    check(model, x)
    model[4].negative_slope = 0.3
    check(model, x)
    model[0].groups = 2
    with pytest.raises(ValueError, match=r"^conv2d: .*groups"), pynn.no_grad():
        model(x)


def test_train_and_eval(rng):
    model, x = mlp(), images(mlp, rng)
    plain = check(model, x).numpy()

    def dropped():
        pynn.seed(5)
        with pynn.no_grad():
            y = model(x).numpy()
        pynn.seed(5)
        with pynn.no_grad():
            np.testing.assert_array_equal(y, one_by_one(model, x).numpy())
        return not np.array_equal(y, plain)

    assert not dropped()
    assert any(model.train() is model and dropped() for _ in range(20))
    model[3].training = False
    assert not dropped()
    model.train()[3].p = 0
    assert not dropped()
    model[3].p = 1.0
    assert dropped()
    model.eval()
    assert not dropped()
    model[3].p = 1.5
    with pytest.raises(ValueError, match=r"^dropout: p must be"), pynn.no_grad():
        model(x)
    model[3].p = 1.0
    del model[3].training  # that of the class counts
    assert dropped()


def test_layers_exchanged_added_and_removed(rng):
    model, x = mlp(), images(mlp, rng)
    for change in (
        lambda: model.append(nn.Linear(3, 3)),
        lambda: model.append(nn.Tanh()),
        lambda: model.__setitem__(1, nn.Linear(12, 8, bias=False)),
        lambda: model.__setitem__(2, nn.Sequential(nn.Sigmoid(), nn.Linear(8, 8))),
        lambda: model[2].append(nn.ReLU()),
        lambda: delattr(model, "3"),
        lambda: setattr(model[0], "__class__", nn.Identity),
        lambda: setattr(model[0], "__class__", nn.Flatten),
    ):
        check(model, x) if type(model[0]) is nn.Flatten else None
        change()
        if type(model[0]) is nn.Flatten:
            check(model, x)
