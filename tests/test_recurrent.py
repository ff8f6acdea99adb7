"""Recurrent modules: PyTorch's outputs, gradients and keys; states, dropout, layouts of sequences, refusals."""

import gc

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import nn

LAYERS = [nn.RNN, nn.LSTM, nn.GRU]
CELLS = [nn.RNNCell, nn.LSTMCell, nn.GRUCell]
LAYER = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
CELL = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)

# A sum of a hundred products of numbers around 1 loses about this much in float64; all steps of a sequence a few times.
TOLERANCE = 1e-12


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def flat(state):
    return list(state) if isinstance(state, tuple) else [state]


def like(module, states):
    """Return the states as the module takes them."""
    return tuple(states) if isinstance(module, nn.LSTM | nn.LSTMCell) else states[0]


def states_of(module, rng, *shape):
    count = 2 if isinstance(module, nn.LSTM | nn.LSTMCell) else 1
    return [rng.normal(size=shape) for _ in range(count)]


# -- against PyTorch ---------------------------------------------------------------------------------------------------


def twins(ours, theirs):
    """Return a float64 module of each, with the same weights; the keys must be the same."""
    torch = pytest.importorskip("torch")
    theirs = theirs.double()
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.astype(np.float64).load_state_dict(state)
    return torch, ours, theirs


def assert_same(ours, theirs, what):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


OPTIONS = [
    {},
    {"num_layers": 3, "batch_first": True},
    {"bias": False, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("options", [*OPTIONS, {"nonlinearity": "relu"}], ids=str)
@LAYER
def test_layers_against_torch(rng, layer, options, with_state):
    torch = pytest.importorskip("torch")
    if "nonlinearity" in options and layer is not nn.RNN:
        pytest.skip("only RNN has a nonlinearity to choose")
    torch.manual_seed(3)
    ours, theirs = layer(5, 7, **options), getattr(torch.nn, layer.__name__)(5, 7, **options)
    torch, ours, theirs = twins(ours, theirs)
    states = states_of(ours, rng, options.get("num_layers", 1) * (1 + options.get("bidirectional", False)), 3, 7)
    arrays = [rng.normal(size=(4, 3, 5) if not options.get("batch_first") else (3, 4, 5)), *states]
    mine = [pynn.Tensor(a, requires_grad=True) for a in arrays]
    torchs = [torch.tensor(a, requires_grad=True) for a in arrays]

    y, state = ours(mine[0], like(ours, mine[1:]) if with_state else None)
    torch_y, torch_state = theirs(torchs[0], like(ours, torchs[1:]) if with_state else None)
    assert_same(y.data, torch_y, "output")
    for a, b in zip(flat(state), flat(torch_state), strict=True):
        assert_same(a.data, b, "state")

    outputs, torch_outputs = [y, *flat(state)], [torch_y, *flat(torch_state)]
    weights = [rng.normal(size=a.shape) for a in outputs]
    F.sum(F.concatenate([F.reshape(a * w, -1) for a, w in zip(outputs, weights, strict=True)])).backward()
    sum((a * torch.tensor(w)).sum() for a, w in zip(torch_outputs, weights, strict=True)).backward()
    for a, b in zip(mine[: 3 if with_state else 1], torchs, strict=False):
        assert_same(a.grad, b.grad, "gradient of an input")
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_same(a.grad, b.grad, name)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"nonlinearity": "relu"}], ids=str)
@CELL
def test_cells_against_torch(rng, cell, options):
    torch = pytest.importorskip("torch")
    if "nonlinearity" in options and cell is not nn.RNNCell:
        pytest.skip("only RNNCell has a nonlinearity to choose")
    torch.manual_seed(3)
    torch, ours, theirs = twins(cell(5, 7, **options), getattr(torch.nn, cell.__name__)(5, 7, **options))
    x, states = rng.normal(size=(3, 5)), states_of(ours, rng, 3, 7)
    state = torch_state = None
    for given in (None, states):
        if given is not None:
            state, torch_state = like(ours, given), like(ours, [torch.tensor(s) for s in given])
        state, torch_state = ours(x, state), theirs(torch.tensor(x), torch_state)
        for a, b in zip(flat(state), flat(torch_state), strict=True):
            assert_same(a.data, b, "state")
    F.sum(flat(state)[-1]).backward()
    flat(torch_state)[-1].sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_same(a.grad, b.grad, name)


