"""Checkpoints of models: PyTorch's keys and layouts, copies, and loads that are whole or not at all."""

import numpy as np
import pytest

import pynn
from pynn import nn

try:
    import torch
except ImportError:
    torch = None


def model(n=nn):
    return n.Sequential(n.Conv2d(1, 2, 3), n.BatchNorm2d(2), n.ReLU(), n.Flatten(), n.Linear(8, 3))


@pytest.fixture
def net():
    pynn.seed(4)
    return model()


def test_keys_shapes_and_dtypes(net):
    assert {name: (array.shape, str(array.dtype)) for name, array in net.state_dict().items()} == {
        "0.weight": ((2, 1, 3, 3), "float32"),
        "0.bias": ((2,), "float32"),
        "1.weight": ((2,), "float32"),
        "1.bias": ((2,), "float32"),
        "1.running_mean": ((2,), "float32"),
        "1.running_var": ((2,), "float32"),
        "1.num_batches_tracked": ((), "int64"),
        "4.weight": ((3, 8), "float32"),
        "4.bias": ((3,), "float32"),
    }


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_weights_go_to_pytorch_and_back(net):
    theirs = model(torch.nn)
    assert list(theirs.state_dict()) == list(net.state_dict())
    net.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).normal(size=(4, 1, 4, 4)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net(x).numpy(), expected, rtol=1e-4, atol=1e-5)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in net.state_dict().items()})
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value.numpy(), rtol=1e-5, err_msg=name)


def test_state_is_a_copy(net):
    state = net.state_dict()
    for array in state.values():
        array[...] = 99
    assert not any((array == 99).any() for array in net.state_dict().values())


def test_load_copies_into_the_arrays_in_place(net):
    state = {name: array + 1 for name, array in net.state_dict().items()}
    arrays = [p.data for p in net.parameters()] + list(net.buffers())
    assert net.load_state_dict(state) == ([], [])
    assert all(a is b for a, b in zip(arrays, [p.data for p in net.parameters()] + list(net.buffers()), strict=True))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
        assert not np.shares_memory(array, state[name])


def test_load_takes_tensors_and_other_floats(net):
    state = {
        name: pynn.Tensor(array.astype(np.float64)) if array.ndim else array for name, array in net.state_dict().items()
    }
    state["0.weight"] = np.asfortranarray(np.full((2, 1, 3, 3), 0.5))
    net.load_state_dict(state)
    assert (net[0].weight.data == 0.5).all()
    assert {str(p.dtype) for p in net.parameters()} == {"float32"}


def test_a_failed_load_lists_everything_and_changes_nothing(net):
    before = net.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["0.bias"]
    state["extra"] = np.zeros(1)
    state["4.weight"] = state["4.weight"].T
    state["1.weight"] = state["1.weight"].astype(np.int64)
    state["1.bias"] = [[1.0], [1.0, 2.0]]
    with pytest.raises(ValueError, match=r"^load_state_dict: Sequential is unchanged: ") as error:
        net.load_state_dict(state)
    for part in (
        "missing 0.bias",
        "unexpected extra",
        "4.weight has shape [8, 3], the model needs [3, 8]",
        "1.bias is not an array: ",
        "1.weight has dtype int64, the model needs float32",
    ):
        assert part in str(error.value)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_parameters_of_pytorch_that_ask_for_gradients_are_named(net):
    before = net.state_dict()
    with pytest.raises(ValueError, match=r"Sequential is unchanged: .*4\.bias is not an array: .*grad"):
        net.load_state_dict(dict(model(torch.nn).named_parameters()), strict=False)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_not_strict_reports_keys_but_still_checks_shapes(net):
    state = {"4.bias": np.ones(3, np.float32), "extra": np.zeros(1)}
    result = net.load_state_dict(state, strict=False)
    assert result.unexpected_keys == ["extra"]
    assert result.missing_keys == [name for name in net.state_dict() if name != "4.bias"]
    assert (net[4].bias.data == 1).all()
    with pytest.raises(ValueError, match=r"4.bias has shape \[1\]"):
        net.load_state_dict({"4.bias": np.zeros(1)}, strict=False)


def test_a_parameter_that_is_read_only_is_not_loaded_into():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight.data.flags.writeable = False  # as that of a file that NumPy has mapped for reading
    before = net.state_dict()
    with pytest.raises(ValueError, match=r"^load_state_dict: Sequential is unchanged: 1\.weight is read-only$"):
        net.load_state_dict({name: array + 1 for name, array in before.items()})
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_integers_that_do_not_fit_are_refused():
    module = nn.Identity()
    module.register_buffer("counts", np.array([1, 2], np.int8))
    assert module.load_state_dict({"counts": np.array([-128, 127])}) == ([], [])
    with pytest.raises(ValueError, match=r"Identity is unchanged: counts has numbers that int8 does not hold$"):
        module.load_state_dict({"counts": np.array([1000, 2])})
    assert (module.counts.dtype, module.counts.tolist()) == (np.int8, [-128, 127])


def test_load_needs_a_mapping(net):
    with pytest.raises(TypeError, match="load_state_dict: got list"):
        net.load_state_dict([1])


def test_load_counts_as_a_write():
    layer = nn.Linear(2, 2)
    x = pynn.Tensor(np.ones((1, 2), np.float32), requires_grad=True)
    y = layer(x).sum()
    layer.load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    state = {name: np.full(array.shape, 3, np.float32) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    assert net[1].weight is net[0].weight
    assert (net[0].weight.data == 3).all()
