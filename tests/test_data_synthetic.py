"""Synthetic digits: repeatable, readable by a network, too hard for a linear model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pynn.data import synthetic_digits


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return *synthetic_digits(8000, seed=0), *synthetic_digits(2000, seed=1)


def test_shapes_and_types() -> None:
    images, labels = synthetic_digits(300, seed=5)
    assert images.shape == (300, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (300,)
    assert labels.dtype == np.int64
    empty_images, empty_labels = synthetic_digits(0)
    assert empty_images.shape == (0, 28, 28)
    assert empty_labels.shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 700])
def test_an_image_does_not_depend_on_how_many_are_drawn(n: int) -> None:
    all_images, all_labels = synthetic_digits(800, seed=9)
    images, labels = synthetic_digits(n, seed=9)
    np.testing.assert_array_equal(images, all_images[:n])
    np.testing.assert_array_equal(labels, all_labels[:n])


def test_seeds_and_blocks_differ() -> None:
    images = np.concatenate([synthetic_digits(512, seed=seed)[0] for seed in (0, 1, 2**40)])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_images_are_like_mnist(digits: tuple[np.ndarray, ...]) -> None:
    images, labels, _, _ = digits
    # 800 expected of each digit, standard deviation 27: five of them.
    assert np.abs(np.bincount(labels, minlength=10) - 800).max() < 135
    ink = images.reshape(len(images), -1)
    assert ink.max(axis=1).min() > 100  # every image has a stroke
    # MNIST's mean is 0.13 and its deviation 0.31; a stroke covers a small part of the page.
    assert 0.08 < ink.mean() / 255 < 0.2
    assert 0.2 < ink.std() / 255 < 0.35
    # Strokes keep off the border: 64 is beyond four deviations of the strongest noise.
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]])
    assert (border > 64).mean() < 0.01


def features(images: np.ndarray) -> np.ndarray:
    return np.column_stack([images.reshape(len(images), -1) / 255.0 - 0.1, np.ones(len(images))])


def test_too_hard_for_a_linear_model_but_not_for_a_small_network(digits: tuple[np.ndarray, ...]) -> None:
    train_images, train_labels, test_images, test_labels = digits
    x, x_test, y = features(train_images), features(test_images), np.eye(10)[train_labels]

    # Ridge regression to one-hot targets, in closed form.
    weight = np.linalg.solve(x.T @ x + 30 * np.eye(x.shape[1]), x.T @ y)
    linear = ((x_test @ weight).argmax(1) == test_labels).mean()
    assert 0.70 < linear < 0.95

    # The same on 2,000 fixed random ReLU features: a network with one hidden layer of which only the output learns.
    hidden = np.random.default_rng(0).standard_normal((x.shape[1], 2000)) / 8
    h, h_test = np.maximum(x @ hidden, 0), np.maximum(x_test @ hidden, 0)
    weight = np.linalg.solve(h.T @ h + 30 * np.eye(h.shape[1]), h.T @ y)
    network = ((h_test @ weight).argmax(1) == test_labels).mean()
    # With 20,000 images a softmax regression reaches 90 %, an MLP (784-256-10) and a small convolutional network 98 %.
    print(f"linear {linear:.4f}, random features {network:.4f}")
    assert network > 0.93
    assert network > linear + 0.05


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "n is -1, needs at least 0"),
        ((2.0,), TypeError, "n is 2.0, needs an integer"),
        ((2, -3), ValueError, "seed is -3"),
        ((2, None), TypeError, "seed is None, needs an integer"),
    ],
)
def test_refuses(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"synthetic_digits: {message}"):
        synthetic_digits(*arguments)
