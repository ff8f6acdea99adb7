"""Modules: registration, modes, layers and losses against PyTorch, initialisers, fusion, summary."""

import copy
import math
import pickle

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import nn

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


# -- the tree ----------------------------------------------------------------------------------------------------------


def test_names_in_pytorchs_order():
    model = mlp()
    assert [name for name, _ in model.named_parameters()] == [
        *("0.weight", "0.bias", "1.weight", "1.bias", "3.1.weight", "3.1.bias"),
    ]
    assert [name for name, _ in model.named_buffers()] == [
        *("1.running_mean", "1.running_var", "1.num_batches_tracked"),
    ]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "2", "3", "3.0", "3.1"]
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"]
    assert len(list(model.modules())) == 7
    assert len(list(model.children())) == 4
    assert len(list(model.parameters())) == 6
    assert len(list(model.buffers())) == 3


def test_attributes_can_be_replaced_and_removed():
    layer = nn.Linear(3, 2)
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]
    layer.weight = nn.Parameter(np.zeros((2, 3)))
    assert [p.dtype for p in layer.parameters()] == [np.float64]
    del layer.weight
    assert list(layer.parameters()) == []


def test_a_plain_tensor_is_no_parameter():
    module = nn.Module()
    module.constant = pynn.tensor([1.0])
    assert module.state_dict() == {}


def test_tied_weight_is_one_parameter_with_two_keys():
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["first.weight", "first.bias", "second.bias"]
    assert list(model.state_dict()) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    model(np.ones((1, 3), np.float32)).sum().backward()
    assert model.first.weight.grad is model.second.weight.grad


def test_shared_module_comes_once():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    assert len(list(model.parameters())) == 2
    assert len(list(model.modules())) == 2
    assert len(list(model.state_dict())) == 4


def test_cycle_is_refused():
    outer, inner = nn.Module(), nn.Module()
    outer.inner, inner.outer = inner, outer
    with pytest.raises(ValueError, match="child 'outer' contains itself"):
        list(outer.parameters())


def test_train_and_eval_reach_the_whole_tree():
    model = mlp()
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    assert model.train() is model
    assert all(module.training for module in model.modules())


def test_requires_grad_and_zero_grad():
    model = mlp().requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model.requires_grad_()
    model(np.ones((2, 3), np.float32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_astype_converts_floats_only():
    model = mlp().astype(np.float64)
    dtypes = {name: array.dtype for name, array in model.state_dict().items()}
    assert dtypes.pop("1.num_batches_tracked") == np.int64
    assert set(dtypes.values()) == {np.dtype(np.float64)}
    assert model(np.ones((2, 3))).dtype == np.float64
    with pytest.raises(TypeError, match="astype: got int32, needs float32 or float64"):
        model.astype(np.int32)


def test_buffers():
    module = nn.Module()
    module.register_buffer("scale", [2.0])
    assert module.scale.tolist() == [2.0]
    for name in ("scale", "forward", "a.b", ""):
        with pytest.raises(ValueError, match="register_buffer"):
            module.register_buffer(name, [1.0])
    with pytest.raises(TypeError, match="register_buffer: nothing has dtype object"):
        module.register_buffer("nothing", None)
    module.scale = None
    assert module.state_dict() == {}


def test_repr_is_a_tree():
    assert repr(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False)))) == (
        "Sequential(\n"
        "  (0): Flatten(start_dim=1)\n"
        "  (1): Sequential(\n"
        "    (0): Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=2, bias=False)\n"
        "  )\n"
        ")"
    )


def test_copies_are_independent():
    model = mlp()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(other) == repr(model)
        next(other.parameters()).data[...] = 7
        assert not (next(model.parameters()).data == 7).any()


def test_hooks_see_every_call_until_removed():
    seen = []
    layer = nn.Linear(2, 3)
    handle = layer.register_forward_hook(lambda module, args, y: seen.append((module, args[0].shape, y.shape)))
    layer(np.ones((4, 2), np.float32))
    handle.remove()
    handle.remove()
    layer(np.ones((4, 2), np.float32))
    assert seen == [(layer, (4, 2), (4, 3))]


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match="Module: forward is not defined"):
        nn.Module()(1)


