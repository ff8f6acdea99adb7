"""Mini-batches over arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn._checks import flag, real, whole
from pynn.random import generator
from pynn.tape import constant
from pynn.tensor import Tensor

Array: TypeAlias = npt.NDArray[Any]

INT64 = np.dtype(np.int64)  # comparing dtypes is quick; comparing to np.int64 converts it

MNIST_MEAN = 0.1307
"""Mean of MNIST's training pixels, scaled to [0, 1]."""

MNIST_STD = 0.3081
"""Standard deviation of MNIST's training pixels, scaled to [0, 1]."""


def normalize_images(
    images: npt.NDArray[np.uint8], mean: float = MNIST_MEAN, std: float = MNIST_STD
) -> npt.NDArray[np.float32]:
    """Turn uint8 grey images into a network's input: ``(images / 255 - mean) / std``.

    Parameters
    ----------
    images : uint8 ndarray, ``[N, H, W]`` or ``[N, 1, H, W]``
        Pixels, 0 to 255.
    mean, std : float
        Of the training pixels, scaled to [0, 1]; by default MNIST's.

    Returns
    -------
    float32 ndarray, ``[N, 1, H, W]``

    Raises
    ------
    TypeError
        `images` is not a uint8 array (it may have been normalised before), or `mean` or `std` no number.
    ValueError
        `images` has another shape, a number is not finite, or `std` not above 0.

    Examples
    --------
    >>> normalize_images(np.zeros((2, 28, 28), np.uint8)).shape
    (2, 1, 28, 28)
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise TypeError(f"normalize_images: got {got}, needs a uint8 array")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 1):
        raise ValueError(f"normalize_images: got {list(images.shape)}, needs [N, H, W] or [N, 1, H, W]")
    mean, std = real("normalize_images: mean", mean), real("normalize_images: std", std)
    if std <= 0:
        raise ValueError(f"normalize_images: std is {std}, needs a number above 0")
    out = np.multiply(images, np.float32(1 / (255 * std)), order="C", dtype=np.float32)
    out -= np.float32(mean / std)
    return out.reshape(len(images), 1, *images.shape[-2:])


@overload
def take(array: Array, rows: Tensor) -> Tensor: ...
@overload
def take(array: Array, rows: npt.ArrayLike) -> Array: ...
def take(array: Array, rows: npt.ArrayLike | Tensor) -> Array | Tensor:
    """Return ``array[rows]`` as a new array, copied by all threads: the batch of a hand-written training loop.

    In a function under `pynn.capture`, whose arguments are tensors, every replay takes its rows out of this very array.

    Parameters
    ----------
    array : ndarray ``[N, ...]``
        Samples, of any dtype; quickest if C-contiguous.
    rows : integers ``[K]``
        Which samples, -N to N-1; negative ones count from the end. A Tensor must be int64, and `array` then contiguous.

    Returns
    -------
    ndarray ``[K, ...]``, or a Tensor if `rows` is one

    Raises
    ------
    TypeError
        `rows` does not hold integers.
    ValueError
        `rows` has not exactly one axis, or `array` has none.
    IndexError
        A row is out of range.

    Examples
    --------
    >>> take(np.array([[1, 2], [3, 4], [5, 6]]), [2, 0])
    array([[5, 6],
           [1, 2]])
    """
    array = np.asarray(array)
    if isinstance(rows, Tensor):
        return constant(_core.take_rows(array, rows.data))
    if type(rows) is np.ndarray and rows.dtype == INT64 and rows.ndim == 1 and rows.flags.carray and array.ndim > 0:
        indices: npt.NDArray[np.int64] = rows  # what `_row_numbers` would come to, in a third of the time
    else:
        indices = _row_numbers(array, rows)
    flags = array.flags
    if flags.c_contiguous and flags.aligned and not array.dtype.hasobject:
        return _core.take_rows(array, indices)
    try:
        return array.take(indices, axis=0)
    except IndexError as error:
        raise IndexError(f"take: {error}") from None


def _row_numbers(array: Array, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The rows to take, checked, as contiguous int64."""
    indices = np.asarray(rows)
    if indices.dtype.kind not in "iu" and indices.size:
        raise TypeError(f"take: rows must hold integers, got {indices.dtype}")
    if indices.ndim != 1 or array.ndim == 0:
        raise ValueError(
            f"take: needs an array [N, ...] and rows [K], got {list(array.shape)} and {list(indices.shape)}"
        )
    if indices.dtype == np.uint64 and indices.max(initial=0) > np.iinfo(np.int64).max:  # would count from the end
        raise IndexError(f"take: row {indices.max()} is not one of the {len(array)} rows of the array")
    return np.asarray(indices, np.int64, order="C")


