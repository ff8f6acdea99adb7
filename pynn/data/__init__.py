"""Data: IDX files, MNIST, synthetic digits, text, toy problems, mini-batches, random shifts."""

from pynn.data.augment import random_shift
from pynn.data.idx import read_idx, write_idx
from pynn.data.loader import MNIST_MEAN, MNIST_STD, DataLoader, normalize_images, random_split, take
from pynn.data.mnist import MNIST, load_mnist
from pynn.data.synthetic import synthetic_digits
from pynn.data.text import Vocabulary, load_names, load_shakespeare
from pynn.data.toys import make_blobs, make_moons, make_sine, make_spiral

__all__ = [
    "MNIST",
    "MNIST_MEAN",
    "MNIST_STD",
    "DataLoader",
    "Vocabulary",
    "load_mnist",
    "load_names",
    "load_shakespeare",
    "make_blobs",
    "make_moons",
    "make_sine",
    "make_spiral",
    "normalize_images",
    "random_shift",
    "random_split",
    "read_idx",
    "synthetic_digits",
    "take",
    "write_idx",
]
