"""Layers and losses against PyTorch, their modes, and what they refuse."""

import inspect
import math

import numpy as np
import pytest

import pynn
from pynn import nn

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


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
    "batch_norm1d average": (lambda n: n.BatchNorm1d(3, momentum=None), (5, 3)),
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
def test_arguments_come_in_pytorchs_order():
    for name in nn.__all__:
        if isinstance(getattr(nn, name), type) and hasattr(torch.nn, name):
            ours, theirs = (list(inspect.signature(getattr(library, name)).parameters) for library in (nn, torch.nn))
            assert [a for a in ours if a in theirs] == [a for a in theirs if a in ours], name


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


def test_without_momentum_batch_norm_averages_over_all_batches(rng):
    norm = nn.BatchNorm1d(2, momentum=None)
    batches = rng.normal(size=(3, 4, 2)).astype(np.float32)
    for x in batches:
        norm(x)
    norm.eval()(batches[0])
    np.testing.assert_allclose(norm.running_mean, batches.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var, batches.var(axis=1, ddof=1).mean(0), rtol=1e-4)
    with pytest.raises(pynn.CaptureError, match="BatchNorm1d with momentum=None averages over all batches"):
        pynn.capture(norm.train())(batches[0])


FLAG = np.array([True, False])
FLAGS = {
    "Linear: bias": lambda: nn.Linear(2, 2, bias=FLAG),
    "Conv1d: bias": lambda: nn.Conv1d(1, 1, 1, bias=FLAG),
    "Conv2d: bias": lambda: nn.Conv2d(1, 1, 1, bias=FLAG),
    "ConvTranspose2d: bias": lambda: nn.ConvTranspose2d(1, 1, 1, bias=FLAG),
    "BatchNorm1d: affine": lambda: nn.BatchNorm1d(2, affine=FLAG),
    "BatchNorm2d: track_running_stats": lambda: nn.BatchNorm2d(2, track_running_stats=FLAG),
    "LayerNorm: elementwise_affine": lambda: nn.LayerNorm(2, elementwise_affine=FLAG),
    "LayerNorm: bias": lambda: nn.LayerNorm(2, bias=FLAG),
    "GroupNorm: affine": lambda: nn.GroupNorm(1, 2, affine=FLAG),
    "LSTMCell: bias": lambda: nn.LSTMCell(2, 2, bias=FLAG),
    "LSTM: bias": lambda: nn.LSTM(2, 2, bias=FLAG),
    "GRU: batch_first": lambda: nn.GRU(2, 2, batch_first=FLAG),
    "RNN: bidirectional": lambda: nn.RNN(2, 2, bidirectional=FLAG),
    "MultiheadAttention: bias": lambda: nn.MultiheadAttention(2, 1, bias=FLAG),
    "MultiheadAttention: batch_first": lambda: nn.MultiheadAttention(2, 1, batch_first=FLAG),
    "TransformerEncoderLayer: norm_first": lambda: nn.TransformerEncoderLayer(2, 1, 2, norm_first=FLAG),
    "Upsample: align_corners": lambda: nn.Upsample(2, mode="bilinear", align_corners=FLAG),
    "Parameter: requires_grad": lambda: nn.Parameter([1.0], requires_grad=FLAG),
    "requires_grad: requires_grad": lambda: pynn.tensor([1.0], requires_grad=FLAG),
    "train: mode": lambda: nn.Linear(1, 1).train(FLAG),
    "zero_grad: set_to_none": lambda: nn.Linear(1, 1).zero_grad(FLAG),
    "load_state_dict: strict": lambda: nn.Linear(1, 1).load_state_dict({}, strict=FLAG),
    "backward: retain_graph": lambda: pynn.tensor([1.0], requires_grad=True).sum().backward(retain_graph=FLAG),
    "SGD: nesterov": lambda: pynn.optim.SGD([nn.Parameter([1.0])], lr=0.1, momentum=0.9, nesterov=FLAG),
    "RMSprop: centered": lambda: pynn.optim.RMSprop([nn.Parameter([1.0])], centered=FLAG),
    "Muon: nesterov": lambda: pynn.optim.Muon([nn.Parameter([[1.0]])], nesterov=FLAG),
    "DataLoader: shuffle": lambda: pynn.data.DataLoader(np.zeros((4, 1), np.float32), shuffle=FLAG),
    "DataLoader: drop_last": lambda: pynn.data.DataLoader(np.zeros((4, 1), np.float32), drop_last=FLAG),
}


