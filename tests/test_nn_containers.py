"""Sequential and ModuleList, and which layers Sequential fuses."""

import contextlib
import copy
import gc
import weakref

import numpy as np
import pytest
from small_models import mlp

import pynn
from pynn import functional as F
from pynn import nn


def test_sequential_is_a_list():
    model = mlp()
    assert len(model) == 4
    assert model[-1] is model[3]
    assert list(model) == [model[i] for i in range(4)]
    part = model[2:]
    assert isinstance(part, nn.Sequential)
    assert [name for name, _ in part.named_children()] == ["2", "3"]
    assert part[0] is model[2]
    part.append(nn.Tanh())
    assert len(part) == 3
    assert len(model) == 4
    model[-1] = nn.Identity()
    assert repr(model[3]) == "Identity()"
    with pytest.raises(TypeError, match=r"^Sequential: index is 'a', needs an integer or a slice$"):
        model["a"]
    with pytest.raises(TypeError, match=r"^Sequential: a slice cannot be replaced, needs an integer as index$"):
        model[:2] = nn.Tanh()
    with pytest.raises(IndexError, match="Sequential: index 4 is out of range for 4 modules"):
        model[4]


def test_sequential_with_names():
    model = nn.Sequential({"hidden": nn.Linear(2, 2), "out": nn.Linear(2, 1)})
    assert list(model.state_dict()) == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    assert [name for name, _ in model[1:].named_children()] == ["out"]


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training"])
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="cannot name a child"):
        nn.Sequential({name: nn.ReLU()})


@pytest.mark.parametrize("name", [0, 1, None])
def test_names_are_text(name):
    with pytest.raises(TypeError, match=rf"^Sequential: {name} cannot name a child, needs a str$"):
        nn.Sequential({name: nn.ReLU()})


def test_sequential_takes_modules_only():
    with pytest.raises(TypeError, match="child '1' is a function, needs a Module"):
        nn.Sequential(nn.Linear(1, 1), F.relu)


def test_empty_sequential_is_the_identity():
    assert nn.Sequential()(3) == 3


def test_a_slice_of_a_module_list_counts_anew():  # so that its keys of state_dict are PyTorch's
    layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    part = layers[1:3]
    assert isinstance(part, nn.ModuleList)
    assert [(name, child) for name, child in part.named_children()] == [("0", layers[1]), ("1", layers[2])]
    assert list(part.append(nn.ReLU()).state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(layers) == 4


def test_module_list():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.extend([nn.ReLU(), nn.ReLU()]).append(nn.Tanh())
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "ReLU", "Tanh"]
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    assert len(layers[1:3]) == 2
    with pytest.raises(TypeError, match=r"^ModuleList: modules is 3, needs several modules"):
        nn.ModuleList(3)


@pytest.mark.parametrize("recurrent", [nn.LSTM(4, 5), nn.GRU(4, 5)])
@pytest.mark.parametrize("layer", [nn.Linear(5, 2), nn.ReLU(), nn.LayerNorm(5)])
def test_several_outputs_before_a_layer_that_takes_one(recurrent, layer):
    model = nn.Sequential(nn.Identity(), recurrent, layer)
    name = f"layer 1, {type(recurrent).__name__}, returns a tuple of 2, and layer 2, {type(layer).__name__}, takes"
    with pytest.raises(TypeError, match=f"^Sequential: {name}"):
        model(np.zeros((3, 1, 4), np.float32))
    first = nn.Sequential(recurrent, nn.Identity())(np.zeros((3, 1, 4), np.float32))
    assert isinstance(first, tuple)


ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.2), nn.Sigmoid(), nn.Tanh(), nn.GELU()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("bias", [True, False])
def test_fused_layers_give_the_same_bits(rng, activation, bias):
    linear = nn.Linear(37, 19, bias=bias)
    x = rng.normal(size=(5, 37)).astype(np.float32)
    dy = rng.normal(size=(5, 19)).astype(np.float32)
    results = []
    for model in (nn.Sequential(linear, activation), lambda x: activation(linear(x))):
        linear.zero_grad()
        tx = pynn.Tensor(x, requires_grad=True)
        y = model(tx)
        y.backward(dy)
        results.append([y.numpy(), tx.grad, *(p.grad for p in linear.parameters())])
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(fused, plain)