# -- sequences and states ----------------------------------------------------------------------------------------------


@LAYER
def test_a_sequence_in_two_calls(rng, layer):
    module, x = layer(4, 9, num_layers=2), rng.normal(size=(6, 3, 4)).astype(np.float32)
    y, state = module(x)
    first, middle = module(x[:2])
    second, last = module(x[2:], middle)
    np.testing.assert_allclose(y.data, np.concatenate([first.data, second.data]), rtol=0, atol=1e-6)
    for a, b in zip(flat(state), flat(last), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-6)


@LAYER
def test_a_detached_state_ends_the_gradient(rng, layer):
    module, x = layer(4, 5), pynn.Tensor(rng.normal(size=(3, 2, 4)), requires_grad=True)
    module.astype(np.float64)
    _, state = module(x)
    detached = like(module, [s.detach() for s in flat(state)])
    y, _ = module(x.detach(), detached)
    F.sum(y).backward()
    assert x.grad is None
    y, _ = module(x.detach(), state)
    F.sum(y).backward()
    assert np.abs(x.grad).max() > 0


@pytest.mark.parametrize("pair", list(zip(LAYERS, CELLS, strict=True)), ids=lambda pair: pair[0].__name__)
def test_a_cell_takes_the_steps_of_its_layer(rng, pair):
    layer, cell = pair[0](3, 17).astype(np.float64), pair[1](3, 17).astype(np.float64)
    cell.load_state_dict({name: layer.state_dict()[f"{name}_l0"] for name in cell.state_dict()})
    x, state = rng.normal(size=(5, 4, 3)), None
    y, _ = layer(x)
    for t in range(5):
        state = cell(x[t], state)
        np.testing.assert_allclose(flat(state)[0].data, y.data[t], rtol=0, atol=TOLERANCE)


