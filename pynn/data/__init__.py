"""Data: IDX files, MNIST, synthetic digits, mini-batches."""

from pynn.data.idx import read_idx, write_idx
from pynn.data.loader import MNIST_MEAN, MNIST_STD, DataLoader, normalize_images, random_split, take
from pynn.data.mnist import MNIST, load_mnist
from pynn.data.synthetic import synthetic_digits

__all__ = [
    "MNIST",
    "MNIST_MEAN",
    "MNIST_STD",
    "DataLoader",
    "load_mnist",
    "normalize_images",
    "random_split",
    "read_idx",
    "synthetic_digits",
    "take",
    "write_idx",
]
