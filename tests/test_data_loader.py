"""Batches and splits: every sample once, the same order for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pynn
from pynn import _core
from pynn.data import MNIST_MEAN, MNIST_STD, DataLoader, normalize_images, random_split, take


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("batch_size", [1, 2, 8, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_has_every_sample_once(n: int, batch_size: int, shuffle: bool) -> None:
    x, y = np.arange(n * 6).reshape(n, 2, 3), np.arange(n)
    loader = DataLoader(x, y, batch_size=batch_size, shuffle=shuffle, seed=3)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-n // batch_size)
    assert [len(by) for _, by in batches[:-1]] == [batch_size] * (len(batches) - 1)
    seen = np.concatenate([by for _, by in batches])
    assert sorted(seen.tolist()) == list(range(n))
    np.testing.assert_array_equal(np.concatenate([bx for bx, _ in batches]), x[seen])
    if not shuffle:
        assert seen.tolist() == list(range(n))


def test_drop_last() -> None:
    loader = DataLoader(np.arange(10), batch_size=4, drop_last=True)
    assert len(loader) == 2
    assert [batch.tolist() for (batch,) in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(DataLoader(np.arange(8), batch_size=4, drop_last=True)) == 2


def order(loader: DataLoader) -> list[int]:
    return [int(i) for (batch,) in loader for i in batch]


def test_order_depends_on_seed_and_epoch_only() -> None:
    def make(seed: int, batch_size: int = 7) -> DataLoader:
        return DataLoader(np.arange(50), batch_size=batch_size, shuffle=True, seed=seed)

    first, second = make(5), make(5, batch_size=16)
    epochs = [order(first) for _ in range(3)]
    assert [order(second) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order(make(6)) != epochs[0]
    resumed = make(5)
    resumed.epoch = 2
    assert order(resumed) == epochs[2]


@pytest.mark.parametrize(("epoch", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_that_is_none_is_refused(epoch: Any, error: type[Exception], shuffle: bool) -> None:
    loader = DataLoader(np.arange(4), shuffle=shuffle)
    loader.epoch = epoch
    with pytest.raises(error, match=r"^DataLoader: epoch is .*needs"):
        iter(loader)
    assert loader.epoch == epoch


def test_an_abandoned_or_parallel_epoch_does_not_disturb_the_next() -> None:
    a, b = (DataLoader(np.arange(20), batch_size=3, shuffle=True, seed=1) for _ in range(2))
    expected = [order(a), order(a)]
    one, two = iter(b), iter(b)
    assert b.epoch == 2
    mixed = list(zip(one, two, strict=True))
    assert [int(i) for (x,), _ in mixed for i in x] == expected[0]
    assert [int(i) for _, (x,) in mixed for i in x] == expected[1]


def test_seed_none_follows_from_pynn_seed() -> None:
    def two_loaders() -> list[DataLoader]:
        pynn.seed(5)
        return [DataLoader(np.arange(100), shuffle=True) for _ in range(2)]

    a, b = two_loaders()
    assert a.seed != b.seed
    assert [loader.seed for loader in two_loaders()] == [a.seed, b.seed]
    assert order(DataLoader(np.arange(100), shuffle=True, seed=a.seed)) == order(a)


def test_a_loader_that_does_not_shuffle_takes_no_random_number() -> None:
    pynn.seed(5)
    expected = DataLoader(np.arange(3), shuffle=True).seed
    pynn.seed(5)
    assert DataLoader(np.arange(3)).seed == 0
    assert DataLoader(np.arange(3), shuffle=True).seed == expected


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a,
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1][::-1],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
    ],
    ids=["contiguous", "fortran", "strided", "negative strides", "big-endian"],
)
def test_batches_are_new_contiguous_arrays(shuffle: bool, layout: Any) -> None:
    x = layout(np.arange(60, dtype=np.int32).reshape(10, 3, 2))
    loader = DataLoader(x, np.arange(10), batch_size=4, shuffle=shuffle, seed=0)
    for bx, i in loader:
        assert bx.flags.c_contiguous
        assert not np.shares_memory(bx, x)
        np.testing.assert_array_equal(bx, x[i])


def test_one_sequence_of_arrays_is_unpacked() -> None:
    x, y = np.arange(4), np.arange(4) * 2
    for arguments in ((x, y), ((x, y),), ([x, y],)):
        assert [b.tolist() for b in next(iter(DataLoader(*arguments, batch_size=2)))] == [[0, 1], [0, 2]]


def test_transform() -> None:
    loader = DataLoader(np.arange(4), np.ones(4), batch_size=2, transform=lambda x, y: (x * 10, y, x))
    assert [a.tolist() for a in list(loader)[1]] == [[20, 30], [1, 1], [2, 3]]
    with pytest.raises(TypeError, match="DataLoader: transform returned ndarray, needs a tuple"):
        next(iter(DataLoader(np.arange(4), transform=lambda x: x)))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {}, ValueError, "needs at least one array"),
        (((),), {}, ValueError, "needs at least one array"),
        ((np.zeros(3), np.zeros(4)), {}, ValueError, "arrays differ in length: 3, 4"),
        ((np.zeros((0, 2)),), {}, ValueError, "no samples"),
        ((np.float32(1),), {}, ValueError, r"array 0 has shape \[\]"),
        (([1, 2, 3],), {}, TypeError, "argument 0 is a int"),
        (("ab",), {}, TypeError, "argument 0 is a str"),
        ((np.array([None, 1]),), {}, TypeError, "dtype object"),
        ((np.zeros(3),), {"batch_size": 0}, ValueError, "batch_size is 0, needs at least 1"),
        ((np.zeros(3),), {"batch_size": -4}, ValueError, "batch_size is -4"),
        ((np.zeros(3),), {"batch_size": True}, TypeError, "batch_size is True, needs an integer"),
        ((np.zeros(3),), {"batch_size": 2.0}, TypeError, "batch_size is 2.0, needs an integer"),
        ((np.zeros(3),), {"seed": -1}, ValueError, "seed is -1, needs at least 0"),
        ((np.zeros(3),), {"seed": "0"}, TypeError, "seed is '0', needs an integer"),
        ((np.zeros(3),), {"transform": 3}, TypeError, "transform is a int, needs a function or None"),
        ((np.zeros(3),), {"batch_size": 4, "drop_last": True}, ValueError, "drop_last leaves no batch"),
    ],
)
def test_loader_refuses(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"DataLoader: .*{message}"):
        DataLoader(*arguments, **options)


@pytest.mark.parametrize("lengths", [[7, 3], [10], [0, 10], [0.7, 0.3], [1.0], [0.5, 0.25, 0.25], [1 / 3] * 3])
def test_split_is_an_exact_partition(lengths: list[float]) -> None:
    parts = random_split(10, lengths, seed=4)
    assert len(parts) == len(lengths)
    assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    if isinstance(lengths[0], int):
        assert [len(part) for part in parts] == lengths
    x, y = np.arange(30).reshape(10, 3), np.arange(10)
    for indices, (px, py) in zip(parts, random_split((x, y), lengths, seed=4), strict=True):
        np.testing.assert_array_equal(px, x[indices])
        np.testing.assert_array_equal(py, indices)
        assert not np.shares_memory(px, x)


def test_split_sizes_of_fractions_are_pytorchs() -> None:
    # torch.utils.data.random_split(range(n), fractions) gives these lengths
    assert [len(part) for part in random_split(10, [1 / 3] * 3)] == [4, 3, 3]
    assert [len(part) for part in random_split(11, [0.5, 0.25, 0.25])] == [6, 3, 2]
    assert [len(part) for part in random_split(100, [0.29, 0.71])] == [29, 71]


def test_split_is_random_and_repeatable() -> None:
    first = random_split(100, [50, 50], seed=0)[0].tolist()
    assert first == random_split(100, [50, 50], seed=0)[0].tolist()
    assert first != random_split(100, [50, 50], seed=1)[0].tolist()
    assert first != sorted(first)


@pytest.mark.parametrize(
    ("data", "lengths", "error", "message"),
    [
        (10, [], ValueError, "lengths is empty"),
        (10, [5, 6], ValueError, "sizes with the sum 10"),
        (10, [11, -1], ValueError, "sizes with the sum 10"),
        (10, [0.5, 0.6], ValueError, "fractions with the sum 1"),
        (10, [1.5, -0.5], ValueError, "fractions with the sum 1"),
        (10, [float("nan"), 1.0], ValueError, "fractions with the sum 1"),
        (10, [5, 0.5], TypeError, "all int"),
        (10, 5, TypeError, "lengths is 5, needs a sequence"),
        (10, None, TypeError, "lengths is None, needs a sequence"),
        (10, [True, 9], TypeError, "all int"),
        (-1, [1.0], ValueError, "-1 samples"),
        (True, [1], TypeError, "argument 0 is a bool"),
        ((np.zeros(2), np.zeros(3)), [1, 1], ValueError, "differ in length"),
        ("abc", [3], TypeError, "argument 0 is a str"),
    ],
)
def test_split_refuses(data: Any, lengths: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"random_split: .*{message}"):
        random_split(data, lengths)


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 1, 28, 28), (1, 3, 7), (0, 28, 28)])
def test_normalize_images(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    out = normalize_images(images)
    expected = (images.astype(np.float64) / 255 - MNIST_MEAN) / MNIST_STD
    assert out.dtype == np.float32
    assert out.shape == (shape[0], 1, *shape[-2:])
    assert out.flags.c_contiguous
    # Two rounded operations on values up to 255 / (255 * MNIST_STD) = 3.25: at most 2 units of 2**-23 * 2.
    np.testing.assert_allclose(out.reshape(shape), expected, rtol=0, atol=2**-21)
    other = normalize_images(images, 0.5, 0.25)  # values from -2 to 2: the same bound
    np.testing.assert_allclose(other.reshape(shape), (images / 255 - 0.5) / 0.25, rtol=0, atol=2**-21)


def test_normalize_images_of_any_layout(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    view = images[::-2].transpose(0, 2, 1)
    np.testing.assert_array_equal(normalize_images(view), normalize_images(view.copy()))
    assert normalize_images(view).flags.c_contiguous


@pytest.mark.parametrize("bad", [np.zeros((2, 28, 28), np.float32), [[1, 2]], np.zeros((2, 28, 28), np.int8)])
def test_normalize_images_refuses_types(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"normalize_images: got .*, needs a uint8 array"):
        normalize_images(bad)


@pytest.mark.parametrize("shape", [(), (28,), (28, 28), (2, 3, 28, 28), (1, 1, 1, 2, 2)])
def test_normalize_images_refuses_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="normalize_images: got"):
        normalize_images(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"std": 0}, ValueError),
        ({"std": np.float64(0)}, ValueError),
        ({"std": -0.3}, ValueError),
        ({"mean": np.nan}, ValueError),
        ({"mean": "0.1"}, TypeError),
    ],
)
def test_normalize_images_refuses_numbers(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^normalize_images: {next(iter(options))} is .*, needs"):
        normalize_images(np.zeros((1, 2, 2), np.uint8), **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.bool_, "S3", ">f4", "f4,u1"])
@pytest.mark.parametrize("shape", [(5,), (1, 3), (7, 2, 0), (300, 131), (33, 5, 5)])
def test_take_equals_numpys_indexing(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> None:
    array = rng.integers(0, 2, shape).astype(dtype)
    for count in (0, 1, 400):
        rows = rng.integers(-shape[0], shape[0], count)
        for threads in (1, 2, 3):
            got = with_threads(threads, lambda rows=rows: take(array, rows))
            np.testing.assert_array_equal(got, array[rows], strict=True)
            assert got.flags.c_contiguous
            assert got.flags.writeable
            assert not np.may_share_memory(got, array)


def with_threads(threads: int, function: Any) -> Any:
    before = pynn.num_threads()
    pynn.set_num_threads(threads)
    try:
        return function()
    finally:
        pynn.set_num_threads(before)


def test_take_of_any_layout_and_index_type(rng: np.random.Generator) -> None:
    array = rng.integers(0, 9, (6, 5))
    for rows in ([1, -1], np.array([1, 5], np.uint8), np.arange(10)[::2][:3], []):
        for x in (array, array.T.copy().T, array[:, ::2], np.array(array, object)):
            np.testing.assert_array_equal(take(x, rows), x[np.array(rows, np.int64)], strict=True)


@pytest.mark.parametrize(
    ("shape", "rows", "error", "message"),
    [
        ((3, 2), [0, 3], IndexError, "row 3 at position 1 is not one of the 3 rows"),
        ((3, 2), [-4], IndexError, "row -4 at position 0"),
        ((0, 2), [0], IndexError, "not one of the 0 rows"),
        ((3, 2), np.array([2**64 - 1], np.uint64), IndexError, "row 18446744073709551615 is not one of the 3 rows"),
        ((3, 2), [[0]], ValueError, r"got \[3, 2\] and \[1, 1\]"),
        ((), [0], ValueError, r"got \[\] and \[1\]"),
        ((3, 2), [0.5], TypeError, "must hold integers, got float64"),
        ((3, 2), [True, False, True], TypeError, "must hold integers, got bool"),
    ],
)
def test_take_refuses(shape: tuple[int, ...], rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^take: .*{message}"):
        take(np.zeros(shape), rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, np.bool_])
def test_rows_in_a_tensor_take_a_tensor(rng: np.random.Generator, dtype: Any) -> None:
    array = rng.integers(0, 2, (9, 2, 3)).astype(dtype)
    rows = rng.integers(-9, 9, 20)
    got = take(array, pynn.tensor(rows))
    assert isinstance(got, pynn.Tensor)
    assert not got.requires_grad
    np.testing.assert_array_equal(got.data, array[rows], strict=True)


def test_rows_in_a_tensor_are_never_converted() -> None:
    with pytest.raises(TypeError, match="take: rows is int32, needs int64"):
        take(np.zeros(3), pynn.tensor(np.zeros(2, np.int32)))
    with pytest.raises(TypeError, match=r"take: x \[2, 2\] is not C-contiguous"):
        take(np.zeros((2, 4))[:, ::2], pynn.tensor(np.zeros(2, np.int64)))
    with pytest.raises(ValueError, match=r"take: rows \[1, 2\] needs 1 axis"):
        take(np.zeros(3), pynn.tensor(np.zeros((1, 2), np.int64)))


def test_take_refuses_rows_of_any_layout() -> None:
    for array in (np.zeros((3, 4))[:, ::2], np.zeros(3, object)):
        with pytest.raises(IndexError, match=r"^take: index 3 is out of bounds"):
            take(array, [3])


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy before 2.0 has no such strings")
def test_take_does_not_copy_references_to_strings() -> None:
    strings = np.array(["a" * 100, "b"], np.dtypes.StringDType())  # their text lies elsewhere
    assert take(strings, [1, 0]).tolist() == ["b", "a" * 100]
    with pytest.raises(TypeError, match="needs plain elements"):
        take(strings, pynn.tensor([1, 0]))


def test_take_rows_of_the_core_refuses_what_it_cannot_copy() -> None:
    rows = np.zeros(1, np.int64)
    with pytest.raises(TypeError, match="needs plain elements"):
        _core.take_rows(np.zeros(2, object), rows)
    with pytest.raises(TypeError, match="not C-contiguous"):
        _core.take_rows(np.zeros((2, 4))[:, ::2], rows)
    with pytest.raises(TypeError, match="rows is int32, needs int64"):
        _core.take_rows(np.zeros(2), rows.astype(np.int32))
    with pytest.raises(ValueError, match=r"rows \[1, 1\] needs 1 axis"):
        _core.take_rows(np.zeros(2), rows[None])
    with pytest.raises(ValueError, match=r"x \[\] needs at least 1 axis"):
        _core.take_rows(np.zeros(()), rows)


def test_take_rows_of_the_core_writes_where_it_is_told_to() -> None:
    x, rows = np.arange(12.0).reshape(4, 3), np.array([2, -1])
    out = np.full((2, 3), 7.0)
    assert _core.take_rows(x, rows, out) is out
    assert np.array_equal(out, x[rows])
    with pytest.raises(IndexError, match="row 4 at position 1"):
        _core.take_rows(x, np.array([0, 4]), out)
    assert np.array_equal(out, x[rows])
    for wrong, error, text in [
        (np.zeros((2, 4)), ValueError, r"take: out is \[2, 4\], needs \[2, 3\]"),
        (np.zeros((2, 3), np.float32), TypeError, "take: out is float32, x float64"),
        (np.zeros((3, 2)).T, TypeError, "take: out .* is not C-contiguous"),
        (x[1:3], ValueError, "take: out shares memory with x"),
    ]:
        with pytest.raises(error, match=text):
            _core.take_rows(x, rows, wrong)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="take: out is read-only"):
        _core.take_rows(x, rows, out)
