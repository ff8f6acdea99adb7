"""Sampling: frequencies against probabilities, the limits of temperature and top-k, seeds, and refusals."""

import math
import tracemalloc

import numpy as np
import pytest

import pynn
from pynn.random import generator

N = 40_000


@pytest.fixture(autouse=True)
def seeded():
    pynn.seed(11)


def assert_frequencies(indices, p):
    """Counts within 5 standard deviations of the binomial distribution; never one whose probability is 0."""
    p = np.asarray(p, float) / np.sum(p)
    counts = np.bincount(indices.numpy().reshape(-1), minlength=len(p))
    assert (np.abs(counts - N * p) <= 5 * np.sqrt(N * p * (1 - p))).all(), (counts / N, p)


P = [0.0, 0.1, 0.0, 2.0, 0.4, 0.0]


def test_multinomial_draws_by_the_probabilities():
    assert_frequencies(pynn.multinomial(P, N, replacement=True), P)
    rows = pynn.multinomial(np.tile(np.float32(P), (N, 1)))
    assert rows.shape == (N, 1)
    assert_frequencies(rows, P)


def test_multinomial_without_replacement():
    drawn = pynn.multinomial(pynn.tensor(np.tile(P, (N, 1))), 2).numpy()
    assert drawn.shape == (N, 2)
    assert drawn.dtype == np.int64
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert_frequencies(pynn.Tensor(drawn[:, 0]), P)
    p = np.array(P) / sum(P)
    second = [sum(p[j] * p[i] / (1 - p[j]) for j in range(6) if j != i) for i in range(6)]  # behind every other first
    assert_frequencies(pynn.Tensor(drawn[:, 1]), second)
    assert sorted(pynn.multinomial(P, 3).tolist()) == [1, 3, 4]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [2.0**1023, 2.0**-1074])
def test_the_scale_of_the_probabilities_does_not_matter(scale):
    for count, replacement in ((50, True), (1, False), (3, False)):
        pynn.seed(3)
        expected = pynn.multinomial([1.0, 0.0, 1.0, 1.0], count, replacement).tolist()
        pynn.seed(3)
        assert pynn.multinomial([scale, 0.0, scale, scale], count, replacement).tolist() == expected
    assert {*pynn.multinomial([[scale, 0.0, scale]] * 50).numpy().flat} == {0, 2}
    assert sorted(pynn.multinomial([1e308, 0.0, 1e-320], 2).tolist()) == [0, 2]


@pytest.mark.parametrize("count", [1, 8, 9, 40])
def test_draws_with_replacement_are_where_uniform_numbers_fall(count):
    p = np.random.default_rng(5).random((20, 7))
    p[:, 2] = 0
    pynn.seed(3)
    drawn = pynn.multinomial(p, count, replacement=True).numpy()
    pynn.seed(3)
    x = generator().random((20, count)) * p.sum(-1, keepdims=True)
    np.testing.assert_array_equal(drawn, (np.cumsum(p, -1)[:, None, :] <= x[:, :, None]).sum(-1))


