"""What a row of the table is, and how sample inputs are made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from closeness import sum_ulps


@dataclass(frozen=True)
class Call:
    """Arguments of an operation; float arrays are float64 and become tensors of the dtype under test."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Bad:
    """A call that must raise `error` with a message that matches `match`."""

    call: Call
    error: type[Exception]
    match: str


@dataclass(eq=False, repr=False)
class Op:
    """One operation of `pynn.functional`.

    `oracle` takes the same arguments as float64 arrays. An element of the result may be off by `ulps` roundings,
    relative to itself, or (`cancels`) to the largest element, for results that are differences. `terms` gives the
    number of products in one sum, whose roundings come on top.
    """

    name: str
    oracle: Callable[..., Any]
    ulps: float = 0
    cancels: bool = False
    terms: Callable[..., int] | None = None
    differentiable: bool = True
    constants: tuple[int | str, ...] = ()  # float arguments that take no gradient
    samples: list[Call] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)

    def __post_init__(self) -> None:
        global _rng
        OPS[self.name] = self
        _rng = np.random.default_rng(crc32(self.name.encode()))  # so that other operations do not change its numbers

    def sample(self, *args: Any, **kwargs: Any) -> None:
        self.samples.append(Call(args, kwargs))

    def refuses(self, error: type[Exception], match: str, *args: Any, **kwargs: Any) -> None:
        self.bad.append(Bad(Call(args, kwargs), error, match))

    def budget(self, call: Call) -> float:
        return self.ulps + (sum_ulps(self.terms(*call.args, **call.kwargs)) if self.terms else 0)


OPS: dict[str, Op] = {}
_rng = np.random.default_rng(2024)


def f32(a: Any) -> np.ndarray:
    """Round to what float32 holds, so that both dtypes compute on the same numbers."""
    return np.asarray(a, np.float32).astype(np.float64)


def normal(*shape: int) -> np.ndarray:
    return f32(_rng.normal(size=shape))


def positive(*shape: int) -> np.ndarray:
    return f32(_rng.uniform(0.25, 4, size=shape))


def unit(*shape: int) -> np.ndarray:
    return f32(_rng.uniform(size=shape))


def signs(*shape: int) -> np.ndarray:
    return np.asarray(_rng.choice([-1.0, 1.0], size=shape))


def apart(*shape: int, phase: float = 0.25) -> np.ndarray:
    """Return numbers that keep a distance of at least 1/32 from each other, from 0, and from those of another phase.

    Central differences stay on one side of every kink: relu, abs, maximum, clip.
    """
    size = int(np.prod(shape))
    return f32((_rng.permutation(size) - size // 2 + phase) / 8).reshape(shape)


def integers(high: int, *shape: int) -> np.ndarray:
    return np.asarray(_rng.integers(0, high, size=shape))


def chosen(*shape: int) -> np.ndarray:
    return np.asarray(_rng.uniform(size=shape) < 0.5)


# 0-d, empty, one element, odd, several vectors of every width with a tail
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (5, 7, 33)]