# -- containers --------------------------------------------------------------------------------------------------------


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


def test_sequential_takes_modules_only():
    with pytest.raises(TypeError, match="child '1' is a function, needs a Module"):
        nn.Sequential(nn.Linear(1, 1), F.relu)


def test_empty_sequential_is_the_identity():
    assert nn.Sequential()(3) == 3


def test_module_list():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.extend([nn.ReLU(), nn.ReLU()]).append(nn.Tanh())
    assert [type(layer).__name__ for layer in layers] == ["Linear", "ReLU", "ReLU", "Tanh"]
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    assert len(layers[1:3]) == 2


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


# -- layers against PyTorch --------------------------------------------------------------------------------------------


def _global_avg_pool2d(n):
    return n.GlobalAvgPool2d() if n is nn else n.Sequential(n.AdaptiveAvgPool2d(1), n.Flatten())


LAYERS = {
    "linear": (lambda n: n.Linear(5, 3), (4, 5)),
    "linear 3-D, no bias": (lambda n: n.Linear(5, 3, bias=False), (2, 4, 5)),
    "conv1d": (lambda n: n.Conv1d(2, 4, 3), (2, 2, 9)),
    "conv1d options": (lambda n: n.Conv1d(4, 6, 3, 2, 1, 2, 2, False), (2, 4, 9)),
    "conv1d same": (lambda n: n.Conv1d(2, 3, 3, padding="same", dilation=2), (2, 2, 9)),
    "conv2d": (lambda n: n.Conv2d(2, 4, 3), (2, 2, 6, 5)),
    "conv2d options": (lambda n: n.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2, False), (2, 4, 7, 6)),
    "conv2d same": (lambda n: n.Conv2d(2, 3, 3, padding="same", dilation=2), (1, 2, 6, 6)),
    "max_pool2d": (lambda n: n.MaxPool2d(2), (2, 3, 7, 6)),
    "max_pool2d options": (lambda n: n.MaxPool2d((3, 2), 2, 1, 1, ceil_mode=True), (2, 3, 7, 6)),
    "avg_pool2d": (lambda n: n.AvgPool2d(2), (2, 3, 7, 6)),
    "avg_pool2d options": (lambda n: n.AvgPool2d(3, 2, 1, True, False), (2, 3, 7, 6)),
    "global_avg_pool2d": (_global_avg_pool2d, (2, 3, 5, 4)),
    "flatten": (lambda n: n.Flatten(), (2, 3, 4)),
    "relu": (lambda n: n.ReLU(), (3, 4)),
    "leaky_relu": (lambda n: n.LeakyReLU(0.2), (3, 4)),
    "sigmoid": (lambda n: n.Sigmoid(), (3, 4)),
    "tanh": (lambda n: n.Tanh(), (3, 4)),
    "gelu": (lambda n: n.GELU(), (3, 4)),
    "gelu tanh": (lambda n: n.GELU("tanh"), (3, 4)),
    "silu": (lambda n: n.SiLU(), (3, 4)),
    "elu": (lambda n: n.ELU(0.7), (3, 4)),
    "softplus": (lambda n: n.Softplus(2.0, 1.0), (30, 4)),
    "softmax": (lambda n: n.Softmax(1), (3, 4, 2)),
    "log_softmax": (lambda n: n.LogSoftmax(-1), (3, 4)),
    "identity": (lambda n: n.Identity(), (3, 4)),
    "dropout 0": (lambda n: n.Dropout(0.0), (3, 4)),
    "batch_norm1d": (lambda n: n.BatchNorm1d(3), (5, 3)),
    "batch_norm1d [N, C, L]": (lambda n: n.BatchNorm1d(3, eps=1e-3, momentum=0.3), (5, 3, 4)),
    "batch_norm2d": (lambda n: n.BatchNorm2d(3), (2, 3, 4, 5)),
    "batch_norm2d plain": (lambda n: n.BatchNorm2d(3, affine=False), (2, 3, 4, 5)),
    "batch_norm2d batch only": (lambda n: n.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 5)),
    "layer_norm": (lambda n: n.LayerNorm(5), (2, 4, 5)),
    "layer_norm 2 axes": (lambda n: n.LayerNorm((4, 5), eps=1e-3), (2, 4, 5)),
    "layer_norm plain": (lambda n: n.LayerNorm(5, elementwise_affine=False), (3, 5)),
    "layer_norm no bias": (lambda n: n.LayerNorm(5, bias=False), (3, 5)),
    "group_norm": (lambda n: n.GroupNorm(2, 6), (3, 6, 4, 5)),
    "group_norm [N, C]": (lambda n: n.GroupNorm(3, 6, eps=1e-3), (3, 6)),
    "group_norm instances": (lambda n: n.GroupNorm(6, 6, affine=False), (2, 6, 7)),
    "conv_transpose2d": (lambda n: n.ConvTranspose2d(4, 3, 3), (2, 4, 5, 6)),
    "conv_transpose2d options": (
        lambda n: n.ConvTranspose2d(4, 6, (3, 2), (3, 2), (1, 2), (2, 1), 2, False, (1, 2)),
        (2, 4, 5, 6),
    ),
    "conv_transpose2d of a GAN": (lambda n: n.ConvTranspose2d(4, 2, 4, 2, 1), (2, 4, 7, 7)),
    "upsample": (lambda n: n.Upsample(scale_factor=2), (2, 3, 4, 5)),
    "upsample bilinear": (lambda n: n.Upsample((7, 3), mode="bilinear"), (2, 3, 4, 5)),
    "unflatten": (lambda n: n.Unflatten(1, (2, -1)), (3, 6, 2)),
    "unflatten the last": (lambda n: n.Unflatten(-1, (2, 3)), (3, 6)),
}


