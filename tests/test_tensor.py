"""Tensor: construction, conversion, Python's protocols."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest
from tensor_tools import f32

import pynn
from pynn import functional as F


# -- construction ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        ([1.0, 2.0], "float32"),
        ([[1, 2.5]], "float32"),
        ([np.float64(1.0)], "float32"),
        ([], "float32"),
        (3, "int64"),
        ([1, 2], "int64"),
        (True, "bool"),
        ([True, False], "bool"),
        (np.float64(1), "float64"),
        (np.float32(1), "float32"),
        (np.ones(2), "float64"),
        (np.ones(2, np.float32), "float32"),
        (np.ones(2, np.uint8), "uint8"),
        (np.ones(2, bool), "bool"),
        (np.array(2.0), "float64"),
    ],
)
def test_dtype_rules(data, dtype):
    for make in (pynn.Tensor, pynn.tensor):
        t = make(data)
        assert t.dtype == dtype
        assert t.shape == np.shape(data)
        assert isinstance(t.data, np.ndarray)


@pytest.mark.parametrize(
    "data",
    [
        np.ones(2, np.float16),
        np.ones(2, complex),
        1j,
        None,
        "text",
        [None],
        object(),
        np.array(["a"]),
        np.longdouble(1),
    ],
)
def test_refused_dtypes(data):
    with pytest.raises(TypeError, match=r"^Tensor: needs float32, float64, integers or bool, got "):
        pynn.Tensor(data)


def test_refused_target_dtype():
    with pytest.raises(TypeError, match=r"for dtype float16"):
        pynn.Tensor([1.0], dtype=np.float16)
    with pytest.raises(TypeError, match=r"^Tensor: dtype is 'foo', needs float32, float64, an integer or bool$"):
        pynn.tensor([1.0], dtype="foo")


def test_ragged_lists():
    with pytest.raises(ValueError, match=r"^Tensor: not a rectangular array"):
        pynn.Tensor([[1.0], [1.0, 2.0]])


def test_dtype_argument_converts():
    assert pynn.Tensor(np.ones(2, np.float16), dtype="float32").dtype == np.float32
    assert pynn.Tensor([1, 2], dtype="float64", requires_grad=True).dtype == np.float64
    assert pynn.Tensor([1.0], dtype=">f4").dtype.isnative


def test_only_floats_require_grad():
    for data in ([1, 2], [True]):
        with pytest.raises(TypeError, match=r"^requires_grad: needs float32 or float64, got (int64|bool)"):
            pynn.Tensor(data, requires_grad=True)


def test_requires_grad_of_a_computed_tensor_cannot_be_unset():
    x = pynn.tensor([1.0]).requires_grad_()
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)
    assert not x.requires_grad_(False).requires_grad


@pytest.mark.parametrize(
    "array",
    [
        f32(4, 6)[::2, ::-1],
        f32(4, 6).T,
        np.asfortranarray(f32(3, 4)),
        f32(3, 4).astype(">f4"),
        f32(2, 3)[:, :, None][..., ::-1],
        np.broadcast_to(np.float32(2), (3, 2)),
        np.frombuffer(b"\0" + f32(4).tobytes(), np.uint8)[1:].view(np.float32),  # unaligned
        np.ma.masked_array(f32(3)),
        f32(4).view(type("Sub", (np.ndarray,), {})),
    ],
)
def test_unusual_arrays_are_normalised(array):
    t = pynn.Tensor(array)
    assert t.data.flags.c_contiguous
    assert t.data.flags.aligned
    assert t.data.dtype.isnative
    assert type(t.data) is np.ndarray
    np.testing.assert_array_equal(t.data, np.asarray(array))
    np.testing.assert_array_equal((t * 2).data, np.asarray(array) * 2)


def test_Tensor_shares_and_tensor_copies():  # noqa: N802
    a = f32(3)
    assert np.shares_memory(pynn.Tensor(a).data, a)
    assert not np.shares_memory(pynn.tensor(a).data, a)
    assert not np.shares_memory(pynn.tensor(pynn.Tensor(a)).data, a)


def test_0d_stays_0d():
    t = pynn.tensor(2.0)
    assert t.shape == ()
    assert (t + 1).shape == ()
    assert (t * t).item() == 4
    assert t[...].shape == ()
    assert t[None].shape == (1,)
    assert t.sum().shape == ()


def test_zero_size():
    t = pynn.zeros(0, 3, requires_grad=True)
    assert t.shape == (0, 3)
    assert len(t) == 0
    assert t.sum().item() == 0
    (t * 2).sum().backward()
    assert t.grad.shape == (0, 3)
    assert t[:, 1].shape == (0,)
    assert list(t) == []
    assert "shape=[0, 3]" in repr(t)


@pytest.mark.parametrize("make", [pynn.zeros, pynn.ones, pynn.randn])
def test_factories_take_a_tuple_and_name_bad_shapes(make):
    assert make((2, 3)).shape == make(2, 3).shape == (2, 3)
    assert make().shape == make(()).shape == ()
    for shape in ((-1, 2), (2**40, 2**40)):
        with pytest.raises(ValueError, match=rf"^{make.__name__}: shape \[{shape[0]}, {shape[1]}\]"):
            make(*shape)
    with pytest.raises(TypeError, match=rf"^{make.__name__}: shape must be integers, got \[2\.5\]"):
        make(2.5)


@pytest.mark.parametrize("make", [pynn.zeros, pynn.ones, pynn.randn])
def test_factories_name_bad_dtypes(make):
    for dtype in ("foo", None):
        with pytest.raises(TypeError, match=rf"^{make.__name__}: dtype is {dtype!r}, needs float32"):
            make(2, dtype=dtype)


def test_randn_does_not_truncate():
    with pytest.raises(TypeError, match=r"^randn: dtype is int64, needs float32 or float64$"):
        pynn.randn(2, dtype=np.int64)


@pytest.mark.parametrize("data", [2**70, [1, -(2**70)], np.array([2**70], object)], ids=["one", "list", "array"])
def test_integers_beyond_int64(data):
    with pytest.raises(ValueError, match=r"^Tensor: an integer is too large for int64$"):
        pynn.tensor(data)
    with pytest.raises(IndexError, match=r"^embedding: indices has -?1180591620717411303424, needs at most 92"):
        F.embedding(data, pynn.ones(2, 2))


def test_small_integers_in_an_array_of_objects_are_no_large_ones():
    with pytest.raises(TypeError, match=r"^Tensor: needs float32, .* got ndarray of dtype object$"):
        pynn.tensor(np.ones(3, object))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("3",), TypeError, "arange: stop is '3', needs a number"),
        ((np.nan,), ValueError, "arange: stop is nan, needs a finite number"),
        ((1, np.inf), ValueError, "arange: stop is inf, needs a finite number"),
        ((0, 1, 5e-324), ValueError, "arange: 0 to 1 by 5e-324 are more elements than memory can hold"),
        ((2**63, 2**63 + 2), ValueError, r"arange: 9.*8 to 9.*10 by 1 has an integer too large for int64"),
        ((2**70,), ValueError, r"arange: shape \[1180591620717411303424\] has more elements than memory can hold"),
    ],
)
def test_arange_names_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        pynn.arange(*arguments)


def test_arange_of_numpys_integers():
    for arguments in ((np.int8(-100), np.int8(100), 50), (np.int8(100), 200, 50), (np.uint8(200), np.uint8(99), -50)):
        numbers = pynn.arange(*arguments)
        assert numbers.dtype == np.int64
        assert numbers.tolist() == list(range(*map(int, arguments)))


def test_arange_without_a_step():
    with pytest.raises(ValueError, match=r"^arange: step is 0"):
        pynn.arange(0, 3, 0)


def test_numbers_that_no_float_holds():
    with pytest.raises(ValueError, match=r"^mul: an integer is too large for float32"):
        pynn.ones(2) * 10**400
    with pytest.raises(ValueError, match=r"^pow: an integer is too large for float32"):
        pynn.ones(2) ** 10**400


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_no_integer_is(number):
    with pytest.raises(TypeError, match=r"^mul: (nan|inf) beside an array of int64, needs float32 or float64$"):
        pynn.tensor([1, 2]) * number


def test_factories():
    assert pynn.zeros(2, 3).dtype == np.float32
    assert pynn.ones(2, dtype="float64", requires_grad=True).requires_grad
    assert pynn.ones().shape == ()
    assert pynn.arange(2, 8, 3).data.tolist() == [2, 5]
    assert pynn.arange(0, 1, 0.25).dtype == np.float32
    assert pynn.arange(3, dtype="float32").dtype == np.float32


def test_seed():
    pynn.seed(7)
    a, da = pynn.randn(4), F.dropout(pynn.ones(64))
    b, db = pynn.randn(4), F.dropout(pynn.ones(64))
    pynn.seed(7)
    assert (pynn.randn(4) == a).all()
    assert (F.dropout(pynn.ones(64)) == da).all()
    assert not (a == b).all()
    assert not (da == db).all()
    pynn.seed(2**64 - 1)
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match=r"^seed: needs an integer in 0"):
            pynn.seed(bad)
    with pytest.raises(TypeError, match=r"^seed: needs an integer, got float"):
        pynn.seed(1.5)


# -- Python protocols --------------------------------------------------------------------------------------------------
def test_scalars():
    t = pynn.tensor([[2.5]])
    assert float(t) == 2.5
    assert int(t) == 2
    assert t.item() == 2.5
    assert bool(t)
    assert not pynn.tensor(0.0)
    assert [10, 20, 30][pynn.tensor(1)] == 20
    assert (f"{t:.3f}", f"{pynn.tensor(7):>3d}", f"{t}") == ("2.500", "  7", str(t))
    assert type(pynn.tensor(3).item()) is int


def test_several_elements_are_no_scalar():
    t = pynn.ones(2)
    with pytest.raises(ValueError, match=r"^item: needs a tensor of one element, got shape \[2\]"):
        t.item()
    with pytest.raises(ValueError, match=r"^item"):
        float(t)
    with pytest.raises(ValueError, match=r"^item"):
        f"{t:.3f}"
    with pytest.raises(ValueError, match=r"^bool: the truth of a tensor of shape \[2\] is ambiguous"):
        bool(t)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(pynn.zeros(0))
    with pytest.raises(TypeError, match=r"^index"):
        operator.index(pynn.tensor(1.0))


def test_len_iter_contains():
    t = pynn.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert len(t) == 2
    first, second = t
    second.sum().backward()
    assert t.grad.tolist() == [[0, 0], [1, 1]]
    assert 3 in t
    assert 5 not in t
    assert pynn.tensor(4.0) in t
    with pytest.raises(TypeError, match=r"^len: a 0-d tensor"):
        len(pynn.tensor(1.0))
    with pytest.raises(TypeError, match=r"^iter: cannot iterate over a 0-d tensor"):
        iter(pynn.tensor(1.0))
    assert first.shape == (2,)


def test_repr():
    x = pynn.tensor([[1.0, 2.0]], requires_grad=True)
    assert repr(x) == "Tensor([[1., 2.]], dtype=float32, requires_grad=True)"
    assert repr(F.relu(x)) == "Tensor([[1., 2.]], dtype=float32, grad_fn=<relu>)"
    assert repr(pynn.tensor(1)) == "Tensor(1, dtype=int64)"
    big = repr(pynn.zeros(200, 100))
    assert "shape=[200, 100]" in big
    assert len(big) < 500
    assert repr(pynn.tensor([[1.0], [2.0]])) == "Tensor([[1.],\n        [2.]], dtype=float32)"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_of_leaves(duplicate):
    x = pynn.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    with pynn.no_grad():
        x += 1
    y = duplicate(x)
    assert (y.data == x.data).all()
    assert (y.grad == x.grad).all()
    assert y.requires_grad
    assert np.shares_memory(y.data, x.data) == (duplicate is copy.copy)
    (y * y).sum().backward()


def test_subclasses_keep_their_attributes():
    class Named(pynn.Tensor):
        pass

    x = Named([1.0])
    x.name = "x"
    y = copy.deepcopy(x)
    assert type(y) is Named
    assert y.name == "x"
    assert type(x + 1) is pynn.Tensor


def test_a_computed_tensor_is_not_copied_with_its_history():
    y = pynn.tensor([1.0], requires_grad=True) * 2
    for duplicate in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(RuntimeError, match=r"^copy: a tensor computed by mul has a history"):
            duplicate(y)
    assert copy.deepcopy(y.detach()).data == [2]


def test_info_and_lazy_modules():
    info = pynn.info()
    assert info["pynn"] == pynn.__version__
    assert info["numpy"] == np.__version__
    assert {"python", "isa", "num_threads"} <= info.keys()
    assert set(pynn.debug.kernel_counts()) >= set()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pynn.nonsense  # noqa: B018