class _Doubled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def activations_of(monkeypatch, model, x):
    """Run the model and return the `activation` of each call of F.linear."""
    seen = []
    linear = F.linear

    def spy(x, weight, bias=None, activation="none"):
        seen.append(activation)
        return linear(x, weight, bias, activation=activation)

    monkeypatch.setattr(F, "linear", spy)
    model(x)
    return seen


def test_what_is_fused(monkeypatch):
    x = np.ones((2, 4), np.float32)
    model = nn.Sequential(
        *(nn.Linear(4, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 4), nn.Tanh()),
        *(_Doubled(4, 4), nn.ReLU(), nn.Linear(4, 4)),
    )
    assert activations_of(monkeypatch, model, x) == ["relu", "none", "tanh", "none", "none"]


@pytest.mark.parametrize("hooked", [0, 1])
def test_a_hooked_layer_is_not_fused(monkeypatch, hooked):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[hooked].register_forward_hook(lambda module, args, y: None)
    assert activations_of(monkeypatch, model, np.ones((2, 4), np.float32)) == ["none"]


@pytest.mark.parametrize("replaced", range(6))
def test_a_forward_that_was_replaced_is_called(rng, replaced):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.ReLU())
    x = rng.normal(size=(3, 1, 6, 6)).astype(np.float32)
    layer, seen = model[replaced], []
    forward = layer.forward
    layer.forward = lambda x: seen.append(x) or forward(x)
    model(x)
    assert len(seen) == 1


class _Changing(nn.Module):
    """Call a function in forward."""

    def __init__(self, change):
        self.change = change

    def forward(self, x):
        self.change()
        return x


def _changeable(first):
    return nn.Sequential(
        *(first, nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.GlobalAvgPool2d(), nn.Linear(2, 4), nn.ReLU()),
        *(nn.Linear(4, 4), nn.LeakyReLU()),
    )


def _hooked(model):
    model[2].register_forward_hook(lambda module, args, y: np.negative(y.data, out=y.data))


CHANGES = {
    "a layer": lambda m: m.__setitem__(5, nn.Linear(2, 4)),
    "another activation": lambda m: m.__setitem__(6, nn.Tanh()),
    "a slope": lambda m: setattr(m[8], "negative_slope", 0.5),
    "a weight": lambda m: setattr(m[7], "weight", nn.Parameter(np.ones((4, 4), np.float32))),
    "no bias": lambda m: setattr(m[1], "bias", None),
    "a stride": lambda m: setattr(m[1], "stride", (2, 2)),
    "a window": lambda m: setattr(m[3], "padding", (1, 1)),
    "one more": lambda m: m.append(nn.Linear(4, 2)),
    "one less": lambda m: delattr(m, "8"),
    "a forward": lambda m: setattr(m[6], "forward", lambda x: x * 3),
    "a hook": _hooked,
    "a class": lambda m: setattr(m[7], "__class__", _Doubled),
}


@pytest.fixture(params=[True, False], ids=["recorded", "unrecorded"])
def _recorded(request):
    with contextlib.nullcontext() if request.param else pynn.no_grad():
        yield


@pytest.mark.usefixtures("_recorded")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("copied", [False, True])
def test_a_sequential_notices_what_changes(rng, change, copied):
    model = _changeable(nn.Identity())
    x = rng.normal(size=(3, 1, 6, 6)).astype(np.float32)
    before = model(x).numpy().copy()
    changed = copy.deepcopy(model) if copied else model
    change(changed)
    expected = x
    for layer in changed:
        expected = layer(expected)
    np.testing.assert_array_equal(changed(x).numpy(), expected.numpy())
    if copied:
        np.testing.assert_array_equal(model(x).numpy(), before)


