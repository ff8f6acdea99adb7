"""The tree of modules: names, sharing, modes, copies, hooks."""

import copy
import pickle

import numpy as np
import pytest
from small_models import Tied, mlp

import pynn
from pynn import nn


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


@pytest.mark.parametrize("value", [np.ones((2, 3), np.float32), pynn.ones(2, 3), 0.0, [1.0]], ids=type)
def test_a_parameter_or_child_is_not_lost_to_an_array(value):
    model = nn.Sequential(nn.Linear(3, 2))
    weight, kind = model[0].weight, type(value).__name__
    message = rf"^Linear: cannot assign {kind} as parameter 'weight', needs nn\.Parameter\(x\) or None; weight\.data"
    with pytest.raises(TypeError, match=message):
        model[0].weight = value
    with pytest.raises(TypeError, match=f"^Sequential: cannot assign {kind} as child '0', needs a Module or None$"):
        setattr(model, "0", value)
    assert model[0].weight is weight
    model[0].weight.data[...] = value  # as the message says
    assert (model.state_dict()["0.weight"] == np.asarray(value)).all()


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


def test_apply_takes_a_shared_child_once():
    relu, seen = nn.ReLU(), []
    model = nn.Sequential(relu, nn.Tanh(), relu)
    assert model.apply(seen.append) is model
    assert seen == [relu, model[1], model]


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
    with pytest.raises(TypeError, match="requires_grad_: requires_grad must be True or False, got 'no'"):
        mlp().requires_grad_("no")
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
    with pytest.raises(TypeError, match=r"^astype: dtype is 'foo', needs float32 or float64$"):
        model.astype("foo")


def test_buffers():
    module = nn.Module()
    module.register_buffer("scale", [2.0])
    assert module.scale.tolist() == [2.0]
    for name in ("scale", "forward", "a.b", "", 3, None):
        with pytest.raises(ValueError, match="register_buffer"):
            module.register_buffer(name, [1.0])
    with pytest.raises(TypeError, match="register_buffer: nothing has dtype object"):
        module.register_buffer("nothing", None)
    module.scale = None
    assert module.astype(np.float64).state_dict() == {}


def test_a_number_that_is_assigned_to_a_buffer_becomes_an_array():
    module = nn.Module()
    module.register_buffer("steps", 3)
    state = module.state_dict()
    module.steps = module.steps + 1  # to NumPy a number, as `steps` has no axis
    assert isinstance(module.steps, np.ndarray)
    module.load_state_dict(state)
    assert module.steps == 3
    with pytest.raises(TypeError, match=r"^Module: steps has dtype <U1, needs numbers$"):
        module.steps = "4"
    assert module.steps == 3


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


def test_a_hook_that_is_registered_twice_is_removed_once():
    seen = []
    layer = nn.Linear(2, 3)

    def hook(module, args, y):
        seen.append("hook")

    first, _ = layer.register_forward_hook(hook), layer.register_forward_hook(hook)
    layer.register_forward_hook(lambda module, args, y: seen.append("another"))
    first.remove()
    third = layer.register_forward_hook(hook)
    first.remove()
    layer(np.ones((4, 2), np.float32))
    third.remove()
    layer(np.ones((4, 2), np.float32))
    assert seen == ["hook", "another", "hook", "hook", "another"]


def test_a_copy_of_a_module_and_its_handle_is_a_pair_of_its_own():
    module, handle = copy.deepcopy((layer := nn.Linear(2, 3), layer.register_forward_hook(print)))
    handle.remove()
    assert len(module._forward_hooks) == 0
    assert len(layer._forward_hooks) == 1


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match="Module: forward is not defined"):
        nn.Module()(1)