@needs_torch
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_layer_equals_pytorchs(rng, make, shape, training):
    ours, theirs = make(nn).astype(np.float64).train(training), make(torch.nn).double().train(training)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: rng.uniform(0.5, 2, v.shape) if v.ndim else v for k, v in ours.state_dict().items()})
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x = rng.normal(size=shape)
    tx = torch.from_numpy(x).requires_grad_()
    px = pynn.Tensor(x, requires_grad=True)
    for _ in range(2):  # the second call sees the running statistics of the first
        ty, py = theirs(tx), ours(px)
    dy = rng.normal(size=ty.shape)
    ty.backward(torch.from_numpy(dy))
    py.backward(dy)
    assert py.shape == tuple(ty.shape)
    # float64 throughout: sums of at most some hundred terms of order 1
    np.testing.assert_allclose(py.numpy(), ty.detach().numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(px.grad, tx.grad.numpy(), rtol=1e-11, atol=1e-12)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-11, atol=1e-12, err_msg=name)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-11, err_msg=name)


@needs_torch
def test_embedding_equals_pytorchs(rng):
    ours, theirs = nn.Embedding(7, 3).astype(np.float64), torch.nn.Embedding(7, 3).double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    indices = rng.integers(0, 7, (4, 5))
    dy = rng.normal(size=(4, 5, 3))
    y = ours(indices)
    y.backward(dy)
    theirs(torch.from_numpy(indices)).backward(torch.from_numpy(dy))
    np.testing.assert_array_equal(y.numpy(), ours.weight.numpy()[indices])
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), rtol=1e-12, atol=1e-14)


