"""The tape: order, sums, release, and what it refuses."""

import gc
import re
import weakref

import numpy as np
import pytest
from tape_nodes import leaf, live_nodes

import pynn
from pynn import functional as F
from pynn import nn, optim, tape

pytestmark = pytest.mark.usefixtures("no_node_survives")


# -- values ------------------------------------------------------------------------------------------------------------
def test_a_tensor_used_twice_gets_the_sum():
    x = leaf(3)
    (x * x + x).backward()
    assert x.grad == [7]


def test_diamond():
    x = leaf(2)
    a = x * 3
    y = a * a + F.exp(a) * 0 + a  # a has three uses
    y.backward()
    assert x.grad == [2 * 6 * 3 + 3]


def test_nested_diamonds_visit_each_node_once():
    calls = 0

    def twice(x):
        def backward(dy):
            nonlocal calls
            calls += 1
            return dy, dy

        return tape.record("twice", 2 * x.data, (x, x), backward)

    x = leaf(1)
    y = x
    for _ in range(40):  # 2**40 paths
        y = twice(y)
    y.backward()
    assert calls == 40
    assert x.grad == [2.0**40]


def test_an_old_tensor_joined_late():
    x = leaf(2)
    early = x * 5
    y = x
    for _ in range(10):
        y = y + 1
    (y * early).backward()  # d (x + 10) 5x = 10 x + 50
    assert x.grad == [70]


def test_gradients_accumulate_over_passes_and_none_resets():
    x = leaf(1, 2)
    for _ in range(3):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [6, 6]
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_a_none_gradient_ends_the_walk():
    x = leaf(1)
    y = tape.record("stop", x.data.copy(), (x * 2,), lambda dy: (None,))
    y.backward()
    assert x.grad is None


def test_the_leaf_itself():
    x = leaf(4)
    x.backward()
    assert x.grad == [1]


def test_given_gradient():
    x = leaf(1, 2, 3)
    (x * x).backward(np.array([1, 10, 100], np.float32))
    assert x.grad.tolist() == [2, 40, 600]
    x.grad = None
    (x * x).backward(pynn.ones(3))
    assert x.grad.tolist() == [2, 4, 6]


def test_constants_get_no_gradient():
    x, c = leaf(1), pynn.tensor([2.0])
    (x * c).backward()
    assert c.grad is None
    assert x.grad == [2]


def test_a_constant_needs_no_node():
    c = pynn.tensor([2.0])
    assert (c * 2 + 1).is_leaf
    assert not (c * 2).requires_grad


# -- leaf gradients belong to their leaf -------------------------------------------------------------------------------
SHARING = {
    "sum": lambda a, b: a + b,
    "reshape and sum": lambda a, b: F.reshape(a, (1, 2)) + b,
    "one array twice": lambda a, b: tape.record("g", a.data * 1, (a, b), lambda dy: [dy * 2] * 2),
    "a view": lambda a, b: tape.record("g", a.data * 1, (a, b), lambda dy: (dy, dy.view())),
    "two sums": lambda a, b: (a + b) + (b + a),
    "reshape of both": lambda a, b: a.reshape(2) + b.reshape(2),
    "stack": lambda a, b: F.stack([a, b]),
    "reshape twice": lambda a, b: (a * 1).reshape(1, 2).reshape(2) + b,
}


@pytest.mark.parametrize("function", SHARING.values(), ids=SHARING)
def test_leaf_gradients_share_no_memory(function):
    a, b = leaf(1, 2), leaf(3, 4)
    y = function(a, b)
    dy = np.ones(y.shape, np.float32)
    y.backward(dy)
    assert not np.shares_memory(a.grad, b.grad)
    assert not np.shares_memory(a.grad, dy)
    assert not np.shares_memory(b.grad, dy)


def test_only_the_array_that_is_given_twice_is_copied():
    given = [np.ones(1, np.float32), np.ones(1, np.float32)]
    a, b, c = leaf(1), leaf(2), leaf(3)
    y = tape.record("g", a.data * 1, (a, b, c), lambda dy: (given[0], given[1], given[1]))
    y.backward()
    kept = [any(t.grad is array for array in given) for t in (a, b, c)]
    assert kept == [True, True, False]
    assert not np.shares_memory(b.grad, c.grad)


def test_leaf_as_root_copies_the_given_gradient():
    x, dy = leaf(1), np.ones(1, np.float32)
    x.backward(dy)
    assert not np.shares_memory(x.grad, dy)


def test_a_second_pass_leaves_the_first_gradient_array_alone():
    x = leaf(1)
    (x * 2).backward()
    first = x.grad
    (x * 3).backward()
    assert first == [2]
    assert x.grad == [5]


def test_a_sum_is_not_written_into_a_shared_gradient():
    x = leaf(1)
    a, b = x * 2, x * 3
    c = a + b  # both get the same dy
    (c + a * 5).backward()
    assert x.grad == [2 + 3 + 10]


