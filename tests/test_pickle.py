"""Copies and pickles of models, optimisers and captured functions, also for a process that is spawned."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import nn, optim


def pickled(x):
    return pickle.loads(pickle.dumps(x))


OPTIMIZERS = {
    "sgd": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: optim.Adam(params, lr=0.01),
    "rmsprop": lambda params: optim.RMSprop(params, lr=0.01, momentum=0.5),
    "adagrad": lambda params: optim.Adagrad(params, lr=0.1),
    "adadelta": lambda params: optim.Adadelta(params),
    "muon": lambda params: optim.Muon([p for p in params if p.ndim == 2], lr=0.01),
}
X = np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)


def network():
    pynn.seed(3)
    return nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))


def train(model, optimizer, steps=3):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(X) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copied_training_goes_on_with_the_same_bits(name, duplicate):
    model = network()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    train(model, optimizer)
    other, its_optimizer = duplicate((model, optimizer))
    mine = {id(p) for p in other.parameters()}
    assert all(id(p) in mine for group in its_optimizer.param_groups for p in group["params"])
    losses = train(model, optimizer)
    assert train(other, its_optimizer) == losses
    state = other.state_dict()
    assert all(np.array_equal(array, state[name]) for name, array in model.state_dict().items())


def test_shared_parameters_stay_shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    other = pickled(model)
    assert other[1].weight is other[0].weight
    assert other[1].weight is not model[0].weight


LAYERS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), (2, 1, 8, 8)),
    "lstm": (lambda: nn.LSTM(5, 3), (4, 2, 5)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (2, 4, 8)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)), (2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_copied_layers_compute_the_same(name):
    make, shape = LAYERS[name]
    layer = make().eval()
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    def outputs(layer):
        y = layer(x)
        return (y[0] if isinstance(y, tuple) else y).data

    assert not pickled(layer).training
    for other in (pickled(layer), copy.deepcopy(layer)):
        assert np.array_equal(outputs(other), outputs(layer))


def note(module, args, y):
    seen.append(y.shape)


seen: list[tuple[int, ...]] = []


def test_hooks_go_along_or_refuse_by_name():
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(note)
    seen.clear()
    pickled(layer)(np.ones((1, 3), np.float32))
    assert seen == [(1, 2)]
    layer.register_forward_hook(lambda *args: None)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(layer)
    assert len(copy.deepcopy(layer)._forward_hooks) == 2


@pynn.capture
def doubled(x):
    return x * 2


def test_captured_functions():
    x = np.ones((2, 8), np.float32)
    doubled(x)
    assert pickled(doubled) is doubled, "by name, as functions are"
    assert copy.deepcopy(doubled) is doubled
    model = network().eval()
    predict = pynn.capture(model)
    y = predict(x)
    for other in (pickled(predict), copy.deepcopy(predict)):
        assert other.function is not model
        assert np.array_equal(other(x).data, y.data)
        next(other.function.parameters()).data[...] = 0
    assert np.array_equal(predict(x).data, y.data)

    @pynn.capture
    def inner(x):
        return x

    with pytest.raises((pickle.PicklingError, AttributeError), match="inner"):
        pickle.dumps(inner)


def test_a_copy_inside_of_a_captured_function_is_refused_at_the_line_of_the_user():
    def copies(x):
        return copy.deepcopy(x * 2)

    with pytest.raises(pynn.CaptureError, match=r"is read, at .*test_pickle\.py"):
        pynn.capture(copies)(np.ones(2, np.float32))


def in_the_child(model, optimizer, predict, connection):
    try:
        connection.send((train(model, optimizer), predict(X).data, pynn.__file__))
    finally:
        connection.close()


def test_a_spawned_process_trains_on():
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=in_the_child, args=(model, optimizer, pynn.capture(network().eval()), theirs))
    process.start()
    theirs.close()
    losses, outputs, path = ours.recv()
    process.join()
    assert process.exitcode == 0
    assert path == pynn.__file__
    assert losses == train(model, optimizer)
    assert np.array_equal(outputs, network().eval()(X).data)


def test_gradients_go_along():
    model = network()
    F.cross_entropy(model(X), np.array([0, 1, 0, 1])).backward()
    other = pickled(model)
    assert all(np.array_equal(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True))