@needs_torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name",
    ["CrossEntropyLoss", "smooth", "NLLLoss", "weighted", "MSELoss", "L1Loss", "SmoothL1Loss", "beta", "KLDivLoss",
     "log", "batchmean", "BCEWithLogitsLoss"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # PyTorch's: of KLDivLoss
def test_loss_equals_pytorchs(rng, name, reduction):
    x = rng.normal(size=(6, 4))
    target = rng.uniform(size=(6, 4))
    options = {"reduction": reduction}
    weight = rng.uniform(size=4) if name in ("smooth", "weighted") else None
    if name in ("CrossEntropyLoss", "smooth"):
        target = np.array([0, 3, 1, -7, 2, 2])
        options |= {"ignore_index": -7, "label_smoothing": 0.1 if name == "smooth" else 0.0}
        name = "CrossEntropyLoss"
    elif name in ("NLLLoss", "weighted"):
        target = np.array([0, 3, 1, -7, 2, 2])
        options |= {"ignore_index": -7}
        name = "NLLLoss"
    elif name == "beta":
        options |= {"beta": 0.3}
        name = "SmoothL1Loss"
    elif name in ("log", "batchmean"):
        options |= {"log_target": True} if name == "log" else {"reduction": "batchmean"}
        name = "KLDivLoss"
    tx = torch.from_numpy(x).requires_grad_()
    px = pynn.Tensor(x, requires_grad=True)
    their_options = options if weight is None else {**options, "weight": torch.from_numpy(weight)}
    theirs = getattr(torch.nn, name)(**their_options)
    ours = getattr(nn, name)(**(options if weight is None else {**options, "weight": weight}))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ty, py = theirs(tx, torch.from_numpy(target)), ours(px, target)
    dy = rng.normal(size=ty.shape)
    ty.backward(torch.from_numpy(np.asarray(dy)))
    py.backward(dy)
    np.testing.assert_allclose(py.numpy(), ty.detach().numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(px.grad, tx.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_hinge_loss(rng):
    x, target = rng.normal(size=(5, 3)), rng.choice([-1.0, 1.0], size=(5, 3))
    expected = np.maximum(0, 1 - target * x)
    np.testing.assert_allclose(nn.HingeLoss()(x, target).numpy(), expected.mean(), rtol=1e-12)
    np.testing.assert_allclose(nn.HingeLoss("none")(x, target).numpy(), expected, rtol=1e-12)


# -- modes and buffers -------------------------------------------------------------------------------------------------


def test_batch_norm_counts_training_batches_only():
    norm = nn.BatchNorm1d(2)
    x = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    norm(x)
    norm.eval()(x)
    assert norm.num_batches_tracked == 1
    np.testing.assert_allclose(norm.running_mean, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * 2, rtol=1e-6)  # the unbiased variance is 2


def test_dropout_only_in_training():
    pynn.seed(3)
    x = np.ones(10_000, np.float32)
    layer = nn.Dropout(0.25)
    y = layer(x).numpy()
    assert set(y.tolist()) == {0.0, float(np.float32(1 / 0.75))}
    assert abs((y == 0).mean() - 0.25) < 6 * math.sqrt(0.25 * 0.75 / 10_000)
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x)


BAD = {
    "linear size": (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features is 0, needs at least 1"),
    "linear type": (lambda: nn.Linear(2.5, 3), TypeError, "Linear: in_features is 2.5, needs an integer"),
    "conv1d groups": (lambda: nn.Conv1d(3, 4, 3, groups=2), ValueError, "3 -> 4 channels do not divide into 2 groups"),
    "conv1d kernel": (lambda: nn.Conv1d(3, 4, 0), ValueError, "Conv1d: kernel_size is 0, needs at least 1"),
    "conv1d stride": (lambda: nn.Conv1d(3, 4, 3, stride=1.5), TypeError, "Conv1d: stride is 1.5, needs an integer"),
    "conv1d padding": (lambda: nn.Conv1d(3, 4, 3, padding="full"), ValueError, "Conv1d: padding is 'full'"),
    "conv2d groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "3 -> 4 channels do not divide into 2 groups"),
    "conv2d kernel": (lambda: nn.Conv2d(3, 4, (3, 0)), ValueError, "Conv2d: kernel_size is .3, 0., needs at least 1"),
    "conv2d stride": (lambda: nn.Conv2d(3, 4, 3, stride=1.5), TypeError, "Conv2d: stride must be an integer or a pair"),
    "conv2d stride 0": (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, r"Conv2d: stride is \[0, 0\]"),
    "conv2d padding": (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, "Conv2d: padding is 'full'"),
    "max_pool2d": (lambda: nn.MaxPool2d("2"), TypeError, "MaxPool2d: kernel_size must be an integer or a pair"),
    "avg_pool2d": (lambda: nn.AvgPool2d((2, 0)), ValueError, r"AvgPool2d: kernel_size is \[2, 0\], needs at least 1"),
    "embedding": (lambda: nn.Embedding(3, -1), ValueError, "Embedding: embedding_dim is -1"),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, "Dropout: p is 1.5"),
    "dropout type": (lambda: nn.Dropout("0.5"), TypeError, "Dropout: p must be a number"),
    "leaky_relu": (lambda: nn.LeakyReLU(None), TypeError, "LeakyReLU: negative_slope must be a number"),
    "gelu": (lambda: nn.GELU("erf"), ValueError, "GELU: approximate is 'erf'"),
    "elu": (lambda: nn.ELU("1"), TypeError, "ELU: alpha must be a number"),
    "softplus": (lambda: nn.Softplus(0), ValueError, "Softplus: beta is 0"),
    "conv_transpose2d groups": (
        lambda: nn.ConvTranspose2d(3, 4, 3, groups=2),
        ValueError,
        "ConvTranspose2d: 3 -> 4 channels do not divide into 2 groups",
    ),
    "conv_transpose2d kernel": (lambda: nn.ConvTranspose2d(3, 4, 0), ValueError, r"ConvTranspose2d: kernel_size is \["),
    "group_norm groups": (lambda: nn.GroupNorm(4, 6), ValueError, "GroupNorm: 6 channels do not divide into 4 groups"),
    "group_norm type": (lambda: nn.GroupNorm(2.0, 6), TypeError, "GroupNorm: num_groups is 2.0, needs an integer"),
    "group_norm input": (
        lambda: nn.GroupNorm(2, 6)(np.zeros((2, 4), np.float32)),
        ValueError,
        r"GroupNorm: input \[2, 4\], needs \[N, 6, ...\]",
    ),
    "unflatten": (lambda: nn.Unflatten(1, ()), ValueError, r"Unflatten: unflattened_size is \[\]"),
    "unflatten type": (lambda: nn.Unflatten(1, (2.5,)), TypeError, "Unflatten: unflattened_size must be an integer"),
    "unflatten size": (lambda: nn.Unflatten(1, (2, 2))(np.zeros((2, 5), np.float32)), ValueError, "reshape"),
    "unflatten axis": (lambda: nn.Unflatten(3, (2, 2))(np.zeros((2, 4), np.float32)), ValueError, "Unflatten: axis 3"),
    "smooth_l1": (lambda: nn.SmoothL1Loss(beta=-1), ValueError, "SmoothL1Loss: beta is -1"),
    "kl_div": (lambda: nn.KLDivLoss("avg"), ValueError, "KLDivLoss: reduction is 'avg'"),
    "nll": (lambda: nn.NLLLoss(reduction="batchmean"), ValueError, "NLLLoss: reduction is 'batchmean'"),
    "batch_norm": (lambda: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: num_features is 0"),
    "batch_norm type": (lambda: nn.BatchNorm1d(2.5), TypeError, "BatchNorm1d: num_features is 2.5, needs an integer"),
    "layer_norm type": (lambda: nn.LayerNorm([3, 2.5]), TypeError, "LayerNorm: normalized_shape is 2.5"),
    "layer_norm": (lambda: nn.LayerNorm(()), ValueError, r"LayerNorm: normalized_shape is \[\]"),
    "reduction": (lambda: nn.MSELoss("avg"), ValueError, "MSELoss: reduction is 'avg'"),
    "smoothing": (lambda: nn.CrossEntropyLoss(label_smoothing=2), ValueError, "label_smoothing is 2"),
    "batch_norm1d axes": (
        lambda: nn.BatchNorm1d(3)(np.zeros((2, 3, 4, 5), np.float32)),
        ValueError,
        r"BatchNorm1d: input \[2, 3, 4, 5\], needs 2 or 3 axes and 3 channels",
    ),
    "batch_norm2d channels": (
        lambda: nn.BatchNorm2d(3)(np.zeros((2, 4, 5, 5), np.float32)),
        ValueError,
        r"BatchNorm2d: input \[2, 4, 5, 5\], needs 4 axes and 3 channels",
    ),
    "batch_norm one value": (
        lambda: nn.BatchNorm1d(3)(np.zeros((1, 3), np.float32)),
        ValueError,
        r"input \[1, 3\], training needs two values per channel",
    ),
    "linear input": (lambda: nn.Linear(3, 2)(np.zeros((4, 5), np.float32)), ValueError, r"\[4, 5\]"),
    "conv2d input": (lambda: nn.Conv2d(1, 2, 3)(np.zeros((4, 3, 8, 8), np.float32)), ValueError, r"\[4, 3, 8, 8\]"),
    "dtype": (lambda: nn.Linear(3, 2)(np.zeros((4, 3))), TypeError, "float64"),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- initialisers ------------------------------------------------------------------------------------------------------

N = 200 * 50 * 2 * 2  # values of the weight below


@pytest.fixture
def weight():
    pynn.seed(5)
    return nn.Parameter(np.empty((200, 50, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (lambda w: nn.init.normal_(w, 0.0, 0.3), 0.3),
        (lambda w: nn.init.uniform_(w, -2.0, 2.0), 2 / math.sqrt(3)),
        (nn.init.xavier_uniform_, math.sqrt(2 / (200 + 800))),
        (lambda w: nn.init.xavier_normal_(w, 2.0), 2 * math.sqrt(2 / (200 + 800))),
        (nn.init.kaiming_uniform_, math.sqrt(2 / 200)),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="tanh"), 5 / 3 / math.sqrt(800)),
        (lambda w: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), 1 / math.sqrt(3 * 200)),
        # The variance of N(0, 1) within ±2 is 1 - 4 φ(2) / (2 Φ(2) - 1).
        (nn.init.trunc_normal_, math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))),
    ],
)
def test_moments_of_initialisers(weight, fill, std):
    assert fill(weight) is weight
    # Standard errors: std/√N of the mean and at most std/√(2N) of the standard deviation; 6 of them are one in 10⁹.
    assert abs(weight.data.mean(dtype=np.float64)) < 6 * std / math.sqrt(N)
    assert abs(weight.data.std(dtype=np.float64) / std - 1) < 6 / math.sqrt(2 * N)


