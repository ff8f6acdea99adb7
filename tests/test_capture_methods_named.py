"""What functions of a captured function read, which it finds as methods, properties, defaults or objects it calls."""

import functools

import numpy as np
import pytest

import pynn
from pynn import nn


class Scaled(nn.Module):
    factor = 2.0

    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return x * self.factor

    @property
    def scale(self):
        return self.factor


class Called:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


class Slots:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


class Shared:
    """Its methods belong to the class."""

    factor = 2.0

    @classmethod
    def times(cls, x):
        return x * cls.factor

    @staticmethod
    def static(x):
        return x * Shared.factor


class Heir(Shared):
    """Has nothing of its own."""


def by_default(thing):
    def function(x, *, used=thing):
        return x * used.factor

    return function


@pytest.mark.parametrize(
    ("thing", "function"),
    [
        (Called(2.0), lambda thing: thing),
        (Called(2.0), lambda thing: lambda x: thing(x)),
        (Scaled(2.0), lambda thing: lambda x: thing.times(x)),
        (Scaled(2.0), lambda thing: lambda x: x * thing.scale),
        (Slots(2.0), lambda thing: lambda x: x * thing.factor),
        (Scaled(2.0), lambda thing: functools.partial(lambda used, x: x * used.factor, thing)),
        (Scaled(2.0), lambda thing: functools.partial(lambda x, used: x * used.factor, used=thing)),
        (Scaled(2.0), lambda thing: lambda x, used=thing: x * used.factor),
        (Scaled(2.0), by_default),
        (Shared, lambda thing: lambda x: thing.times(x)),
        (Shared, lambda thing: lambda x: thing.static(x)),
        (Shared, lambda thing: thing.times),
        (Shared, lambda thing: lambda x: x * Heir.factor),
    ],
    ids=["object", "object around", "method", "property", "slot", "partial", "partial by name", "default",
         "default by name", "class method", "static method", "of a class", "inherited"],
)  # fmt: skip
def test_what_it_reads_is_guarded(thing, function):
    """Replays went on with the number of the first call."""
    f, x = pynn.capture(function(thing)), np.ones(2, np.float32)
    try:
        for factor in (2.0, 2.0, 5.0, 5.0):
            thing.factor = factor
            assert f(x).tolist() == [factor, factor]
        assert repr(f).endswith("plans=2)")
    finally:
        thing.factor = 2.0


def test_a_method_that_counts_is_refused():
    class Counter:
        count = 0

        def taken(self, x):
            self.count += 1
            return x * 2

    counter = Counter()
    with pytest.raises(pynn.CaptureError, match=r"^capture: the function changes count, which it has from around it"):
        pynn.capture(lambda x: counter.taken(x))(np.ones(2, np.float32))
    assert counter.count == 0
