"""Kinds of lists, tuples and dicts that go into captured functions and come out of them."""

import collections
import time

import numpy as np
import pytest

import pynn
from pynn import CaptureError

Point = collections.namedtuple("Point", "x y")


class Counted(Point):
    """Its constructor takes something else."""

    __slots__ = ()

    def __new__(cls, x):
        return super().__new__(cls, x, 1)


class Batch(dict):
    """A dict of one's own."""

    def doubled(self, name):
        return self[name] * 2


class Rows(list):
    """A list whose constructor takes something else."""

    def __init__(self, *rows):
        super().__init__(rows)


def defaults(x):
    made = collections.defaultdict(list, x=x)
    made["rows"].append(x * 3)
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda x: collections.OrderedDict(b=x, a=x * 2),
        defaults,
        lambda x: collections.Counter(x=2),
        lambda x: Batch(x=x, n=1),
        lambda x: Rows(x, x * 2, 3),
        lambda x: Point(x, [x * 2]),
        lambda x: Counted(x),
        lambda x: time.gmtime(0),
    ],
    ids=["OrderedDict", "defaultdict", "Counter", "own dict", "own list", "namedtuple", "own namedtuple", "struct"],
)
def test_a_result_has_its_class(make):
    """Dicts of other classes came back as plain ones."""
    captured = pynn.capture(make)
    for value in (1, 2, 3):
        x = np.full(2, value, np.float32)
        got, expected = captured(x), make(pynn.Tensor(x))
        assert type(got) is type(expected)
        assert repr(got) == repr(expected)
    assert repr(captured).endswith("plans=1)")
    assert getattr(got, "default_factory", None) is getattr(expected, "default_factory", None)


def test_an_argument_has_its_class():
    captured = pynn.capture(lambda batch, ordered, rows: (batch.doubled("x"), ordered.popitem(last=False)[1], rows[1]))
    for value in (1, 2, 3):
        x = np.full(2, value, np.float32)
        results = captured(Batch(x=x), collections.OrderedDict(b=x * 3, a=x), Rows(x, x * 4))
        assert [result.tolist() for result in results] == [[value * n] * 2 for n in (2, 3, 4)]
    assert repr(captured).endswith("plans=1)")


def test_dicts_of_other_classes_are_other_arguments():
    captured = pynn.capture(lambda batch: batch["x"] * (2 if type(batch) is dict else 3))
    x = np.ones(1, np.float32)
    assert [captured(kind(x=x)).item() for kind in (dict, Batch, dict)] == [2, 3, 2]


@pytest.mark.parametrize("kind", [Batch, Rows])
def test_attributes_beside_the_items_are_refused(kind):
    """They would be those of the first call, or of nobody."""

    def with_name(x):
        things = kind()
        things.name = "x"
        return things

    with pytest.raises(CaptureError, match=rf"^capture: an argument is a {kind.__name__} with attributes, which"):
        pynn.capture(lambda things: 1)(with_name(1))
    with pytest.raises(CaptureError, match=rf"^capture: the function returns a {kind.__name__} with attributes, which"):
        pynn.capture(with_name)(np.ones(1, np.float32))