def test_initialisers_with_bounds(weight):
    assert abs(nn.init.trunc_normal_(weight, 1.0, 2.0, 0.5, 1.5).data - 1).max() <= 0.5
    assert abs(nn.init.xavier_uniform_(weight).data).max() <= np.float32(math.sqrt(6 / 1000))
    assert (nn.init.ones_(weight).data == 1).all()
    assert (nn.init.zeros_(weight).data == 0).all()
    assert (nn.init.constant_(weight, 0.5).data == 0.5).all()


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (3, 2, 2, 2)])
def test_orthogonal(shape):
    pynn.seed(1)
    w = nn.init.orthogonal_(nn.Parameter(np.empty(shape)), gain=2.0).data.reshape(shape[0], -1) / 2
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-14)


def test_orthogonal_has_both_signs():
    pynn.seed(1)
    signs = {float(np.sign(nn.init.orthogonal_(nn.Parameter(np.empty((1, 1)))).item())) for _ in range(40)}
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("layer", [nn.Linear(64, 100), nn.Conv2d(16, 100, 2)], ids=["linear", "conv2d"])
def test_default_init_is_pytorchs(layer):
    pynn.seed(2)
    layer.reset_parameters()
    for p in layer.parameters():
        assert 0.9 / 8 < abs(p.data).max() <= np.float32(1 / 8)  # U(-1/√64, 1/√64)


