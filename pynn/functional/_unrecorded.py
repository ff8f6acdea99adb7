"""Operations on plain arrays, for those who know that nothing records them, and have looked at the options before.

A function of this module returns another one, of an array, which computes what the operation of `pynn.functional` with
these options computes, by the same kernel, and raises the same errors. It reads the values of parameters in each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pynn import _core
from pynn.functional._args import Array
from pynn.functional.conv import _geometry
from pynn.functional.shape import flatten as recorded_flatten
from pynn.tensor import Tensor

__all__ = ["Operation", "conv2d", "conv2d_max_pool2d", "flatten", "linear"]

Operation = Callable[[Array], Array]


def linear(weight: Tensor, bias: Tensor | None, activation: str) -> Operation:
    """Prepare `functional.linear`."""
    if bias is None:
        return lambda x: _core.linear(x, weight.data, None, activation, False)
    return lambda x: _core.linear(x, weight.data, bias.data, activation, False)


def conv2d(weight: Tensor, bias: Tensor | None, *options: Any) -> Operation:
    """Prepare `functional.conv2d`; `options` are stride, padding, dilation, groups and activation."""
    how = _options("conv2d", weight, options)
    return lambda x: _core.conv2d(x, weight.data, None if bias is None else bias.data, *how())


def conv2d_max_pool2d(weight: Tensor, bias: Tensor | None, *options: Any) -> Operation:
    """Prepare `functional.conv2d_max_pool2d`, with the options of `conv2d`."""
    how = _options("conv2d_max_pool2d", weight, options, False)  # without indices, which a gradient would need
    return lambda x: _core.conv2d_max_pool2d(x, weight.data, None if bias is None else bias.data, *how())[0]


def _options(name: str, weight: Tensor, options: tuple[Any, ...], *more: Any) -> Callable[[], tuple[Any, ...]]:
    """Return what gives the options as the core takes them, and ``more`` behind them."""
    *geometry, activation = options

    def now() -> tuple[Any, ...]:
        return *_geometry(name, weight.data, *geometry), activation, *more

    if not all(map(_is_fixed, geometry)):  # "same", which the size of the kernel decides; a list, which may change
        return now
    fixed = now()
    return lambda: fixed


def _is_fixed(option: Any) -> bool:
    return type(option) is int or (type(option) is tuple and len(option) == 2 and all(type(n) is int for n in option))


def flatten(start_dim: int) -> Operation:
    """Prepare `functional.flatten`; the result shares memory with the array."""
    keeps_rows = type(start_dim) is int and start_dim == 1  # as a rule; 1.0 is refused

    def compute(x: Array) -> Array:
        if keeps_rows and x.ndim > 1 and x.size:
            return x.reshape(len(x), -1)
        return recorded_flatten(x, start_dim).data

    return compute
