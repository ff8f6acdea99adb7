"""Changes in place: refused where a gradient would be wrong, allowed where they do not matter."""

import copy

import numpy as np
import pytest
from tape_nodes import leaf

import pynn
from pynn import functional as F

pytestmark = pytest.mark.usefixtures("no_node_survives")


def test_a_changed_input_is_refused():
    x, w = leaf(1, 2), leaf(3, 4)
    y = (x * w).sum()
    with pynn.no_grad():
        w[0] = 7
    with pytest.raises(RuntimeError, match=r"^backward: mul needs .* saved tensor 1, \[2\], was changed in place"):
        y.backward()
    assert x.grad is None


@pytest.mark.parametrize("gather", [lambda w, i: w[i], lambda w, i: F.embedding(i, w)], ids=["index", "embedding"])
def test_changed_indices_are_refused(gather):
    w, indices = pynn.ones(3, 2, requires_grad=True), pynn.tensor([0, 1])
    y = gather(w, indices).sum()
    indices[0] = 2
    with pytest.raises(RuntimeError, match=r"needs .* saved tensor 0, \[2\], was changed in place"):
        y.backward()
    assert w.grad is None


def test_a_list_of_indices_may_change_before_backward():
    w, indices = pynn.ones(3, 2, requires_grad=True), [[0, 1], [0, 0]]
    y = w[indices].sum()
    indices[0] = indices[1][:] = [2, 2]
    y.backward()
    assert w.grad[:, 0].tolist() == [3, 1, 0]


def test_a_changed_output_is_refused():
    x = leaf(1, 2)
    y = F.exp(x)
    z = y.sum()
    with pynn.no_grad():
        y += 1
    with pytest.raises(RuntimeError, match=r"^backward: exp needs .* its output was changed in place"):
        z.backward()


@pytest.mark.parametrize(
    "alias",
    [lambda t: t.detach(), lambda t: t.reshape(2, 1), lambda t: pynn.Tensor(t), copy.copy],
    ids=["detach", "reshape", "Tensor", "copy"],
)
def test_a_change_through_an_alias_is_refused(alias):
    x, w = leaf(1, 2), pynn.tensor([3.0, 4.0])
    y = (x * w).sum()
    alias(w)[0] = 9
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_changes_that_do_not_matter_are_allowed():
    x, b = leaf(1, 2), pynn.tensor([3.0, 4.0])
    b[0] = 5  # before the operation
    y = x + b  # whose backward reads no values
    b[0] = 6
    y.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_an_update_after_backward_is_allowed():
    w = leaf(1, 2)
    for _ in range(3):
        (w * w).sum().backward()
        with pynn.no_grad():
            w -= 0.25 * pynn.Tensor(w.grad)
        w.grad = None
    assert w.data.tolist() == [0.125, 0.25]


def test_in_place_on_a_leaf_that_requires_grad_is_refused():
    w = leaf(1)
    with pytest.raises(RuntimeError, match=r"^add: in-place change of a leaf that requires a gradient"):
        w += 1
    with pytest.raises(RuntimeError, match=r"^setitem: a write is not differentiable; use pynn.functional.where"):
        w[0] = 1
    assert w.data == [1]


def test_in_place_on_a_computed_tensor_makes_a_new_one():
    x = leaf(3)
    y = total = x * 2
    total += x
    total *= x
    assert y.data == [6]
    total.backward()  # 3 x^2
    assert x.grad == [18]


def test_a_constant_accumulates_a_differentiable_sum():
    x = leaf(3)
    total = pynn.tensor([0.0])
    for _ in range(3):
        total += x
    total.backward()
    assert x.grad == [3]


def test_a_gradient_cannot_be_lost_in_a_write():
    c, x = pynn.zeros(2), leaf(3)
    with pytest.raises(RuntimeError, match=r"^setitem"):
        c[0] = x


def test_a_grad_of_another_shape_is_refused():
    x = pynn.ones(3, requires_grad=True)
    x.grad = np.ones(3, np.float32)
    x.data = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"backward: \.grad \[3\] of a tensor \[2, 3\] has another shape"):
        x.sum().backward()