def test_seed_gives_the_same_model():
    states = []
    for _ in range(2):
        pynn.seed(9)
        states.append(mlp().state_dict())
    assert all((states[0][name] == states[1][name]).all() for name in states[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: nn.init.uniform_(w, 1, 0), "uniform_: needs a <= b, got 1 and 0"),
        (lambda w: nn.init.normal_(w, 0, -1), "normal_: std is -1"),
        (lambda w: nn.init.trunc_normal_(w, 0, 1, 5, 6), "trunc_normal_"),
        (lambda w: nn.init.trunc_normal_(w, 0, 0), "trunc_normal_"),
        (lambda w: nn.init.kaiming_normal_(w, mode="in"), "kaiming_normal_: mode is 'in'"),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="swish"), "nonlinearity is 'swish'"),
        (lambda w: nn.init.xavier_normal_(nn.Parameter([1.0])), r"xavier_normal_: tensor \[1\], needs 2 axes"),
        (lambda w: nn.init.orthogonal_(nn.Parameter([1.0])), r"orthogonal_: tensor \[1\], needs 2 axes"),
    ],
)
def test_bad_initialisers(weight, call, message):
    with pytest.raises(ValueError, match=message):
        call(weight)


def test_initialiser_counts_as_a_write():
    w = nn.Parameter([[2.0]])
    y = (w * w).sum()
    nn.init.ones_(w)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


