"""What keeps gradients, and what gets them: no_grad, detach, retain_grad, grad."""

import threading

import numpy as np
import pytest
from tape_nodes import leaf

import pynn
from pynn import tape

pytestmark = pytest.mark.usefixtures("no_node_survives")


def test_no_grad_nests_and_restores_after_an_exception():
    x = leaf(1)
    with pynn.no_grad():
        with pynn.no_grad():
            pass
        assert (x * 2).is_leaf
    with pytest.raises(KeyError), pynn.no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_one_no_grad_object_entered_twice():
    off = pynn.no_grad()
    with off, off:
        pass
    assert tape.is_grad_enabled()


def test_no_grad_as_decorator():
    x = leaf(1)

    @pynn.no_grad()
    def f(n):
        """Doc."""
        return f(n - 1) if n else (x * 2).requires_grad

    assert f(3) is False
    assert f.__doc__ == "Doc."
    assert tape.is_grad_enabled()


def test_grad_mode_belongs_to_the_thread():
    seen = []
    with pynn.no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1) * 2).requires_grad))
        thread.start()
        thread.join()
        assert not (leaf(1) * 2).requires_grad
    assert seen == [True]


def test_threads_with_their_own_graphs():
    results = {}

    def work(k):
        x = leaf(k)
        y = x
        for _ in range(500):
            y = y + x
        y.backward()
        results[k] = x.grad.item()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), 501)


def test_detach_cuts_and_shares():
    x = leaf(2)
    y = x * 3
    d = y.detach()
    assert d.is_leaf
    assert not d.requires_grad
    assert np.shares_memory(d.data, y.data)
    (y * d).backward()
    assert x.grad == [18]


def test_retain_grad():
    x = leaf(2)
    y = x * 3
    y.retain_grad()
    (y * y).backward()
    assert y.grad == [12]
    assert x.grad == [36]
    assert not np.shares_memory(y.grad, x.grad)
    (y.detach() * x).backward()


def test_retain_grad_of_a_leaf_and_of_a_constant():
    x = leaf(2)
    x.retain_grad()
    (x * 2).backward()
    assert x.grad == [2]
    with pytest.raises(RuntimeError, match=r"^retain_grad: the tensor does not require a gradient"):
        pynn.tensor(1.0).retain_grad()


def test_retain_grad_of_a_tensor_that_is_gone():
    x = leaf(2)
    y = x * 3
    y.retain_grad()
    z = y + 1
    del y
    z.backward()
    assert x.grad == [3]


def test_grad_returns_arrays_and_leaves_grad_alone():
    x, w = leaf(2), leaf(5)
    x.grad = np.array([100], np.float32)
    dx, dw = pynn.grad(x * w, [x, w])
    assert dx == [5]
    assert dw == [2]
    assert x.grad == [100]
    assert w.grad is None


def test_grad_of_a_computed_tensor_and_its_leaf():
    x = leaf(2)
    a = x * 3
    da, dx = pynn.grad(a * a, [a, x])
    assert da == [12]
    assert dx == [36]
    assert not np.shares_memory(da, dx)


def test_grad_of_an_input_that_is_not_there():
    x = leaf(1)
    y = x * 2
    with pytest.raises(RuntimeError, match=r"^grad: the output does not depend on input 1, \[2\]"):
        pynn.grad(y, [x, leaf(1, 2)])


def test_a_refused_grad_leaves_the_graph():
    x = leaf(1)
    y = x * 2
    with pytest.raises(RuntimeError, match="does not depend"):
        pynn.grad(y, leaf(1, 2))
    assert pynn.grad(y, x)[0] == [2]


def test_grad_frees_unless_told_to_retain():
    x = leaf(1)
    y = x * 2
    pynn.grad(y, x, retain_graph=True)
    pynn.grad(y, x)
    with pytest.raises(RuntimeError, match=r"^backward: the graph through mul was already freed"):
        pynn.grad(y, x)