def test_memory_does_not_grow_with_the_product_of_weights_and_samples():
    p = np.ones(5_000)
    tracemalloc.start()
    drawn = pynn.multinomial(p, 20_000, replacement=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (drawn.dtype, drawn.shape) == (np.int64, (20_000,))
    assert peak < 4e6  # the product is 1e8


def test_a_seed_repeats_the_choice():
    pynn.seed(5)
    first = pynn.multinomial(P, 100, replacement=True).tolist(), pynn.categorical(np.zeros((100, 9))).tolist()
    pynn.seed(5)
    assert first == (
        pynn.multinomial(P, 100, replacement=True).tolist(),
        pynn.categorical(np.zeros((100, 9))).tolist(),
    )


LOGITS = np.array([0.3, -1.0, 2.0, 2.0, -math.inf, 1.5])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_categorical_draws_by_the_softmax(temperature, dtype):
    drawn = pynn.categorical(np.tile(LOGITS, (N, 1)).astype(dtype), temperature)
    assert drawn.shape == (N,)
    assert drawn.dtype == np.int64
    assert_frequencies(drawn, np.exp(LOGITS / temperature))


@pytest.mark.parametrize(("top_k", "kept"), [(1, [2, 3]), (2, [2, 3]), (3, [2, 3, 5]), (6, range(6)), (99, range(6))])
def test_top_k(top_k, kept):
    p = np.where(np.isin(np.arange(6), list(kept)), np.exp(LOGITS), 0)
    assert_frequencies(pynn.categorical(np.tile(LOGITS, (N, 1)), top_k=top_k), p)


def test_shapes_and_limits():
    assert pynn.categorical(pynn.tensor(LOGITS)).shape == ()
    assert pynn.categorical(np.zeros((2, 3, 4))).shape == (2, 3)
    assert pynn.categorical(np.zeros((0, 4))).shape == (0,)
    assert pynn.categorical(np.tile(LOGITS, (50, 1)), temperature=0).tolist() == [2] * 50
    assert pynn.categorical([-1e308, 1e308], temperature=1e-300).item() == 1
    assert set(pynn.categorical(np.tile(LOGITS, (50, 1)), temperature=1e-300).tolist()) == {2, 3}
    assert pynn.categorical([1e300, -1e300, 1e300 / 2]).item() == 0
    assert pynn.multinomial([1e-320, 0.0]).tolist() == [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pynn.multinomial([0.5, -0.5]), "multinomial: probabilities must be finite, not negative"),
        (lambda: pynn.multinomial([[0.5, 0.5], [0.0, 0.0]]), "multinomial: .*positive sum in each row"),
        (lambda: pynn.multinomial([math.nan, 1.0]), "multinomial: probabilities must be finite"),
        (lambda: pynn.multinomial(np.ones((1, 2, 3))), r"multinomial: probabilities are \[1, 2, 3\]"),
        (
            lambda: pynn.multinomial(np.ones((0, 0)), 2, True),
            r"multinomial: probabilities are \[0, 0\], need .*at least 1",
        ),
        (lambda: pynn.multinomial([[1.0], [1.0, 2.0]]), "multinomial: probabilities are not a rectangular array"),
        (lambda: pynn.multinomial(P, 4), "multinomial: num_samples is 4, needs 1 to 3, or replacement"),
        (lambda: pynn.multinomial(P, 0, True), "multinomial: num_samples is 0"),
        (lambda: pynn.categorical(0.5), r"categorical: logits are \[\], need"),
        (lambda: pynn.categorical(np.zeros((2, 0))), r"categorical: logits are \[2, 0\], need"),
        (lambda: pynn.categorical([[1.0], [1.0, 2.0]]), "categorical: logits are not a rectangular array"),
        (lambda: pynn.categorical([0.0, math.nan]), "categorical: logits need a finite maximum"),
        (lambda: pynn.categorical([0.0, math.inf]), "categorical: logits need a finite maximum"),
        (lambda: pynn.categorical([-math.inf] * 2), "categorical: logits need a finite maximum"),
        (lambda: pynn.categorical(LOGITS, -1), "categorical: temperature is -1"),
        (lambda: pynn.categorical(LOGITS, math.nan), "categorical: temperature is nan"),
        (lambda: pynn.categorical(LOGITS, top_k=0), "categorical: top_k is 0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_options_of_other_types():
    for call in (lambda: pynn.multinomial(P, 1.5), lambda: pynn.categorical(LOGITS, top_k=1.5)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError, match=r"^multinomial: replacement must be True or False, got 'no'"):
        pynn.multinomial(P, 2, "no")


@pytest.mark.parametrize("values", [[0.5, 0.5j], np.complex64([0.5, 0.5]), ["1", "2"], None])
def test_what_are_no_real_numbers(values):
    with pytest.raises(TypeError, match=r"^multinomial: probabilities are .*, need real numbers"):
        pynn.multinomial(values)
    with pytest.raises(TypeError, match=r"^categorical: logits are .*, need real numbers"):
        pynn.categorical(values)