# -- summary -----------------------------------------------------------------------------------------------------------


def test_summary_of_lenet():
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5, groups=2)),
        *(nn.Flatten(), nn.Sequential(nn.Linear(1600, 10), nn.ReLU())),
    )
    model[2].eval()
    before = model.state_dict()
    result = model.summary((1, 28, 28))
    assert [layer.name for layer in result.layers] == ["0", "1", "2", "3", "4", "5", "6.0", "6.1"]
    assert [layer.output_shape for layer in result.layers][4:6] == [(1, 16, 10, 10), (1, 1600)]
    assert [layer.parameters for layer in result.layers] == [156, 12, 0, 0, 1216, 0, 16010, 0]
    assert [layer.multiply_adds for layer in result.layers if layer.multiply_adds] == [117_600, 120_000, 16_000]
    assert result.parameters == 156 + 12 + 1216 + 16010
    assert result.multiply_adds == 117_600 + 120_000 + 16_000
    assert [module.training for module in model.modules()] == [True, True, True, False, *[True] * 6]
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    lines = str(result).splitlines()
    assert lines[2].split() == ["0", "Conv2d", "[N,", "6,", "28,", "28]", "156", "117,600"]
    assert lines[-1].split() == ["total", "17,394", "253,600"]
    assert len({len(line) for line in lines}) == 1


def test_summary_of_shared_and_integer_models():
    assert nn.summary(nn.Conv1d(2, 4, 3), (2, 10)).multiply_adds == 4 * 8 * 2 * 3
    result = nn.summary(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), (6,), dtype=np.int64)
    assert (result.parameters, result.multiply_adds) == (50, 6 * 4 * 2)
    tied = nn.summary(Tied().astype(np.float64), (3,))
    assert tied.parameters == 9 + 3 + 3


def test_summary_counts_recurrent_layers_and_attention():
    lstm = nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True)
    row = nn.summary(lstm, (7, 5)).layers[0]
    assert row.output_shape == (1, 7, 8)
    assert row.multiply_adds == 7 * 2 * 4 * 4 * ((5 + 4) + (8 + 4))
    of_letters = nn.summary(lstm, (7,), dtype=np.int64)  # the columns that letters choose are not multiplied
    assert of_letters.multiply_adds == 7 * 2 * 4 * 4 * (4 + (8 + 4))
    assert nn.summary(nn.GRU(5, 4, batch_first=True), (7, 5)).multiply_adds == 7 * 3 * 4 * (5 + 4)
    assert nn.summary(nn.RNNCell(5, 4), 5).multiply_adds == 4 * (5 + 4)
    assert nn.summary(nn.ConvTranspose2d(2, 3, 4), (2, 5, 5)).multiply_adds == 2 * 5 * 5 * 3 * 4 * 4
    block = nn.summary(nn.TransformerEncoderLayer(8, 2, 32, batch_first=True), (6, 8))
    attention = next(layer for layer in block.layers if layer.type == "MultiheadAttention")
    assert attention.output_shape == (1, 6, 8)
    assert attention.multiply_adds == 3 * 6 * 8 * 8 + 2 * 6 * 6 * 8  # out_proj has a line of its own
    assert block.multiply_adds == attention.multiply_adds + 6 * 8 * 8 + 2 * 6 * 8 * 32
    assert nn.summary(nn.MultiheadAttention(8, 2), (6, 8)).multiply_adds == 6 * 4 * 8 * 8 + 2 * 6 * 8


def test_summary_of_vectors():
    model = nn.Sequential(nn.Linear(3, 2))
    assert model.summary(3) == model.summary((3,))


def test_summary_restores_the_model_after_an_error():
    model = mlp()
    with pytest.raises(ValueError, match="linear"):
        nn.summary(model, (7,))
    assert all(module.training and not module._forward_hooks for module in model.modules())
