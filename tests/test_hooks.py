"""Backward hooks of modules: what they are given, when they are called, and that they change nothing."""

import numpy as np
import pytest

import pynn
from pynn import functional as F
from pynn import nn

try:
    import torch
except ImportError:
    torch = None


def record_into(calls):
    return lambda module, grad_input, grad_output: calls.append((module, grad_input, grad_output))


def test_gradients_of_a_layer(rng):
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).astype(np.float64)
    x = pynn.Tensor(rng.normal(size=(5, 4)), requires_grad=True)
    dy = rng.normal(size=(5, 2))
    model(x).backward(dy)
    expected = [x.grad] + [p.grad for p in model.parameters()]
    x.grad = None
    model.zero_grad()
    calls = []
    handles = [m.register_full_backward_hook(record_into(calls)) for m in model.modules()]
    model(x).backward(dy)
    for got, want in zip([x.grad] + [p.grad for p in model.parameters()], expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    assert [module for module, _, _ in calls] == [model[2], model[1], model[0], model]
    np.testing.assert_array_equal(calls[0][2][0], dy)
    np.testing.assert_allclose(calls[0][1][0], dy @ model[2].weight.data, rtol=1e-12)
    for later, earlier in ((1, 0), (2, 1)):
        np.testing.assert_array_equal(calls[later][2][0], calls[earlier][1][0])
    np.testing.assert_allclose(calls[3][1][0], x.grad, rtol=1e-12)
    for handle in handles:
        handle.remove()
        handle.remove()
    model(x).backward(dy)
    assert len(calls) == 4


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
def test_equals_pytorchs(rng):
    ours, theirs = Product(), torch_product()
    x, z, dy = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    calls, reference = [], []
    ours.register_full_backward_hook(record_into(calls))
    theirs.register_full_backward_hook(record_into(reference))
    ours(*[pynn.Tensor(a, requires_grad=True) for a in (x, z)]).backward(dy)
    theirs(*[torch.from_numpy(a).requires_grad_() for a in (x, z)]).backward(torch.from_numpy(dy))
    assert len(calls) == len(reference) == 1
    for got, want in zip(calls[0][1:], reference[0][1:], strict=True):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-12)


class Product(nn.Module):
    def forward(self, x, z):
        return x * z * z


def torch_product():
    class TorchProduct(torch.nn.Module):
        def forward(self, x, z):
            return x * z * z

    return TorchProduct()


def test_an_input_that_asks_for_no_gradient_gets_none():
    calls = []
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(record_into(calls))
    layer(np.ones((1, 2), np.float32)).sum().backward()
    ((_, grad_input, grad_output),) = calls
    assert grad_input == (None,)
    np.testing.assert_array_equal(grad_output[0], [[1, 1]])
    assert layer.weight.grad is not None


class Two(nn.Module):
    """Two outputs; the second input reaches only the second one, the third input none."""

    def forward(self, x, z, unused):
        return x * 2, x + z * 3


@pytest.mark.parametrize(("use", "expected"), [("both", (3, 3)), ("first", (2, None)), ("second", (1, 3))])
def test_several_inputs_and_outputs(use, expected):
    calls = []
    module = Two()
    module.register_full_backward_hook(record_into(calls))
    x, z, unused = (pynn.tensor([1.0], requires_grad=True) for _ in range(3))
    a, b = module(x, z, unused)
    {"both": a + b, "first": a, "second": b}[use].backward()
    ((_, grad_input, grad_output),) = calls
    assert tuple(None if g is None else g.item() for g in grad_input) == (*expected, None)
    assert tuple(g is not None for g in grad_output) == {"both": (True, True), "first": (True, False)}.get(
        use, (False, True)
    )


def test_an_output_that_is_returned_twice_has_two_gradients():
    class Same(nn.Module):
        def forward(self, x):
            y = x * 2
            return y, y

    calls = []
    module = Same()
    module.register_full_backward_hook(record_into(calls))
    first, second = module(pynn.tensor([1.0], requires_grad=True))
    (first + 3 * second).backward()
    ((_, grad_input, grad_output),) = calls
    assert [g.item() for g in grad_output] == [1.0, 3.0]
    assert [g.item() for g in grad_input] == [8.0]


def test_each_backward_calls_and_copies():
    calls = []
    layer = nn.ReLU()
    layer.register_full_backward_hook(record_into(calls))
    x = pynn.tensor([1.0, -1.0], requires_grad=True)
    y = layer(x)
    y.sum().backward(retain_graph=True)
    calls[0][1][0][...] = 99  # a copy
    y.sum().backward()
    assert x.grad.tolist() == [2, 0]
    assert [call[1][0].tolist() for call in calls] == [[99, 99], [1, 0]]


def test_a_hooked_layer_is_not_fused():
    calls = []
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    model[1].register_full_backward_hook(record_into(calls))
    F.mse_loss(model(np.ones((3, 2), np.float32)), np.zeros((3, 1), np.float32)).backward()
    assert len(calls) == 1


def test_in_place_writes_are_still_seen():
    layer = nn.Identity()
    layer.register_full_backward_hook(lambda *_: None)
    x = pynn.tensor([2.0], requires_grad=True)
    y = layer(x * 1)
    z = y * y
    with pynn.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        z.backward()


def test_capture_refuses_a_hook():
    model = nn.Linear(2, 1)
    model.register_full_backward_hook(lambda *_: None)

    @pynn.capture
    def step(x):
        return model(x).sum()

    with pytest.raises(pynn.CaptureError, match="Linear has a hook"):
        step(np.ones((1, 2), np.float32))


def test_a_backward_after_a_hook_that_raised_has_gradients_of_its_own():
    seen = []

    def hook(module, grad_input, grad_output):
        seen.append([None if g is None else g.tolist() for g in grad_output])
        if len(seen) == 1:
            raise ValueError("the hook's own")

    module = Two()
    module.register_full_backward_hook(hook)
    a, b = module(*(pynn.tensor([1.0], requires_grad=True) for _ in range(3)))
    with pytest.raises(ValueError, match="the hook's own"):
        (a + b).sum().backward(retain_graph=True)
    a.sum().backward()
    assert seen == [[[1.0], [1.0]], [[1.0], None]]


def test_a_backward_after_one_that_failed_inside_the_module_has_gradients_of_its_own():
    seen, fails = [], [True]

    def times(x, factor):
        def backward(dy):
            if fails.pop() if fails else False:
                raise ValueError("the body's own")
            return (factor * dy,)

        return pynn.tape.record("times", factor * x.data, (x,), backward)

    class Pair(nn.Module):
        def forward(self, x):
            return times(x, 2), times(x, 3)

    module = Pair()
    module.register_full_backward_hook(
        lambda module, grad_input, grad_output: seen.append([g if g is None else g.tolist() for g in grad_output])
    )
    a, b = module(pynn.tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="the body's own"):
        (a + b).sum().backward(retain_graph=True)
    a.sum().backward()
    assert seen == [[[1.0], None]]


@pytest.mark.parametrize("register", ["register_forward_hook", "register_full_backward_hook"])
@pytest.mark.parametrize("hook", [None, "print"])
def test_a_hook_that_cannot_be_called_is_refused(register, hook):
    layer = nn.Linear(2, 3)
    with pytest.raises(TypeError, match=rf"^{register}: hook is a \w+, needs a function$"):
        getattr(layer, register)(hook)
    assert layer(pynn.ones(1, 2)).shape == (1, 3)
