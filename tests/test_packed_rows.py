"""`_core.PackedRows` and the layer that reads it: values against the oracle, what is refused, hostile matrices."""

import sys

import numpy as np
import oracle
import pytest
import scipy.sparse
from closeness import assert_close

from pynn import _core

DTYPES = [np.float32, np.float64]
ACTIVATIONS = ["none", "relu", "leaky_relu", "sigmoid", "tanh"]
#         rows of x, columns, outputs, rows of a batch
SHAPES = [(1, 1, 1, 1), (5, 63, 3, 9), (50, 64, 16, 7), (90, 200, 33, 70), (300, 785, 100, 210), (40, 513, 257, 600)]


def matrix(rng, rows, columns, dtype, share=0.2):
    x = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < share)
    x[:, columns // 2 :: 7] = 0
    x[rows // 2] = 0
    return x.astype(np.float32).astype(dtype)


def packed(x):
    rows = _core.PackedRows()
    assert rows.pack(x)
    return rows


def filled(weight):
    """Return a weight [columns, out] with columns of zeros up to whole cache lines, and now and then one more."""
    out = weight.shape[1]
    width = (-(-out * weight.itemsize // 64) + out % 2) * 64 // weight.itemsize
    return np.pad(weight, ((0, 0), (0, width - out)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values(shape, dtype):
    rows, columns, out, count = shape
    rng = np.random.default_rng(0)
    x, weight, bias = matrix(rng, rows, columns, dtype), rng.normal(size=(columns, out)), rng.normal(size=out)
    weight, bias, dy = (a.astype(np.float32) for a in (weight, bias, rng.normal(size=(count, out))))
    numbers = rng.integers(0, rows, count)
    ours, theirs = packed(x), oracle.PackedRows()
    theirs.x = x.astype(np.float64)
    scale = np.abs(theirs.x[numbers]) @ np.abs(weight) + np.abs(bias)
    scale_of_weight = np.abs(theirs.x[numbers]).T @ np.abs(dy)
    for activation in ACTIVATIONS:
        w = filled(weight.astype(dtype))
        y = _core.packed_linear(ours, numbers, w, bias.astype(dtype), activation)
        args = theirs, numbers, weight.astype(np.float64), bias.astype(np.float64)
        assert_close(y, oracle.packed_linear(*args, activation), columns + 4, np.maximum(scale, 1), activation)
        dweight, dbias = _core.packed_linear_backward(dy.astype(dtype), y, ours, numbers, w, activation)
        args = dy.astype(np.float64), y.astype(np.float64), theirs, numbers, w
        expected, expected_bias = oracle.packed_linear_backward(*args, activation)
        assert dweight.shape == w.shape
        assert not dweight[:, out:].any()
        assert_close(dweight[:, :out], expected[:, :out], count + 4, scale_of_weight, activation)
        assert_close(dbias, expected_bias, count + 4, np.abs(dy).sum(axis=0), activation)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_on_any_threads(dtype):
    rng = np.random.default_rng(1)
    x, dy = matrix(rng, 400, 1000, dtype), rng.normal(size=(301, 120)).astype(dtype)
    weight, bias = filled(rng.normal(size=(1000, 120)).astype(dtype)), rng.normal(size=120).astype(dtype)
    numbers, found = rng.permutation(400)[:301], []
    before = _core.num_threads()
    try:
        for threads in (1, 2, 3, 5):
            _core.set_num_threads(threads)
            rows = packed(x)
            y = _core.packed_linear(rows, numbers, weight, bias, "relu")
            found.append((y, *_core.packed_linear_backward(dy, y, rows, numbers, weight, "relu")))
    finally:
        _core.set_num_threads(before)
    for results in found[1:]:
        assert [a.tobytes() for a in results] == [a.tobytes() for a in found[0]]


def test_a_row_does_not_depend_on_the_others():
    rng = np.random.default_rng(2)
    rows, weight, bias = packed(matrix(rng, 100, 300, np.float32)), np.ones((300, 64), np.float32), np.ones(64, "f4")
    weight[...] = rng.normal(size=weight.shape)
    together = _core.packed_linear(rows, np.arange(100), weight, bias, "tanh")
    for i in (0, 41, 99):
        assert _core.packed_linear(rows, np.array([i]), weight, bias, "tanh").tobytes() == together[i].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_packs_what_is_finite_and_mostly_zeros(dtype):
    rng, rows = np.random.default_rng(3), _core.PackedRows()
    assert rows.shape is None
    x = matrix(rng, 5000, 70, dtype)
    for bad in (np.nan, np.inf, -np.inf):
        for at in ((0, 0), (4999, 69), (2500, 64)):
            other = x.copy()
            other[at] = bad
            assert not rows.pack(other)
    assert not rows.pack(np.ones((100, 70), dtype))
    assert not rows.pack(np.concatenate([np.zeros((4000, 70), dtype), np.ones((3000, 70), dtype)]))
    assert rows.shape is None
    assert rows.pack(x)
    assert rows.pack(np.zeros((3, 65), dtype))
    assert rows.shape == (3, 65)
    assert not rows.pack(np.ones((100, 70), dtype))
    assert rows.shape == (3, 65)  # as before
    assert rows.pack(np.zeros((0, 5), dtype))
    assert rows.pack(np.zeros((4, 0), dtype))
    rows.clear()
    assert rows.shape is None


def test_without_columns_the_layer_is_its_bias():
    x, numbers, weight = packed(np.zeros((5, 0), np.float32)), np.array([4, 0, 4]), np.zeros((0, 16), np.float32)
    bias, dy = np.array([1, -2, 3], np.float32), np.arange(9, dtype=np.float32).reshape(3, 3)
    for _ in range(2):  # the second time in memory that had other values
        y = _core.packed_linear(x, numbers, weight, bias, "relu")
        assert y.tolist() == [[1, 0, 3]] * 3
        dweight, dbias = _core.packed_linear_backward(dy, y, x, numbers, weight, "relu")
        assert dweight.shape == (0, 16)
        assert dbias.tolist() == [9, 0, 15]


def test_take_moves():
    a, b = packed(np.zeros((3, 65), np.float32)), _core.PackedRows()
    b.take(a)
    assert (a.shape, b.shape) == (None, (3, 65))
    b.take(a)
    assert b.shape is None
    a.pack(np.zeros((2, 2)))
    a.take(a)
    assert a.shape == (2, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_csr_in_any_order_is_the_dense_matrix(dtype):
    rng = np.random.default_rng(4)
    x = matrix(rng, 200, 130, dtype)
    csr = scipy.sparse.csr_array(x)
    entries = rng.permutation(csr.nnz)
    row, column = (part[entries] for part in csr.tocoo().coords)
    value = csr.data[entries]
    order = np.argsort(row, kind="stable")  # within a row columns stay in random order
    halves = value[order] / 2  # each twice, and explicit zeros
    indices = np.concatenate([np.stack([column[order]] * 2 + [column[order] * 0], axis=1)]).ravel()
    values = np.stack([halves, halves, halves * 0], axis=1).ravel()
    rows = _core.PackedRows()
    assert rows.pack_csr(csr.indptr.astype(np.int64) * 3, indices.astype(np.int64), values, 130)
    assert rows.shape == x.shape
    weight, bias = filled(rng.normal(size=(130, 20)).astype(dtype)), np.ones(20, dtype)
    numbers = rng.permutation(200)
    expected = _core.packed_linear(packed(x), numbers, weight, bias, "none")
    assert _core.packed_linear(rows, numbers, weight, bias, "none").tobytes() == expected.tobytes()


def test_csr_that_leaves_its_arrays_is_refused():
    rows, values = _core.PackedRows(), np.ones(3, np.float32)

    def pack(offsets, indices, columns=4):
        return rows.pack_csr(np.array(offsets, np.int64), np.array(indices, np.int64), values, columns)

    assert pack([0, 3, 3], [3, 0, 1])
    for offsets in ([0, 4], [-1, 3], [0, 3, 2], [3, 0], [0, 2, 1, 3], [0, 2**62, 3], [2**63 - 1, -(2**63)]):
        with pytest.raises(IndexError, match=r"^PackedRows\.pack_csr: a row is at .* of 3 values"):
            pack(offsets, [0, 1, 2])
    for indices in ([0, 1, 4], [-1, 1, 2], [0, 2**62, 1]):
        with pytest.raises(IndexError, match=r"^PackedRows\.pack_csr: column .* is not one of the 4"):
            pack([0, 3], indices)
    with pytest.raises(ValueError, match=r"^PackedRows\.pack_csr: indices is \[2\], needs \[3\]"):
        pack([0, 3], [0, 1])
    with pytest.raises(ValueError, match=r"^PackedRows\.pack_csr: offsets \[0\] needs 1 axis"):
        pack([], [0, 1, 2])
    with pytest.raises(ValueError, match=r"^PackedRows\.pack_csr: .*negative size"):
        pack([0, 3], [0, 1, 2], -1)
    with pytest.raises(ValueError, match=r"^PackedRows\.pack_csr: .*more elements than memory can hold"):
        pack([0, 3], [0, 1, 2], 2**63 - 1)
    values[1] = np.nan
    assert not pack([0, 3], [0, 1, 2])
    assert rows.shape == (2, 4)


def test_layers_refuse_what_does_not_fit():
    rows = packed(np.zeros((5, 70), np.float32))
    numbers, weight, bias = np.arange(5), np.zeros((70, 32), np.float32), np.zeros(20, np.float32)
    y = _core.packed_linear(rows, numbers, weight, bias, "relu")
    for bad in (-1, 5, 2**62):
        with pytest.raises(IndexError, match=rf"^packed_linear: row {bad} at position 1 is not one of the 5 rows"):
            _core.packed_linear(rows, np.array([0, bad]), weight, bias, "relu")
        with pytest.raises(IndexError, match=rf"^packed_linear_backward: row {bad} at position 0"):
            _core.packed_linear_backward(y[:1], y[:1], rows, np.array([bad]), weight, "relu")
    with pytest.raises(
        ValueError, match=r"^packed_linear: weight \[70, 20\] needs 2 axes, the second a multiple of 16 and at least 20"
    ):
        _core.packed_linear(rows, numbers, weight[:, :20].copy(), bias, "relu")
    with pytest.raises(ValueError, match=r"^packed_linear: x has 70 columns, weight 71"):
        _core.packed_linear(rows, numbers, np.zeros((71, 32), np.float32), bias, "relu")
    with pytest.raises(ValueError, match=r"^packed_linear_backward: x has 70 columns, weight 64"):
        _core.packed_linear_backward(y, y, rows, numbers, weight[:64].copy(), "relu")
    with pytest.raises(ValueError, match=r"^packed_linear_backward: y is \[4, 20\], needs \[5, 20\]"):
        _core.packed_linear_backward(y, y[:4], rows, numbers, weight, "relu")
    with pytest.raises(ValueError, match=r"^packed_linear: x holds no rows of the weight's dtype"):
        _core.packed_linear(rows, numbers, np.zeros((70, 32)), np.zeros(20), "relu")
    with pytest.raises(TypeError, match=r"^packed_linear: rows is int32"):
        _core.packed_linear(rows, numbers.astype(np.int32), weight, bias, "relu")
    with pytest.raises(ValueError, match=r"^packed_linear_backward: weight \[70, 16\] needs 2 axes"):
        _core.packed_linear_backward(y, y, rows, numbers, weight[:, :16].copy(), "relu")
    with pytest.raises(TypeError, match=r"^PackedRows\.pack: x is int64"):
        rows.pack(np.zeros((5, 70), np.int64))
    rows.clear()
    with pytest.raises(ValueError, match="x holds no rows"):
        _core.packed_linear(rows, numbers, weight, bias, "relu")
    assert _core.packed_linear(packed(np.zeros((0, 70), "f4")), numbers[:0], weight, bias, "relu").shape == (0, 20)
    dweight, dbias = _core.packed_linear_backward(
        y[:0], y[:0], packed(np.zeros((0, 70), "f4")), numbers[:0], weight, "relu"
    )
    assert not dweight.any()
    assert not dbias.any()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps to the limit")
def test_no_memory_to_pack():
    import resource

    rows = packed(np.eye(100, dtype=np.float32))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**39, limits[1]))
    try:
        with pytest.raises(MemoryError, match=r"^PackedRows\.pack_csr: no memory to pack \[1, 8796093022208\]"):
            rows.pack_csr(np.array([0, 1]), np.array([7]), np.ones(1), 2**43)  # 2^40 bytes of bits
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert rows.shape == (100, 100)