@pytest.mark.usefixtures("_recorded")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("by_hook", [False, True])
def test_what_a_layer_changes_counts_in_the_same_forward(rng, change, by_hook):
    due = []

    def change_if_due():
        if due:
            due.pop()
            change(model)

    model = _changeable(nn.Identity() if by_hook else _Changing(change_if_due))
    if by_hook:
        model[0].register_forward_hook(lambda module, args, y: change_if_due())
    x = rng.normal(size=(3, 1, 6, 6)).astype(np.float32)
    model(x)
    due.append(True)
    y = model(x).numpy()
    expected = x
    for layer in model:
        expected = layer(expected)
    np.testing.assert_array_equal(y, expected.numpy())


def test_a_weight_that_an_earlier_layer_makes_is_used_at_once():
    linear, values = nn.Linear(3, 1), iter([1, 2, 3])

    def make():
        linear.weight = nn.Parameter(np.full((1, 3), next(values), np.float32))

    linear.bias = None
    model = nn.Sequential(_Changing(make), linear)
    assert [model(np.ones((1, 3), np.float32)).item() for _ in range(3)] == [3, 6, 9]


def test_a_layer_that_replaces_itself_runs_once():
    ran = []

    def change():
        ran.append(1)
        model[1] = nn.ReLU()

    model = nn.Sequential(nn.Linear(3, 3), _Changing(change), nn.ReLU(), nn.Linear(3, 3))
    model(np.ones((1, 3), np.float32))
    assert ran == [1]


def test_a_sequential_that_was_called_is_freed_at_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.ReLU())
    model(np.ones((1, 3), np.float32))
    freed = weakref.ref(model)
    gc.disable()  # which would free a cycle, too
    try:
        del model
        assert freed() is None
    finally:
        gc.enable()


POOLS = [
    nn.MaxPool2d(2),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.MaxPool2d(3),
    nn.MaxPool2d(2, 1),
    nn.MaxPool2d(2, padding=1),
    nn.AvgPool2d(2),
]


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Identity()], ids=repr)
def test_fused_convolutions_give_what_the_layers_give(rng, pool, activation):
    conv = nn.Conv2d(3, 5, 3, padding=1)
    x = rng.normal(size=(4, 3, 9, 12)).astype(np.float32)
    chains = nn.Sequential(conv, activation, pool), lambda x: pool(activation(conv(x)))
    dy = rng.normal(size=chains[0](x).shape).astype(np.float32)
    results = []
    for model in chains:
        conv.zero_grad()
        tx = pynn.Tensor(x, requires_grad=True)
        y = model(tx)
        y.backward(dy)
        results.append([y.numpy(), tx.grad, *(p.grad for p in conv.parameters())])
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())


def kernels_of(monkeypatch, model):
    """Run the model on images and return the names of the functional operations that it called."""
    seen = []

    def spy(name, op):
        return lambda *args, **kwargs: (seen.append(name), op(*args, **kwargs))[1]

    for name in ("conv2d", "conv2d_max_pool2d", "max_pool2d", "relu"):
        monkeypatch.setattr(F, name, spy(name, getattr(F, name)))
    model(np.ones((2, 3, 8, 8), np.float32))
    return seen


def test_which_convolutions_are_fused(monkeypatch):
    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2), nn.Conv2d(3, 3, 1)),
        *(nn.MaxPool2d(3, 1), nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    assert kernels_of(monkeypatch, model) == [
        *("conv2d", "conv2d_max_pool2d", "conv2d", "max_pool2d", "conv2d_max_pool2d"),
    ]


@pytest.mark.parametrize(
    ("hooked", "expected"),
    [(0, ["conv2d", "relu", "max_pool2d"]), (1, ["conv2d", "relu", "max_pool2d"]), (2, ["conv2d", "max_pool2d"])],
)
def test_hooked_convolutions_are_fused_up_to_the_hook(monkeypatch, hooked, expected):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    model[hooked].register_forward_hook(lambda module, args, y: None)
    assert kernels_of(monkeypatch, model) == expected