@pytest.mark.parametrize(("named", "call"), FLAGS.items(), ids=FLAGS)
def test_an_array_as_a_flag_is_named(named, call):
    with pytest.raises(TypeError, match=rf"^{named} must be True or False, got array"):
        call()


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
    "linear int64": (lambda: nn.Linear(2**70, 3), ValueError, r"^Linear: in_features \[\d+\] has more elements than"),
    "linear memory": (lambda: nn.Linear(2**40, 2**40), ValueError, r"^Linear: weight \[\d+, \d+\] has more elements"),
    "batch_norm eps": (lambda: nn.BatchNorm2d(3, eps=-1), ValueError, "^BatchNorm2d: eps is -1, needs a finite number"),
    "batch_norm momentum": (lambda: nn.BatchNorm1d(3, momentum="x"), TypeError, "^BatchNorm1d: momentum is 'x', needs"),
    "layer_norm eps": (lambda: nn.LayerNorm(3, eps="1"), TypeError, "^LayerNorm: eps is '1', needs a number"),
    "group_norm eps": (lambda: nn.GroupNorm(1, 3, eps=math.nan), ValueError, "^GroupNorm: eps is nan, needs a finite"),
    "lstm state": (
        lambda: nn.LSTM(3, 2)(np.ones((4, 1, 3), "f4"), np.ones((1, 1, 2), "f4")),
        TypeError,
        r"^LSTM: state must be a pair \(h, c\) or None, got Tensor",
    ),
    "linear type": (lambda: nn.Linear(2.5, 3), TypeError, "Linear: in_features is 2.5, needs an integer"),
    "conv1d groups": (lambda: nn.Conv1d(3, 4, 3, groups=2), ValueError, "3 -> 4 channels do not divide into 2 groups"),
    "conv1d kernel": (lambda: nn.Conv1d(3, 4, 0), ValueError, "Conv1d: kernel_size is 0, needs at least 1"),
    "conv1d stride": (lambda: nn.Conv1d(3, 4, 3, stride=1.5), TypeError, "Conv1d: stride is 1.5, needs an integer"),
    "conv1d padding": (lambda: nn.Conv1d(3, 4, 3, padding="full"), ValueError, "Conv1d: padding is 'full'"),
    "conv2d groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "3 -> 4 channels do not divide into 2 groups"),
    "conv2d kernel": (lambda: nn.Conv2d(3, 4, (3, 0)), ValueError, "Conv2d: kernel_size is .3, 0., needs at least 1"),
    "conv2d stride": (
        lambda: nn.Conv2d(3, 4, 3, stride=1.5),
        TypeError,
        "Conv2d: stride is .*, needs an integer or a pair",
    ),
    "conv2d stride 0": (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, r"Conv2d: stride is \[0, 0\]"),
    "conv2d padding": (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, "Conv2d: padding is 'full'"),
    "conv1d padding -1": (lambda: nn.Conv1d(1, 6, 5, padding=-1), ValueError, "^Conv1d: padding is -1, needs"),
    "conv2d padding -1": (
        lambda: nn.Conv2d(1, 6, 5, padding=-1),
        ValueError,
        r"^Conv2d: padding is \[-1, -1\], needs at",
    ),
    "conv_transpose2d padding": (
        lambda: nn.ConvTranspose2d(1, 6, 5, padding=(0, -1)),
        ValueError,
        r"^ConvTranspose2d: padding is \[0, -1\], needs at least 0$",
    ),
    "conv_transpose2d output_padding": (
        lambda: nn.ConvTranspose2d(1, 6, 5, 2, output_padding=-1),
        ValueError,
        r"^ConvTranspose2d: output_padding is \[-1, -1\], needs at least 0$",
    ),
    "max_pool2d padding": (
        lambda: nn.MaxPool2d(2, padding=-1),
        ValueError,
        r"^MaxPool2d: padding is \[-1, -1\], needs",
    ),
    "avg_pool2d padding": (
        lambda: nn.AvgPool2d(2, padding=-1),
        ValueError,
        r"^AvgPool2d: padding is \[-1, -1\], needs",
    ),
    "max_pool2d": (lambda: nn.MaxPool2d("2"), TypeError, "MaxPool2d: kernel_size is .*, needs an integer or a pair"),
    "avg_pool2d": (lambda: nn.AvgPool2d((2, 0)), ValueError, r"AvgPool2d: kernel_size is \[2, 0\], needs at least 1"),
    "embedding": (lambda: nn.Embedding(3, -1), ValueError, "Embedding: embedding_dim is -1"),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, "Dropout: p is 1.5"),
    "dropout type": (lambda: nn.Dropout("0.5"), TypeError, "Dropout: p is .*, needs a number"),
    "leaky_relu": (lambda: nn.LeakyReLU(None), TypeError, "LeakyReLU: negative_slope is .*, needs a number"),
    "gelu": (lambda: nn.GELU("erf"), ValueError, "GELU: approximate is 'erf'"),
    "elu": (lambda: nn.ELU("1"), TypeError, "ELU: alpha is .*, needs a number"),
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
    "attention axes": (
        lambda: nn.MultiheadAttention(6, 2)(*(np.ones(shape, np.float32) for shape in ((1, 4, 6), (4, 6), (4, 6)))),
        ValueError,
        r"^MultiheadAttention: query \[1, 4, 6\], key \[4, 6\] and value \[4, 6\] do not fit",
    ),
    "attention batches": (
        lambda: nn.MultiheadAttention(6, 2)(*(np.ones((5, n, 6), np.float32) for n in (2, 3, 3))),
        ValueError,
        r"^MultiheadAttention: query \[5, 2, 6\], key \[5, 3, 6\] and value",
    ),
    "unflatten": (lambda: nn.Unflatten(1, ()), ValueError, r"Unflatten: unflattened_size is \[\]"),
    "unflatten type": (
        lambda: nn.Unflatten(1, (2.5,)),
        TypeError,
        "unflattened_size is 2.5, needs an integer",
    ),
    "unflatten number": (
        lambda: nn.Unflatten(1, 6),
        TypeError,
        "unflattened_size is 6, needs several integers",
    ),
    "unflatten size": (lambda: nn.Unflatten(1, (2, 2))(np.zeros((2, 5), np.float32)), ValueError, "reshape"),
    "unflatten axis": (lambda: nn.Unflatten(3, (2, 2))(np.zeros((2, 4), np.float32)), ValueError, "Unflatten: axis 3"),
    "smooth_l1": (lambda: nn.SmoothL1Loss(beta=-1), ValueError, "SmoothL1Loss: beta is -1"),
    "smooth_l1 type": (lambda: nn.SmoothL1Loss(beta="1"), TypeError, "SmoothL1Loss: beta is '1', needs a number"),
    "kl_div": (lambda: nn.KLDivLoss("avg"), ValueError, "KLDivLoss: reduction is 'avg'"),
    "nll": (lambda: nn.NLLLoss(reduction="batchmean"), ValueError, "NLLLoss: reduction is 'batchmean'"),
    "batch_norm": (lambda: nn.BatchNorm2d(0), ValueError, "BatchNorm2d: num_features is 0"),
    "batch_norm type": (lambda: nn.BatchNorm1d(2.5), TypeError, "BatchNorm1d: num_features is 2.5, needs an integer"),
    "layer_norm type": (lambda: nn.LayerNorm([3, 2.5]), TypeError, "LayerNorm: normalized_shape is 2.5"),
    "layer_norm": (lambda: nn.LayerNorm(()), ValueError, r"LayerNorm: normalized_shape is \[\]"),
    "reduction is a weight": (
        lambda: nn.BCEWithLogitsLoss(np.ones(2)),
        ValueError,
        "BCEWithLogitsLoss: reduction is a",
    ),
    "reduction": (lambda: nn.MSELoss("avg"), ValueError, "MSELoss: reduction is 'avg'"),
    "smoothing": (lambda: nn.CrossEntropyLoss(label_smoothing=2), ValueError, "label_smoothing is 2"),
    "smoothing type": (lambda: nn.CrossEntropyLoss(label_smoothing="1"), TypeError, "label_smoothing is '1', needs"),
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
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


