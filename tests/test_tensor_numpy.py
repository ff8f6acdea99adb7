"""Tensors and NumPy: arrays on either side of an operator, comparisons, shared memory."""

import operator

import numpy as np
import pytest
from tensor_tools import f32

import pynn


def test_numpy_shares_and_is_read_only_for_parameters():
    t = pynn.Tensor(f32(3))
    t.numpy()[0] = 9
    assert t.data[0] == 9
    t.requires_grad_()
    with pytest.raises(ValueError, match="read-only"):
        t.numpy()[0] = 1
    assert np.shares_memory(t.numpy(), t.data)
    assert t.data.flags.writeable


def test_array_protocol():
    t = pynn.Tensor(f32(3))
    assert np.shares_memory(np.asarray(t), t.data)
    assert not np.shares_memory(np.array(t), t.data)
    assert np.asarray(t, np.float64).dtype == np.float64
    assert np.asarray(t.requires_grad_(), np.float32).flags.writeable is False
    with pytest.raises(ValueError, match=r"^__array__: float32 to float64 needs a copy"):
        t.__array__(np.float64, copy=False)


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
def test_operators_with_arrays_and_numbers_on_both_sides(op):
    a, b = f32(2, 3), f32(3) + 1
    x, y = pynn.Tensor(a), pynn.Tensor(b)
    for left, right in [(x, y), (x, b), (a, y), (x, 2), (2, x), (x, 2.5), (x, np.float64(2)), (np.float64(2), x),
                        (np.int64(2), x), (x, [1.0, 2.0, 3.0]), ([1, 2, 3], x), (x, True)]:  # fmt: skip
        result = op(left, right)
        assert isinstance(result, pynn.Tensor)
        assert result.dtype == np.float32
        expected = op(*(np.asarray(v, np.float32) for v in (left, right)))
        np.testing.assert_allclose(result.data, expected, rtol=1e-6)


def test_matmul_operator_with_arrays():
    a, b = f32(2, 3), f32(3, 4)
    for left, right in [(pynn.Tensor(a), b), (a, pynn.Tensor(b)), (pynn.Tensor(a), pynn.Tensor(b))]:
        np.testing.assert_array_equal((left @ right).data, a @ b)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4))]
)
def test_matmul_of_vectors(a, b):
    x, y = pynn.Tensor(f32(*a), requires_grad=True), pynn.Tensor(f32(*b), requires_grad=True)
    z = x @ y
    np.testing.assert_array_equal(z.data, f32(*a) @ f32(*b))
    z.sum().backward()
    assert x.grad.shape == a
    assert y.grad.shape == b


def test_no_promotion():
    x = pynn.ones(2)
    for other in (np.ones(2), pynn.ones(2, dtype="float64"), np.ones(2, np.int64)):
        for op in (operator.add, operator.mul, operator.pow):
            with pytest.raises(TypeError):
                op(x, other)
            with pytest.raises(TypeError):
                op(other, x)


def test_operands_that_are_no_numbers():
    for other in (None, "1", 1j, object(), {}):
        with pytest.raises(TypeError, match=r"^(add|sub): needs a Tensor, an array or a number, got "):
            pynn.ones(2) + other
        with pytest.raises(TypeError, match=r"^(add|sub): needs a Tensor, an array or a number, got "):
            other - pynn.ones(2)


def test_ufuncs_do_not_lose_the_graph_silently():
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(pynn.ones(2))


def test_a_tensor_is_not_added_into_an_array():
    a = f32(2)
    with pytest.raises(TypeError, match="ufunc"):
        a += pynn.ones(2, requires_grad=True)
    assert a.tolist() == [1, 2]


def test_comparisons_give_arrays():
    x = pynn.tensor([1.0, 2.0, 3.0])
    for op in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        for other in (2, np.float32(2), f32(3)[::-1], pynn.tensor([3.0, 2.0, 1.0])):
            expected = op(x.data, np.asarray(other))
            assert (op(x, other) == expected).all()
            reflected = op(np.asarray(other), x)
            assert type(reflected) is np.ndarray
            assert (reflected == op(np.asarray(other), x.data)).all()
    assert isinstance(pynn.tensor(1.0) == 1, np.ndarray)


def test_tensors_are_keys():
    a, b = pynn.ones(2), pynn.ones(2)
    assert {a: 1, b: 2}[b] == 2
    assert len({a, b, a}) == 2