class DataLoader:
    """Iterate over arrays of the same length in batches.

    One pass of ``for`` is one epoch and yields tuples of new C-contiguous arrays ``[B, ...]``, one for each array
    given; the arrays themselves are never copied whole, so keep them small (uint8) and convert in `transform`.

    Parameters
    ----------
    *arrays : ndarray ``[N, ...]``
        Arrays with the same N, or one tuple or list of them.
    batch_size : int
        Samples in a batch; the last batch of an epoch may have fewer.
    shuffle : bool
        Take the samples in an order that depends on `seed` and the epoch's number only.
    seed : int, optional
        By default drawn from pynn's generator, so that it follows from `pynn.seed`; `DataLoader.seed` tells which.
        Without `shuffle` nothing is drawn, and it is 0.
    drop_last : bool
        Leave out the last batch if it has fewer than `batch_size` samples.
    transform : callable, optional
        Gets the arrays of a batch as arguments and returns the tuple to yield. If it has `state_dict` and
        `load_state_dict`, for random numbers of its own, those of the loader include them.

    Attributes
    ----------
    epoch : int
        The number of the next epoch, from 0. Set it to continue an interrupted training in the same order.
    num_samples : int
        N.

    Raises
    ------
    TypeError
        An argument is not an array, or `transform` cannot be called, or does not return a tuple.
    ValueError
        No arrays, lengths that differ, no samples, ``batch_size < 1``, or no batch in an epoch.

    Examples
    --------
    >>> loader = DataLoader(np.arange(5), np.arange(5) ** 2, batch_size=3)
    >>> [y.tolist() for x, y in loader]
    [[0, 1, 4], [9, 16]]
    """

    def __init__(
        self,
        *arrays: Array | Sequence[Array],
        batch_size: int = 32,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        transform: Callable[..., tuple[Any, ...]] | None = None,
    ) -> None:
        self.arrays = _as_arrays("DataLoader", arrays)
        self.num_samples = len(self.arrays[0])
        if self.num_samples == 0:
            raise ValueError("DataLoader: the arrays have no samples")
        self.batch_size = whole("DataLoader: batch_size", batch_size, 1)
        drop_last, shuffle = flag("DataLoader", "drop_last", drop_last), flag("DataLoader", "shuffle", shuffle)
        if drop_last and self.num_samples < self.batch_size:
            raise ValueError(
                f"DataLoader: drop_last leaves no batch, {self.num_samples} samples are fewer than "
                f"batch_size {self.batch_size}"
            )
        self.shuffle = shuffle
        if seed is None:
            seed = generator().integers(1 << 32).item() if shuffle else 0
        self.seed = whole("DataLoader: seed", seed, 0)
        if transform is not None and not callable(transform):
            raise TypeError(f"DataLoader: transform is a {type(transform).__name__}, needs a function or None")
        self.drop_last = drop_last
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def state_dict(self) -> dict[str, Any]:
        """Return the position between two epochs: what decides the order of the next one."""
        state: dict[str, Any] = {"seed": self.seed, "epoch": self.epoch, "num_samples": self.num_samples}
        if (transform := self._stateful_transform()) is not None:
            state["transform"] = transform.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises
        ------
        TypeError, ValueError
            If it is no such state, or keys or the number of samples differ; the loader is then unchanged.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"DataLoader: state is a {type(state).__name__}, needs what state_dict returned")
        transform = self._stateful_transform()
        needed = {"seed", "epoch", "num_samples"} | ({"transform"} if transform is not None else set())
        if state.keys() != needed:
            raise ValueError(f"DataLoader: state has {sorted(state)}, needs {sorted(needed)}")
        if state["num_samples"] != self.num_samples:
            raise ValueError(
                f"DataLoader: state is of {state['num_samples']} samples, the loader has {self.num_samples}"
            )
        seed, epoch = (whole(f"DataLoader: {name} of the state", state[name], 0) for name in ("seed", "epoch"))
        if transform is not None:
            transform.load_state_dict(state["transform"])
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Begin the next epoch."""
        return self._iter_from(0)

    def _iter_from(self, batch: int) -> Iterator[tuple[Any, ...]]:
        """Begin the next epoch at this batch; those before it are not made, and `transform` does not see them."""
        epoch = whole("DataLoader: epoch", self.epoch, 0)
        self.epoch = epoch + 1
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples) if self.shuffle else None
        return self._batches(order, batch)

    def _stateful_transform(self) -> Any:
        return self.transform if hasattr(self.transform, "state_dict") else None

    def _batches(self, order: npt.NDArray[np.int64] | None, first: int) -> Iterator[tuple[Any, ...]]:
        for start in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            stop = min(start + self.batch_size, self.num_samples)
            rows = np.arange(start, stop) if order is None else order[start:stop]
            batch = tuple(take(array, rows) for array in self.arrays)
            if self.transform is not None:
                batch = self.transform(*batch)
                if not isinstance(batch, tuple):
                    raise TypeError(f"DataLoader: transform returned {type(batch).__name__}, needs a tuple")
            yield batch


@overload
def random_split(data: int, lengths: Sequence[float], seed: int = 0) -> list[npt.NDArray[np.int64]]: ...
@overload
def random_split(data: Array | Sequence[Array], lengths: Sequence[float], seed: int = 0) -> list[tuple[Array, ...]]: ...
def random_split(
    data: int | Array | Sequence[Array], lengths: Sequence[float], seed: int = 0
) -> list[npt.NDArray[np.int64]] | list[tuple[Array, ...]]:
    """Split samples at random into parts that have no sample in common and together have all.

    Parameters
    ----------
    data : ndarray ``[N, ...]``, a tuple or list of such arrays with the same N, or N itself
        What to split.
    lengths : sequence of int or of float
        Either sizes with the sum N, or fractions with the sum 1: then each part has ``floor(fraction * N)`` samples
        and what is left goes one by one to the first parts, as in PyTorch.
    seed : int
        The same seed gives the same split. Not drawn from `pynn.seed`: a training that is continued with another
        seed must not find its validation samples among the training samples.

    Returns
    -------
    list
        One tuple of arrays for each part; for an N one int64 array of indices.

    Raises
    ------
    TypeError
        `data` holds something else than arrays, or `lengths` mixes sizes and fractions.
    ValueError
        `lengths` is empty, has a negative entry or the wrong sum; or the arrays' lengths differ.

    Examples
    --------
    >>> x, y = np.arange(10), np.arange(10) % 2
    >>> (x_train, y_train), (x_val, y_val) = random_split((x, y), [0.8, 0.2], seed=1)
    >>> len(x_train), len(x_val)
    (8, 2)
    """
    arrays = None
    if isinstance(data, (int, np.integer)) and not isinstance(data, bool):
        n = int(data)
        if n < 0:
            raise ValueError(f"random_split: {n} samples")
    else:
        arrays = _as_arrays("random_split", (data,))
        n = len(arrays[0])
    sizes = _split_sizes(n, lengths)
    order = np.random.default_rng(whole("random_split: seed", seed, 0)).permutation(n)
    parts = np.split(order, np.cumsum(sizes)[:-1])
    if arrays is None:
        return parts
    return [tuple(take(array, part) for array in arrays) for part in parts]


def _split_sizes(n: int, lengths: Sequence[float]) -> list[int]:
    if not isinstance(lengths, Iterable):
        raise TypeError(f"random_split: lengths is {lengths!r}, needs a sequence of sizes or of fractions")
    lengths = list(lengths)
    if not lengths:
        raise ValueError("random_split: lengths is empty")
    if all(isinstance(length, (int, np.integer)) and not isinstance(length, bool) for length in lengths):
        sizes = [int(length) for length in lengths]
        if min(sizes) < 0 or sum(sizes) != n:
            raise ValueError(f"random_split: lengths {sizes} are not sizes with the sum {n}")
        return sizes
    if not all(isinstance(length, (float, np.floating)) for length in lengths):
        raise TypeError(f"random_split: lengths {lengths}, needs all int (sizes) or all float (fractions)")
    if min(lengths) < 0 or not math.isclose(sum(lengths), 1.0):
        raise ValueError(f"random_split: lengths {lengths} are not fractions with the sum 1")
    sizes = [math.floor(n * length) for length in lengths]
    for i in range(n - sum(sizes)):
        sizes[i % len(sizes)] += 1
    return sizes


def _as_arrays(operation: str, arguments: Sequence[Any]) -> tuple[Array, ...]:
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        arguments = arguments[0]
    if not arguments:
        raise ValueError(f"{operation}: needs at least one array")
    arrays = []
    for i, argument in enumerate(arguments):
        if not hasattr(argument, "__array__"):
            raise TypeError(f"{operation}: argument {i} is a {type(argument).__name__}, needs an array")
        array = np.asarray(argument)
        if array.ndim == 0:
            raise ValueError(f"{operation}: array {i} has shape [], needs a first dimension of samples")
        if array.dtype == object:
            raise TypeError(f"{operation}: array {i} has dtype object, needs numbers")
        arrays.append(array)
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"{operation}: arrays differ in length: {', '.join(str(len(array)) for array in arrays)}")
    return tuple(arrays)
