"""Tensors by parts and axes: indexing, shapes, reductions."""

import numpy as np
import pytest
from tensor_tools import f32

import pynn


def central_difference(f, x, eps=1e-6):
    """Gradient of the sum of f at the float64 array x."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        high, low = x.copy(), x.copy()
        high[i] += eps
        low[i] -= eps
        dx[i] = (f(pynn.tensor(high)).data.sum() - f(pynn.tensor(low)).data.sum()) / (2 * eps)
    return dx


# -- indexing ----------------------------------------------------------------------------------------------------------
KEYS = [
    0,
    -1,
    np.int64(1),
    slice(None),
    slice(1, None),
    slice(None, None, -1),
    slice(None, None, 2),
    slice(-1, 0, -2),
    slice(5, 2),
    slice(100, 200),
    None,
    ...,
    (0, 1),
    (0, 1, 2),
    (slice(None), 1),
    (..., 0),
    (None, ..., None),
    (slice(None), None, slice(None, None, -2), 3),
    (0, ..., slice(1, 3)),
    (slice(0, 0), 1),
    (),
    [0, 2, 0],
    np.array([2, 2, -1]),
    ([0, 1], [1, 2]),
    (slice(None), [0, 0]),
    (slice(None), 1, [0, 3, 3]),
    ([0, 1], slice(None), [1, 2]),
    np.array([[0, 1], [1, 0]]),
    np.array([True, False, True]),
    True,
    np.arange(36).reshape(3, 3, 4) % 2 == 0,
    (slice(None, None, -1), np.array([True, True, False])),
    [],
]


@pytest.mark.parametrize(
    "key", KEYS, ids=lambda key: "mask" if isinstance(key, np.ndarray) and key.ndim > 2 else repr(key)
)
def test_indexing_as_numpy(key):
    a = f32(3, 3, 4).astype(np.float64)
    x = pynn.tensor(a, requires_grad=True)
    y = x[key]
    np.testing.assert_array_equal(y.data, a[key])
    assert y.shape == a[key].shape
    assert y.data.flags.c_contiguous
    assert not np.shares_memory(y.data, x.data)
    (y * y).sum().backward()
    np.testing.assert_allclose(x.grad, central_difference(lambda t: t[key] * t[key], a), atol=1e-6)
    labels = pynn.tensor(a.astype(np.int64))
    np.testing.assert_array_equal(labels[key].data, labels.data[key])


def test_indexing_with_tensors():
    x = pynn.tensor(f32(3, 2))
    assert x[pynn.tensor([2, 0])].data.tolist() == [[5, 6], [1, 2]]
    assert x[pynn.tensor(1)].data.tolist() == [3, 4]
    assert x[pynn.tensor([True, False, False]), pynn.tensor(1)].data.tolist() == [2]


@pytest.mark.parametrize(
    "key", [3, -4, (0, 3), (0, 0, 0), (..., ...), [5], 1.5, "a", (slice(None), -9), np.ones(5, bool)]
)
def test_bad_indices(key):
    x = pynn.tensor(f32(3, 3))
    with pytest.raises(IndexError, match=r"^index: "):
        x[key]


@pytest.mark.parametrize(
    ("key", "error"), [(slice(1.0), TypeError), (slice(None, None, 0), ValueError), (([0], slice(0.5)), TypeError)]
)
def test_bad_slices(key, error):
    with pytest.raises(error, match=r"^index: .*slice"):
        pynn.tensor(f32(3, 3))[key]


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (9, 1.0, IndexError),
        (0, [1.0, 2.0], ValueError),
        (0, "x", ValueError),
        (0, [5, 10**400, 5], OverflowError),
        (0, np.array([5, "x", 5], object), ValueError),
    ],
)
def test_a_refused_setitem_names_the_shape(key, value, error):
    x = pynn.tensor(f32(3, 3))
    with pytest.raises(error, match=r"^setitem: shape \[3, 3\]: "):
        x[key] = value
    assert x.tolist() == f32(3, 3).tolist()


def test_setitem():
    x = pynn.tensor(f32(3, 2))
    x[0] = 0
    x[x > 4] = pynn.tensor(-1.0)
    x[pynn.tensor([1]), 0] = np.float64(7)
    assert x.data.tolist() == [[0, 0], [7, 4], [-1, -1]]


def test_in_place_operators_write_in_place():
    x = pynn.tensor([4.0, 8.0])
    array = x.data
    x += 1
    x -= 3
    x *= pynn.tensor([1.0, 2.0])
    x /= 2
    assert x.data is array
    assert array.tolist() == [1, 6]
    with pytest.raises(ValueError, match=r"^add: result \[3, 2\] does not fit in place into \[2\]"):
        x += np.ones((3, 2), np.float32)
    with pytest.raises(TypeError):
        x += np.ones(2)
    assert array.tolist() == [1, 6]
    array.flags.writeable = False
    with pytest.raises(ValueError, match=r"^mul: in place into \[2\]: .*read-only"):
        x *= 2


# -- shapes, axes ------------------------------------------------------------------------------------------------------
def test_shape_methods():
    x = pynn.tensor(f32(2, 3, 4))
    assert x.ndim == 3
    assert x.size == 24
    assert x.T.shape == (4, 3, 2)
    assert x.reshape(6, -1).shape == x.reshape((6, 4)).shape == (6, 4)
    assert x.reshape(-1).shape == (24,)
    assert x.flatten().shape == (24,)
    assert x.flatten(1).shape == (2, 12)
    assert x.transpose().shape == (4, 3, 2)
    assert x.transpose(0, 2, 1).shape == x.transpose((0, 2, 1)).shape == x.transpose(0, -1, 1).shape == (2, 4, 3)
    assert pynn.tensor(1.0).T.shape == ()
    assert pynn.tensor(1.0).flatten().shape == (1,)


def test_reshape_shares_memory():
    x = pynn.tensor(f32(2, 3))
    assert np.shares_memory(x.reshape(6).data, x.data)
    with pytest.raises(ValueError, match=r"^reshape: \[2, 3\] of 6 elements does not fit \[4\]"):
        x.reshape(4)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-1, 0), [1], ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var"])
def test_reductions_as_numpy(name, axis, keepdims):
    if name == "var" and axis == ():
        with np.errstate(all="ignore"):
            assert pynn.ones(2).var(()).shape == (2,)
        return
    a = np.random.default_rng(3).normal(size=(2, 3, 4))
    options = {"ddof": 1} if name == "var" else {}
    expected = getattr(np, name)(a, tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims, **options)
    x = pynn.tensor(a, requires_grad=True)
    y = getattr(x, name)(axis, keepdims)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.data, expected, rtol=1e-12)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, central_difference(lambda t: getattr(t, name)(axis), a), atol=1e-7)


def test_bad_axes():
    x = pynn.ones(2, 3)
    with pytest.raises(ValueError, match=r"^sum: axis 2 is out of range for 2 axes"):
        x.sum(2)
    with pytest.raises(ValueError, match=r"^mean: axes \[0, -2\] name an axis twice"):
        x.mean((0, -2))
    with pytest.raises(TypeError, match=r"^max: axis is .*, needs an integer"):
        x.max(1.0)


def test_argmax():
    x = pynn.tensor([[1.0, 5.0], [7.0, 7.0]], requires_grad=True)
    assert x.argmax().item() == 2
    assert x.argmax(1).data.tolist() == [1, 0]
    assert x.argmax(-2).dtype == np.int64
    assert not x.argmax(0).requires_grad
    assert (x.argmax(1) == np.array([1, 1])).mean() == 0.5


def test_astype():
    x = pynn.tensor([1.0, 2.0], requires_grad=True)
    y = x.astype("float64")
    (y * y).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 4]
    assert x.astype("float32") is x
    assert not x.astype("int64").requires_grad
    for dtype in ("float16", None):
        with pytest.raises(TypeError, match=r"^astype: "):
            x.astype(dtype)
