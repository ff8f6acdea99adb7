"""Toy data: shapes, labels, the curves that points without noise lie on, and seeds."""

import numpy as np
import pytest

import pynn
from pynn import data

MAKERS = [data.make_moons, data.make_spiral, data.make_blobs, data.make_sine]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_pynns_seed_or_a_generator_decide(make):
    pynn.seed(3)
    x, y = make(50)
    pynn.seed(3)
    same, own, other = make(50), make(50, rng=np.random.default_rng(3)), make(50, rng=np.random.default_rng(4))
    for got in (same, own):
        np.testing.assert_array_equal(got[0], x)
        np.testing.assert_array_equal(got[1], y)
    assert (other[0] != x).any()
    assert x.dtype == np.float32
    assert y.dtype == (np.float32 if make is data.make_sine else np.int64)
    assert len(x) == len(y) == (150 if make is data.make_spiral else 50)


def test_moons():
    points, labels = data.make_moons(101, noise=0.0)
    assert np.bincount(labels).tolist() == [51, 50]
    assert (np.diff(labels) != 0).sum() > 20  # shuffled
    centres, up = np.array([[0, 0], [1, 0.5]]), np.array([1, -1])
    from_centre = points - centres[labels]
    np.testing.assert_allclose(np.hypot(*from_centre.T), 1, rtol=1e-6)
    assert (from_centre[:, 1] * up[labels] > -1e-6).all()


def test_spiral():
    points, labels = data.make_spiral(10, arms=4, noise=0.0)
    assert np.bincount(labels).tolist() == [10] * 4
    radius = np.hypot(*points.T).reshape(4, 10)
    np.testing.assert_allclose(radius, np.tile(np.linspace(0, 1, 10), (4, 1)), atol=1e-6)
    angles = np.unwrap(np.arctan2(points[:, 0], points[:, 1]).reshape(4, 10)[:, 1:], axis=1)
    np.testing.assert_allclose(np.diff(angles, axis=1), 4 / 9, rtol=1e-4)
    np.testing.assert_allclose((points[19] - [np.sin(8), np.cos(8)]), 0, atol=1e-6)  # the end of the second arm


def test_blobs():
    centers = np.array([[0.0, 0.0, 1.0], [100.0, 0.0, 0.0]])
    points, labels = data.make_blobs(4001, centers, std=2.0)
    assert points.shape == (4001, 3)
    assert np.bincount(labels).tolist() == [2001, 2000]
    rest = points - centers[labels]
    # Mean and deviation of 12,003 normal numbers: 5 of their standard errors.
    assert abs(rest.mean()) < 5 * 2 / np.sqrt(rest.size)
    assert abs(rest.std() - 2) < 5 * 2 / np.sqrt(2 * rest.size)
    assert data.make_blobs(7, centers=5)[0].shape == (7, 2)


def test_sine():
    x, y = data.make_sine(2000, noise=0.5)
    assert x.shape == y.shape == (2000, 1)
    assert (np.diff(x, axis=0) >= 0).all()
    assert -np.pi <= x.min() < -3
    assert 3 < x.max() <= np.float32(np.pi)
    rest = y - np.sin(x)
    assert abs(rest.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * rest.size)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.make_moons(0), "make_moons: n is 0, needs at least 1"),
        (lambda: data.make_moons(3, noise=-1), "make_moons: noise is -1"),
        (lambda: data.make_spiral(3, arms=0), "make_spiral: arms is 0"),
        (lambda: data.make_blobs(3, centers=0), "make_blobs: centers is 0"),
        (lambda: data.make_blobs(3, centers=[1.0, 2.0]), r"make_blobs: centers is \[2\], needs \[k, d\]"),
        (lambda: data.make_blobs(3, centers=[[1.0], [1.0, 2.0]]), r"make_blobs: centers is .*, needs numbers \[k, d\]"),
        (lambda: data.make_blobs(3, centers=[["a"]]), r"make_blobs: centers is .*, needs numbers \[k, d\]"),
        (lambda: data.make_blobs(3, std=float("nan")), "make_blobs: std is nan"),
        (lambda: data.make_sine(-1), "make_sine: n is -1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_counts_are_integers():
    for make in (data.make_moons, data.make_spiral, data.make_blobs, data.make_sine):
        with pytest.raises(TypeError, match=rf"^{make.__name__}: n\w* is 2\.5, needs an integer$"):
            make(2.5)
    with pytest.raises(TypeError, match=r"^make_blobs: centers is True, needs an integer$"):
        data.make_blobs(3, centers=True)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("rng", [0, 3, np.random.RandomState(0)])
def test_what_is_no_generator_is_refused(make, rng):
    with pytest.raises(TypeError, match=rf"^{make.__name__}: rng is .*, needs a numpy\.random\.Generator or None$"):
        make(10, rng=rng)