# -- gradients that are assigned ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([[1.0, 2.0]], TypeError, "got a list, needs a NumPy array (of a tensor its .data) or None"),
        (pynn.ones(1, 2), TypeError, "got a Tensor, needs a NumPy array (of a tensor its .data) or None"),
        (np.ones((1, 2)), TypeError, "got float64, needs the dtype of the tensor, float32"),
        (np.ones(2, np.float32), ValueError, "got shape [2], needs the shape of the tensor, [1, 2]"),
        (np.float32(1), TypeError, "got a float32, needs a NumPy array (of a tensor its .data) or None"),
    ],
)
def test_an_assigned_gradient_that_does_not_fit_is_refused(wrong, error, message):
    x = pynn.tensor([[1.0, 2.0]], requires_grad=True)
    before = np.ones((1, 2), np.float32)
    x.grad = before
    with pytest.raises(error, match="^grad: " + re.escape(message) + "$"):
        x.grad = wrong
    assert x.grad is before


def test_an_assigned_gradient_is_copied_only_where_it_is_not_contiguous():
    w = nn.Parameter(np.zeros((2, 3), np.float32))
    w.grad = np.arange(6, dtype=np.float32).reshape(3, 2).T
    optim.SGD([w], lr=1.0).step()
    assert w.data.tolist() == [[0, -2, -4], [-1, -3, -5]]


@pytest.mark.parametrize("kind", [np.matrix, np.ma.MaskedArray, np.memmap, type("Mine", (np.ndarray,), {})])
def test_an_assigned_gradient_of_a_subclass_is_its_memory(kind):
    given = np.ones((2, 2), np.float32)
    x = pynn.zeros(2, 2, requires_grad=True)
    x.grad = np.ma.array(given, mask=np.eye(2)) if kind is np.ma.MaskedArray else given.view(kind)
    assert type(x.grad) is np.ndarray
    assert np.shares_memory(x.grad, given)
    assert (x.grad * x.grad).tolist() == given.tolist()  # np.matrix would multiply matrices


# -- depth and release -------------------------------------------------------------------------------------------------
def test_chain_of_100_000():
    before = live_nodes()
    x = leaf(1)
    y = x
    for _ in range(100_000):
        y = -y
    assert live_nodes() == before + 100_000
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == [2]
    assert live_nodes() == before + 1  # y still holds its own, which is empty
    del y
    assert live_nodes() == before


def test_chain_of_100_000_dropped_without_backward():
    before = live_nodes()
    x = leaf(1)
    y = x
    for _ in range(100_000):
        y = y * x  # a node holds its inputs, which hold their nodes
    del y
    assert live_nodes() == before


def test_chain_of_100_000_dropped_after_a_retained_backward():
    before = live_nodes()
    x = leaf(0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.backward(retain_graph=True)
    del y
    assert x.grad == [100_001]
    assert live_nodes() == before


def test_a_graph_goes_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1, 2)
        y = F.exp(F.relu(x * 2)).sum()
        array = weakref.ref(y)
        node = F.relu(x)
        activation = weakref.ref(node)
        del y, node
        assert array() is None
        assert activation() is None
        before = sum(type(o) is tape.Node for o in gc.get_objects())
        assert before == 0
    finally:
        gc.enable()


def test_backward_frees_activations_that_a_live_output_would_hold():
    x = leaf(1)
    hidden = x * 2
    y = hidden * hidden
    reference = weakref.ref(hidden)
    del hidden
    assert reference() is not None  # saved by the product
    y.backward()
    assert reference() is None


def test_what_no_backward_reads_is_not_kept():
    x = leaf(1)
    hidden = x * 2
    y = F.relu(hidden)  # reads its output only
    reference = weakref.ref(hidden)
    del hidden
    assert reference() is None
    y.backward()
    assert x.grad == [2]


def test_second_backward_is_refused_and_says_how_to_fix_it():
    x = leaf(1)
    y = x * 2
    y.backward()
    with pytest.raises(RuntimeError, match=r"^backward: the graph through mul was already freed.*retain_graph=True"):
        y.backward()
    assert x.grad == [2]


def test_a_freed_part_is_refused_before_anything_happens():
    x, w = leaf(1), leaf(5)
    shared = x * 2
    shared.backward()
    y = shared + w * 3
    for _ in range(2):  # the part that is not freed stays usable
        with pytest.raises(RuntimeError, match="through mul was already freed"):
            y.backward()
    assert x.grad == [2]
    assert w.grad is None


def test_retain_graph():
    x = leaf(3)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == [12]