TAKES_LISTS = {
    "linear": (lambda: nn.Linear(4, 2), (3, 4)),
    "flatten": (nn.Flatten, (3, 2, 2)),
    "unflatten": (lambda: nn.Unflatten(1, (2, 2)), (3, 4)),
    "batch_norm": (lambda: nn.BatchNorm1d(4), (3, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (3, 4)),
    "lstm": (lambda: nn.LSTM(4, 2), (3, 4)),
    "attention": (lambda: nn.MultiheadAttention(4, 2), (3, 4)),
}


@pytest.mark.parametrize(("make", "shape"), TAKES_LISTS.values(), ids=TAKES_LISTS)
def test_lists_are_taken_as_arrays_are_and_what_is_none_is_refused(rng, make, shape):
    layer, x = make(), rng.normal(size=shape).astype(np.float32)
    of_list, of_array = layer(x.tolist()), layer(x)
    first = of_list if isinstance(of_list, pynn.Tensor) else of_list[0]
    np.testing.assert_array_equal(first.numpy(), (of_array if first is of_list else of_array[0]).numpy())
    with pytest.raises(TypeError, match=r"^Tensor: needs float32, float64, integers or bool, got NoneType"):
        layer(None)


WEIGHTED = {
    "linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "conv1d": (lambda: nn.Conv1d(3, 2, 1), (4, 3, 5)),
    "conv2d": (lambda: nn.Conv2d(3, 2, 1), (4, 3, 5, 5)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 2, 1), (4, 3, 5, 5)),
    "batch_norm": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "batch_norm, running": (lambda: nn.BatchNorm1d(3, affine=False).eval(), (4, 3)),
    "layer_norm": (lambda: nn.LayerNorm(3), (4, 3)),
    "group_norm": (lambda: nn.GroupNorm(1, 3), (4, 3)),
    "rnn": (lambda: nn.RNN(3, 2), (5, 4, 3)),
    "lstm": (lambda: nn.LSTM(3, 2), (5, 4, 3)),
    "gru_cell": (lambda: nn.GRUCell(3, 2), (4, 3)),
}


@pytest.mark.parametrize(("given", "own"), [("float64", "float32"), ("float32", "float64")])
@pytest.mark.parametrize(("name", "make", "shape"), [(name, *case) for name, case in WEIGHTED.items()], ids=WEIGHTED)
def test_input_of_another_dtype_is_the_one_to_convert(name, make, shape, given, own):
    op = name.partition(",")[0]
    message = rf"^{op}: input is {given}, (weight|running_mean) is {own}; convert the input with \.astype\(np\.{own}\)"
    if op in ("rnn", "lstm", "gru_cell"):
        message = f"^{op}: x is {given}, needs {own} as weight_ih is; convert one of them"
    with pytest.raises(TypeError, match=message):
        make().astype(own)(np.ones(shape, given))
