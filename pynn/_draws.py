"""Random numbers of a captured step: each replay reserves others."""

from __future__ import annotations

from typing import Any

from pynn.random import next_offset


class Draw:
    """A reservation of `n` counters of the kernels' random numbers, which each replay makes anew."""

    def __init__(self, n: int, drawn: tuple[int, int]) -> None:
        self.n, self.drawn = n, drawn

    def again(self) -> None:
        self.drawn = next_offset(self.n)


class Drawn(int):
    """Key or offset of a `Draw`, as an argument of a call."""

    draw: Draw
    which: int

    def __new__(cls, draw: Draw, which: int) -> Drawn:
        self = super().__new__(cls, draw.drawn[which])
        self.draw, self.which = draw, which
        return self


def drawn_now(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.draw.drawn[arg.which] if isinstance(arg, Drawn) else arg for arg in args)
