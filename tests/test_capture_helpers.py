"""What functions, methods and objects that a captured function uses read of what is around it."""

import collections
import functools
import types

import numpy as np
import pytest

import pynn
from pynn import nn
from pynn.guarded import CaptureError


class Settings:
    def __init__(self, **held):
        vars(self).update(held)


class Slots:
    __slots__ = ("empty", "factor")

    def __init__(self):
        self.factor = 2.0

    def scaled(self, x):
        return x * self.factor


class Attributes(dict):
    __getattr__ = dict.__getitem__


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def scaled(self, x):
        return x * self.factor

    @property
    def twice(self):
        return 2 * self.factor

    def through_a_method(self, x):
        return self.scaled(x)

    def through_a_property(self, x):
        return x * self.twice


class Model(nn.Module):
    def __init__(self, settings=None, factor=2.0):
        self.settings, self.factor = settings, factor

    def forward(self, x):
        return x * self.settings.inner.factor

    def loss(self, x):
        return (x * self.factor).sum()


class More(Model):
    def forward(self, x):
        return super().forward(x) + 1

    def loss(self, x):
        return super().loss(x) + 1


class Counted(nn.Module):
    count = 2.0

    @staticmethod
    def of_static(x):
        return x * Counted.count

    @classmethod
    def of_class(cls, x):
        return cls.inner(x)

    @classmethod
    def inner(cls, x):
        return x * cls.count


class Inherits(Counted):
    pass


class Given(nn.Module):
    def forward(self, x, settings):
        return x * settings.factor


def of_object(x, settings):
    return x * settings.factor


def of_entry(x, config):
    return x * config["factor"]


def of_object_in_turn(x, settings):
    return of_object(x, settings)


package = types.ModuleType("package")
exec("FACTOR = 2.0\ndef scaled(x):\n    return x * FACTOR", vars(package))


def cases():
    settings, config = Settings(factor=2.0), {"factor": 2.0}
    nested = Settings(inner=Settings(factor=2.0))
    entries = {"inner": {"factor": 2.0}}
    scale, model, given = Scale(2.0), Model(), Given()

    counted, more, slots = Counted(), More(), Slots()
    attributes, ordered = Attributes(factor=2.0), collections.OrderedDict(factor=2.0)

    def put(thing):
        return lambda value: setattr(thing, "factor", value)

    def count(value):
        Counted.count = value

    return {
        "argument of a helper": (lambda x: of_object(x, settings), put(settings)),
        "argument of a helper's helper": (lambda x: of_object_in_turn(x, settings), put(settings)),
        "dict": (lambda x: of_entry(x, config), lambda value: config.update(factor=value)),
        "argument of a partial": (functools.partial(of_object, settings=settings), put(settings)),
        "bound argument of a partial": (functools.partial(lambda used, x: x * used.factor, settings), put(settings)),
        "default argument": (lambda x, used=settings: x * used.factor, put(settings)),
        "default argument by name": (lambda x, *, used=settings: x * used.factor, put(settings)),
        "argument of forward": (lambda x: given(x, settings), put(settings)),
        "nested objects": (lambda x: x * nested.inner.factor, put(nested.inner)),
        "nested dicts": (lambda x: x * entries["inner"]["factor"], lambda value: entries["inner"].update(factor=value)),
        "nested in a module": (Model(nested), put(nested.inner)),
        "call of an object": (lambda x: scale(x), put(scale)),
        "callable object": (scale, put(scale)),
        "method": (lambda x: scale.scaled(x), put(scale)),
        "method of a method": (lambda x: scale.through_a_method(x), put(scale)),
        "property": (lambda x: x * scale.twice, put(scale)),
        "property in a method": (scale.through_a_property, put(scale)),
        "method of a model": (lambda x: model.loss(x), put(model)),
        "slot": (lambda x: x * slots.factor, put(slots)),
        "slot in a method": (slots.scaled, put(slots)),
        "entry as an attribute": (lambda x: x * attributes.factor, lambda value: attributes.update(factor=value)),
        "entry of a kind of dict": (lambda x: x * ordered["factor"], lambda value: ordered.update(factor=value)),
        "method that super finds": (lambda x: more.loss(x), put(more)),
        "forward that super finds": (More(nested), put(nested.inner)),
        "static method": (lambda x: counted.of_static(x), count),
        "class method": (lambda x: Counted.of_class(x), count),
        "class method of an object": (lambda x: counted.of_class(x), count),
        "captured class method": (Counted.of_class, count),
        "inherited number of a class": (lambda x: x * Inherits.count, count),
        "function of a module": (lambda x: package.scaled(x), lambda value: setattr(package, "FACTOR", value)),
    }


@pytest.mark.parametrize("name", cases())
def test_what_helpers_read_is_compared(name):
    function, change = cases()[name]
    f, x = pynn.capture(function), pynn.ones(3)
    for value in (2.0, 2.0, 3.0, 3.0, 2.0):
        change(value)
        np.testing.assert_array_equal(f(x).data, function(x).data)
    assert repr(f).endswith("plans=2)")


def test_a_helper_is_looked_at_for_each_that_calls_it():
    first, second = Settings(factor=2.0), Settings(factor=3.0)

    class Uses(nn.Module):
        def __init__(self):
            self.settings = second

        def forward(self, x):
            return of_object(x, self.settings)

    model = Uses()
    f, x = pynn.capture(lambda x: model(of_object(x, first))), np.ones(2, np.float32)
    assert f(x).tolist() == f(x).tolist() == [6, 6]
    second.factor = 5.0
    assert f(x).tolist() == [10, 10]


def test_things_that_hold_each_other_come_to_an_end():
    parent = Settings(factor=2.0)
    parent.child = Settings(parent=parent, factor=3.0)
    f, x = pynn.capture(lambda x: x * parent.child.parent.factor), pynn.ones(2)
    assert f(x).tolist() == [2, 2]
    parent.factor = 4.0
    assert f(x).tolist() == [4, 4]


def test_what_a_helper_changes_of_its_argument_is_refused():
    counts = Settings(steps=0)

    def count(counts):
        counts.steps += 1

    @pynn.capture
    def step(x):
        count(counts)
        return x * 2

    with pytest.raises(CaptureError, match=r"^capture: the function changes steps"):
        step(pynn.ones(2))
    assert counts.steps == 0


def test_a_method_that_counts_is_refused():
    class Counter:
        count = 0

        def taken(self, x):
            self.count += 1
            return x * 2

    counter = Counter()
    with pytest.raises(CaptureError, match=r"^capture: the function changes count, which it has from around it"):
        pynn.capture(lambda x: counter.taken(x))(pynn.ones(2))
    assert counter.count == 0