@LAYER
def test_integers_are_one_hot_vectors(rng, layer):
    module = layer(6, 8, num_layers=2, batch_first=True).astype(np.float64)
    indices = rng.integers(0, 6, (3, 5))
    results = []
    for x in (indices, np.eye(6)[indices]):
        y, _ = module(x)
        module.zero_grad()
        F.sum(y * y).backward()
        results.append([y.data, *[p.grad for p in module.parameters()]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)
    y, _ = module(pynn.Tensor(indices[0]))
    np.testing.assert_allclose(y.data, results[0][0][0], rtol=0, atol=TOLERANCE)


@LAYER
def test_one_sequence_without_a_batch(rng, layer):
    module, x = layer(4, 5, num_layers=2, bidirectional=True), rng.normal(size=(6, 4)).astype(np.float32)
    y, state = module(x, like(module, states := [np.ones((4, 5), np.float32)] * 2))
    batched, batched_state = module(x[:, None], like(module, [s[:, None] for s in states]))
    np.testing.assert_array_equal(y.data, batched.data[:, 0])
    for a, b in zip(flat(state), flat(batched_state), strict=True):
        np.testing.assert_array_equal(a.data, b.data[:, 0])


@LAYER
def test_dropout_acts_between_layers_in_training(rng, layer):
    x = rng.normal(size=(6, 3, 4)).astype(np.float32)
    module = layer(4, 16, num_layers=2, dropout=0.5)
    runs = []
    for seed in (1, 1, 2):
        pynn.seed(seed)
        runs.append(module(x)[0].data)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    module.eval()
    first, second = module(x)[0].data, module(x)[0].data
    np.testing.assert_array_equal(first, second)
    assert (first != runs[0]).any()

    # The first layer's output is dropped, the last one's is not.
    module.train()
    pynn.seed(1)
    state = module.state_dict()
    layers = [layer(4, 16), layer(16, 16)]
    for i, one in enumerate(layers):
        one.load_state_dict({name: state[name.replace("_l0", f"_l{i}")] for name in one.state_dict()})
    pynn.seed(1)
    y = layers[1](F.dropout(layers[0](x)[0], 0.5))[0]
    np.testing.assert_array_equal(y.data, runs[0])


@LAYER
def test_weights_start_uniform_and_follow_the_seed(layer):
    def weights():
        pynn.seed(5)
        return layer(20, 16, num_layers=2).state_dict()

    first, second = weights(), weights()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
        assert np.abs(value).max() <= 0.25
    everything = np.concatenate([v.ravel() for v in first.values()])
    assert np.abs(everything).max() > 0.249
    assert abs(everything.mean()) < 4 * 0.25 / np.sqrt(3 * everything.size)


@LAYER
def test_more_steps_of_nothing_than_can_be_counted(layer):
    module = layer(3, 4)
    y, state = module(pynn.Tensor(np.zeros((2**37, 0, 3), np.float32), requires_grad=True))
    F.sum(flat(state)[0]).backward()
    assert y.shape == (2**37, 0, 4)
    np.testing.assert_array_equal(module.weight_hh_l0.grad, 0)


# -- the tape ----------------------------------------------------------------------------------------------------------


def test_only_some_results_are_used(rng):
    module, x = nn.LSTM(3, 4).astype(np.float64), rng.normal(size=(5, 2, 3))

    def gradient(loss):
        module.zero_grad()
        loss(*module(x)).backward()
        return module.weight_hh_l0.grad

    parts = [
        gradient(lambda y, state: F.sum(y)),
        gradient(lambda y, state: F.sum(state[0])),
        gradient(lambda y, state: F.sum(state[1])),
    ]
    whole = gradient(lambda y, state: F.sum(y) + F.sum(state[0]) + F.sum(state[1]))
    np.testing.assert_allclose(sum(parts), whole, rtol=0, atol=TOLERANCE)


def test_backward_twice(rng):
    module, x = nn.GRU(3, 4).astype(np.float64), rng.normal(size=(5, 2, 3))
    y, state = module(x)
    F.sum(y).backward(retain_graph=True)
    once = module.weight_hh_l0.grad.copy()
    F.sum(y).backward(retain_graph=True)
    np.testing.assert_array_equal(module.weight_hh_l0.grad, 2 * once)
    F.sum(state).backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        F.sum(y).backward()


def test_changing_a_saved_output_is_noticed(rng):
    module, x = nn.LSTM(3, 4), rng.normal(size=(5, 2, 3)).astype(np.float32)
    y, (h, _) = module(x)
    loss = F.sum(h)
    with pynn.no_grad():
        y += 1.0
    with pytest.raises(RuntimeError, match="lstm needs the values of its forward pass"):
        loss.backward()


def test_the_graph_goes_without_the_garbage_collector(rng):
    module, x = nn.LSTM(3, 4, num_layers=2), rng.normal(size=(5, 2, 3)).astype(np.float32)
    module(x)
    gc.collect()
    before = pynn._core.arena_stats()["bytes_in_use"]
    gc.disable()
    try:
        for _ in range(3):
            module(x)
        assert pynn._core.arena_stats()["bytes_in_use"] == before
    finally:
        gc.enable()


# -- refusals ----------------------------------------------------------------------------------------------------------


@LAYER
def test_refuses_what_does_not_fit(layer):
    name = layer.__name__
    module = layer(3, 4)
    with pytest.raises(ValueError, match=rf"^{name}: input \[5, 2, 4\] of float32, needs \[T, N, in\] .* in = 3"):
        module(np.zeros((5, 2, 4), np.float32))
    with pytest.raises(ValueError, match=rf"^{name}: input \[3\] of float32"):
        module(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=rf"^{name}: input \[1, 1, 1\] of int64"):
        module(np.zeros((1, 1, 1), np.int64))
    with pytest.raises(ValueError, match=rf"^{name}: state \[1, 3, 4\], needs \[1, 2, 4\]"):
        module(np.zeros((5, 2, 3), np.float32), like(module, [np.zeros((1, 3, 4), np.float32)] * 2))
    with pytest.raises(ValueError, match=rf"^{name}: state \[2, 4\], needs \[1, 4\]"):
        module(np.zeros((5, 3), np.float32), like(module, [np.zeros((2, 4), np.float32)] * 2))
    nested = [[np.zeros((1, 2, 4), np.float32)]] * 2
    with pytest.raises(ValueError, match=rf"^{name}: state \[1, 1, 2, 4\], needs \[1, 2, 4\]"):
        module(np.zeros((5, 2, 3), np.float32), like(module, nested))
    with pytest.raises(TypeError, match="float64"):
        module(np.zeros((5, 2, 3)))
    for size in ({"input_size": 0}, {"hidden_size": 0}, {"num_layers": 0}):
        with pytest.raises(ValueError, match=rf"^{name}: {next(iter(size))} is 0, needs at least 1"):
            layer(**{"input_size": 3, "hidden_size": 4} | size)
    with pytest.raises(ValueError, match=rf"^{name}: dropout is 1.5"):
        layer(3, 4, 2, dropout=1.5)
    with pytest.warns(UserWarning, match=rf"^{name}: dropout acts between layers"):
        layer(3, 4, dropout=0.5)


def test_refuses_other_nonlinearities():
    for make in (nn.RNN, nn.RNNCell):
        with pytest.raises(ValueError, match=rf"^{make.__name__}: nonlinearity must be one of 'tanh', 'relu'"):
            make(3, 4, nonlinearity="sigmoid")


@CELL
def test_cells_refuse_sizes(cell):
    with pytest.raises(ValueError, match=rf"^{cell.__name__}: hidden_size is 0"):
        cell(3, 0)


@pytest.mark.parametrize("run", [F.rnn, F.lstm, F.gru])
def test_without_hidden_units_the_gradient_of_the_input_is_zero(run):
    x = pynn.Tensor(np.ones((2, 67, 5), np.float32), requires_grad=True)
    for _ in range(2):  # the second time in memory that had other values
        x.grad = None
        y = run(x, np.zeros((0, 5), np.float32), np.zeros((0, 0), np.float32))[0]
        y.backward(np.zeros((2, 67, 0), np.float32))
        assert (x.grad == 0).all()
        x.grad.fill(1)


def test_text():
    assert repr(nn.LSTM(3, 4)) == "LSTM(3, 4)"
    assert (
        repr(nn.GRU(3, 4, 2, dropout=0.5, bidirectional=True))
        == "GRU(3, 4, num_layers=2, dropout=0.5, bidirectional=True)"
    )
    assert repr(nn.RNNCell(3, 4, bias=False)) == "RNNCell(3, 4, bias=False)"


# -- captured steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integers", [False, True])
@LAYER
def test_captured_steps_carry_the_state_over(rng, layer, integers):
    x = rng.integers(0, 5, (6, 4, 3)) if integers else rng.normal(size=(6, 4, 3, 5)).astype(np.float32)
    runs = []
    for wrap in (pynn.capture, lambda step: step):
        pynn.seed(2)
        module = layer(5, 17, num_layers=2, dropout=0.3)
        optimizer = pynn.optim.SGD(module.parameters(), lr=0.1)
        states = [np.zeros((2, 3, 17), np.float32)] * (2 if layer is nn.LSTM else 1)

        @wrap
        def step(x, states, module=module, optimizer=optimizer):
            y, state = module(x, like(module, states))
            loss = F.mean(y * y) + F.sum(flat(state)[-1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss, flat(state)

        losses = []
        for batch in x:
            loss, last = step(pynn.Tensor(batch), [pynn.Tensor(s) for s in states])
            states = [s.data.copy() for s in last]
            losses.append(loss.item())
        runs.append((losses, [p.data for p in module.parameters()]))
    assert runs[0][0] == runs[1][0]
    for a, b in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_array_equal(a, b)
