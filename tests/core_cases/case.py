"""What a case is, and how its numbers are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import oracle

EXACT = 0.0


@dataclass(frozen=True)
class Case:
    """One call. `scale` maps the float64 arguments to the scale of each output; by default the output itself."""

    name: str
    args: tuple[Any, ...]
    ulps: float
    scale: Callable[..., Any] | None = None

    def cast(self, dtype: type) -> tuple[Any, ...]:
        """Return fresh arguments with the float arrays in `dtype`."""
        return cast(self.args, dtype)


def cast(value: Any, dtype: type) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(dtype if value.dtype == np.float64 else value.dtype)
    if isinstance(value, list | tuple):
        return type(value)(cast(v, dtype) for v in value)
    return value


CASES: dict[str, list[Case]] = {}
_rng = np.random.default_rng()


def case(name: str, *args: Any, ulps: float = EXACT, scale: Callable[..., Any] | None = None) -> None:
    CASES.setdefault(name, []).append(Case(name, args, ulps, scale))


def family(function: Callable[[], None]) -> Callable[[], None]:
    """Fill the table with the cases of one family, whose numbers do not depend on the other families."""
    global _rng
    _rng = np.random.default_rng(crc32(function.__name__.encode()))
    function()
    return function


def f32(a: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(a, np.float32).astype(np.float64)


def normal(*shape: int, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    return f32(mean + std * _rng.normal(size=shape))


def ties_of(*shape: int) -> np.ndarray:
    return np.asarray(normal(*shape).round(0))


def uniform(*shape: int) -> np.ndarray:
    return f32(_rng.uniform(size=shape))


def signs(*shape: int) -> np.ndarray:
    return np.asarray(_rng.choice([-1.0, 1.0], shape))


def chosen(*shape: int) -> np.ndarray:
    return np.asarray(_rng.uniform(size=shape) < 0.5)


def integers(high: int, *shape: int) -> np.ndarray:
    return np.asarray(_rng.integers(0, high, shape))


def positive(*shape: int) -> np.ndarray:
    return f32(np.exp(2 * _rng.normal(size=shape)))


def absolute(name: str) -> Callable[..., Any]:
    """Scale of a function that is linear in each array: the same function of the absolute values."""

    def scale(*args: Any) -> Any:
        return getattr(oracle, name)(*[np.abs(a) if is_float(a) else a for a in args])

    return scale


def is_float(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype == np.float64


# 0-d, empty, one element, below and above one vector of each width, several vectors with a tail, split over threads
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (16,), (17,), (1031,), (3, 11, 65), (40_013,)]
SPECIAL = f32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -3.0, 2.0**-126, -(2.0**-126), 3e38, -3e38])
