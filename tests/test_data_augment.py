"""Random shifts: every shift occurs, what moves in, which axes move together."""

import numpy as np
import pytest

import pynn
from pynn.data import random_shift


def shifted(image, down, right, fill):
    """One image, pixel by pixel."""
    result = np.full_like(image, fill)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i - down < image.shape[0] and 0 <= j - right < image.shape[1]:
                result[i, j] = image[i - down, j - right]
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_shift_occurs_equally_often(dtype):
    pynn.seed(0)
    image = np.arange(1, 13).reshape(3, 4).astype(dtype)
    images = np.tile(image, (9000, 1, 1))
    got = random_shift(images, 1, fill=99)
    assert got.dtype == dtype
    assert (images == image).all()
    shifts = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    counts = [(got == shifted(image, *shift, 99)).all((1, 2)).sum() for shift in shifts]
    assert sum(counts) == 9000
    assert max(abs(c - 1000) for c in counts) < 5 * np.sqrt(9000 * 8 / 81)


def test_draws_stay_those_of_the_checkpoints_that_are_kept():
    images = np.random.default_rng(0).integers(1, 256, (50, 6, 5), dtype=np.uint8)
    used, same = np.random.default_rng(3), np.random.default_rng(3)
    got = random_shift(images, 2, rng=used)
    rows, columns = same.integers(0, 5, (2, 50))
    expected = [shifted(*each, 0) for each in zip(images, 2 - rows, 2 - columns, strict=True)]
    np.testing.assert_array_equal(got, expected)
    assert used.bit_generator.state == same.bit_generator.state


def test_channels_move_together_and_a_seed_repeats():
    images = np.random.default_rng(0).normal(size=(50, 3, 6, 5))
    pynn.seed(7)
    got = random_shift(images, 2)
    for channel in range(3):
        pynn.seed(7)
        np.testing.assert_array_equal(got[:, channel], random_shift(images[:, channel], 2))
    np.testing.assert_array_equal(random_shift(images, 2, rng=np.random.default_rng(7)), got)
    np.testing.assert_array_equal(random_shift(images, 0), images)
    assert random_shift(images[:0]).shape == (0, 3, 6, 5)


def test_refusals():
    with pytest.raises(ValueError, match=r"^random_shift: images \[5, 5\], need"):
        random_shift(np.zeros((5, 5)))
    with pytest.raises(ValueError, match=r"^random_shift: pixels is -1"):
        random_shift(np.zeros((1, 5, 5)), -1)
    with pytest.raises(TypeError):
        random_shift(np.zeros((1, 5, 5)), 0.5)
    for fill in (-1, 256, -0.42, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^random_shift: fill is .*, needs a number that uint8 holds"):
            random_shift(np.zeros((1, 5, 5), np.uint8), fill=fill)
    for rng in (0, 3, np.random.RandomState(0)):
        with pytest.raises(TypeError, match=r"^random_shift: rng is .*, needs a numpy.random.Generator or None"):
            random_shift(np.zeros((1, 5, 5)), rng=rng)