def test_an_exception_in_a_backward_changes_no_gradient():
    x, w = leaf(1), leaf(1)

    def fail(dy):
        raise ArithmeticError("boom")

    bad = tape.record("bad", x.data * 1, (x,), fail)
    y = bad + w * 2  # w is done before `bad` is reached
    with pytest.raises(ArithmeticError, match="boom"):
        y.backward()
    assert x.grad is None
    assert w.grad is None
    (w * 2).backward()
    assert w.grad == [2]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda dy: dy, TypeError, "mine gives a ndarray, needs a tuple with a gradient per parent"),
        (lambda dy: None, TypeError, "mine gives a NoneType, needs a tuple with a gradient per parent"),
        (lambda dy: (pynn.Tensor(dy),), TypeError, "gradient 0 of mine is a Tensor, needs an array"),
        (
            lambda dy: (np.float64(dy),),
            TypeError,
            "gradient 0 of mine is float64, needs the dtype of the parent, float32",
        ),
        (lambda dy: (dy[:1],), ValueError, "gradient 0 of mine is [1], needs the shape of the parent, [2]"),
        (lambda dy: (dy.sum(),), ValueError, "gradient 0 of mine is [], needs the shape of the parent, [2]"),
    ],
)
def test_gradients_of_ones_own_operation_are_looked_at(given, error, message):
    x = leaf(1, 2)
    for parent in (x, x * 1):  # a leaf, and what goes on to another backward
        with pytest.raises(error, match=f"^backward: {re.escape(message)}$"):
            tape.record("mine", parent.data * 2, (parent,), given).sum().backward()
    assert x.grad is None


def test_ones_own_operation_may_compute_with_numbers_and_other_layouts():
    b, x = pynn.tensor(2.0, requires_grad=True), leaf(1, 2)
    y = tape.record(
        "mine", (b.data * x.data).sum(), (b, x), lambda dy: ((dy * x.data).sum(), np.stack([b.data] * 4)[::2])
    )
    y.backward()
    assert (b.grad.shape, b.grad.item(), x.grad.tolist()) == ((), 3, [2, 2])
    optim.SGD([b, x], lr=1.0).step()
    assert b.item() == -1


@pytest.mark.parametrize(
    ("y", "parents", "saved", "message"),
    [
        (pynn.ones(2), (pynn.ones(2),), (), "the result of mine is a Tensor, needs an array"),
        (
            np.ones(2, np.float16),
            (),
            (),
            "mine: needs float32, float64, integers or bool, got ndarray of dtype float16",
        ),
        (np.ones(2), pynn.ones(2), (), "parents of mine needs to be a tuple of tensors, got Tensor"),
        (np.ones(2), (np.ones(2),), (), "parents of mine needs to be a tuple of tensors, got (ndarray)"),
        (np.ones(2), (), pynn.ones(2), "saved of mine needs to be a tuple of tensors, got Tensor"),
    ],
)
def test_what_record_refuses(y, parents, saved, message):
    with pytest.raises(TypeError, match=f"^record: {re.escape(message)}$"):
        tape.record("mine", y, parents, lambda dy: (dy,), saved)


def test_wrong_number_of_gradients_is_noticed():
    x = leaf(1)
    y = tape.record("short", x.data * 1, (x, x), lambda dy: (dy,))
    with pytest.raises(ValueError, match="short has 2 parents, got 1 gradients"):
        y.backward()


# -- refused roots -----------------------------------------------------------------------------------------------------
def test_backward_needs_a_scalar_or_a_gradient():
    y = leaf(1, 2) * 2
    with pytest.raises(ValueError, match=r"^backward: needs a scalar such as a loss, got shape \[2\]"):
        y.backward()


def test_given_gradient_of_another_shape():
    y = leaf(1, 2) * 2
    with pytest.raises(ValueError, match=r"^backward: gradient \[3\] needs the shape of the tensor, \[2\]"):
        y.backward(np.ones(3, np.float32))


def test_given_gradient_of_another_dtype():
    y = leaf(1, 2) * 2
    with pytest.raises(TypeError, match=r"^backward: gradient is float64, needs the dtype of the tensor, float32"):
        y.backward(np.ones(2))
    y.backward([1, 2])


def test_backward_without_anything_that_requires_grad():
    with pytest.raises(RuntimeError, match=r"^backward: nothing that the tensor was computed from requires a gradient"):
        pynn.tensor(1.0).backward()


@pytest.mark.parametrize(("output", "inputs"), [(3.0, None), (None, 3), (None, [3]), (None, [np.ones(2)])])
def test_grad_needs_tensors(output, inputs):
    x = pynn.tensor(3.0, requires_grad=True)
    with pytest.raises(TypeError, match=r"^grad: got a \w+, needs tensors$"):
        pynn.grad(x * x if output is None else output, x if inputs is None else inputs)


def test_grad_takes_an_iterator_of_tensors():
    x = pynn.tensor(3.0, requires_grad=True)
    assert [g.item() for g in pynn.grad(x * x, iter([x]))] == [6.0]
