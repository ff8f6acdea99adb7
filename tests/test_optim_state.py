"""What optimisers keep between steps, and its way into another one."""

import math

import numpy as np
import pytest
from optimizer_tools import HeavyBall, each_optimizer, parameters, take_step

from pynn import nn, optim


@each_optimizer
def test_training_goes_on_from_a_checkpoint(kind, options):
    params = parameters()
    optimizer = kind([{"params": params[:1]}, {"params": params[1:], "lr": 0.03}], **options)
    for seed in range(1, 4):
        take_step(optimizer, params, seed)
    others = [nn.Parameter(p.data.copy()) for p in params]
    other = kind([{"params": others[:1]}, {"params": others[1:]}], lr=7.0)
    other.load_state_dict(optimizer.state_dict())
    for seed in range(4, 8):
        take_step(optimizer, params, seed)
        take_step(other, others, seed)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@each_optimizer
def test_state_lies_where_weights_do(kind, options):
    params = parameters()
    optimizer, other = kind(params, **options), kind(params, **options)
    take_step(optimizer, params, 1)
    other.load_state_dict(optimizer.state_dict())
    for states in (optimizer.state, other.state):
        arrays = [array for state in states.values() for array in state.values() if isinstance(array, np.ndarray)]
        assert all(array.ctypes.data % 64 == 0 for array in arrays)


def test_state_that_only_some_options_need_travels_too():
    params = parameters()
    optimizer = optim.RMSprop(params, momentum=0.9, centered=True)
    take_step(optimizer, params, 1)
    state = optimizer.state_dict()
    assert sorted(state["state"][0]) == ["grad_avg", "momentum_buffer", "square_avg"]
    plain = optim.RMSprop(parameters())
    plain.load_state_dict(state)  # and with it the options
    assert plain.param_groups[0]["centered"]
    np.testing.assert_array_equal(plain.state_dict()["state"][3]["grad_avg"], state["state"][3]["grad_avg"])
    del state["state"][3]["square_avg"]
    with pytest.raises(ValueError, match=r"parameter 3 has state .*needs \['square_avg'\]"):
        plain.load_state_dict(state)


def test_what_ones_own_optimiser_remembers_travels_too():
    params = parameters()
    optimizer = HeavyBall(params, 0.1)
    take_step(optimizer, params, 1)
    others = [nn.Parameter(p.data.copy()) for p in params]
    other = HeavyBall(others, 0.5)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[others[0]]["velocity"] is not optimizer.state[params[0]]["velocity"]
    take_step(optimizer, params, 2)
    take_step(other, others, 2)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    assert other.state[others[0]]["steps"] == 2


def test_state_is_a_copy_with_pytorchs_names():
    params = parameters()
    optimizer = optim.Adam(params)
    take_step(optimizer, params, 1)
    state = optimizer.state_dict()
    assert sorted(state["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    assert state["param_groups"][0]["params"] == [0, 1, 2, 3]
    state["state"][0]["exp_avg"][...] = 9
    assert not (optimizer.state[params[0]]["exp_avg"] == 9).any()


def _changed(state, path, value):
    *path, last = path
    for key in path:
        state = state[key]
    if value is None:
        del state[last]
    else:
        state[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("param_groups",), None, "needs a dict with the keys"),
        (("param_groups", 0, "params"), [0], "the numbers of parameters in the groups differ"),
        (("param_groups", 0, "eps"), None, "group has options"),
        (("param_groups", 0, "lr"), -1.0, "lr is -1"),
        (("state", 7), {}, "state of parameter 7, which no group has"),
        (("state", 3, "step"), None, "parameter 3 has state"),
        (("state", 3, "step"), 0, "parameter 3: step is 0, needs the number of steps taken"),
        (("state", 3, "step"), 1e300, r"parameter 3: step is 1e\+300"),
        (("state", 3, "step"), 2.7, "parameter 3: step is 2.7, needs the number of steps taken"),
        (("state", 3, "step"), math.inf, "parameter 3: step is inf, needs"),
        (("state", 3, "step"), "3", "parameter 3: step is '3', needs"),
        (("state", 3, "exp_avg"), [[1.0], [1.0, 2.0]], "parameter 3: exp_avg is not an array"),
        (("param_groups", 0, "params"), [0, 1, 2, 2], r"param_groups have a number twice in \[0, 1, 2, 2\]"),
        (("state", 3, "exp_avg"), np.zeros((2, 2)), r"parameter 3: exp_avg has shape \[2, 2\], needs \[2, 3, 2, 2\]"),
    ],
)
def test_a_failed_load_changes_nothing(path, value, message):
    params = parameters()
    optimizer = optim.Adam(params)
    take_step(optimizer, params, 1)
    before = repr(optimizer.state_dict())
    state = optimizer.state_dict()
    state["param_groups"][0]["weight_decay"] = 0.5
    state["state"][0]["step"] = 100
    _changed(state, path, value)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert repr(optimizer.state_dict()) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), 3),
        (("state",), [1]),
        (("state", 3), 7),
        (("state", 3, "exp_avg"), "ab"),
        (("param_groups",), 3),
        (("param_groups", 0), 3),
        (("param_groups", 0, "params"), None),
        (("param_groups", 0, "params"), 4),
    ],
)
def test_what_is_no_state_is_a_type_error_that_says_so(path, value):
    params = parameters()
    optimizer = optim.Adam(params)
    take_step(optimizer, params, 1)
    before = repr(optimizer.state_dict())
    state = optimizer.state_dict()
    if path:
        _changed(state, path, value)
    with pytest.raises(TypeError, match=r"^Adam\.load_state_dict: .* needs "):
        optimizer.load_state_dict(state if path else value)
    assert repr(optimizer.state_dict()) == before
