"""`@pynn.capture` on a method: each object has its own captured method."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import pynn
from pynn import nn
from pynn.replay import Captured


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    @pynn.capture
    def step(self, x):
        return x * self.scale

    @pynn.capture
    def twice(self, x):
        return self.step(self.step(x))


class ScaledMore(Scaled):
    def step(self, x):
        return super().step(x) + 1


def test_a_decorated_method_is_captured_for_each_object():
    x = pynn.ones(2)
    two, three = Scaled(2.0), Scaled(3.0)
    for _ in range(3):
        assert two.step(x).tolist() == [2, 2]
        assert three.step(x).tolist() == [3, 3]
        assert three.twice(x).tolist() == [9, 9]
    assert two.step is two.step
    assert repr(two.step) == "Captured(step, plans=1)"
    two.scale = three.scale = 5.0
    assert two.step(x).tolist() == [5, 5]
    assert three.twice(x).tolist() == [25, 25]
    assert isinstance(Scaled.step, Captured)


def test_a_method_may_name_what_its_class_alone_has():
    class Named:
        unit = 2.0

        def __init__(self):
            self.layer = nn.Linear(2, 1)

        def step(self, x):
            kinds = type(self).__name__ + type(self.layer).__name__  # no object has a __name__
            return self.layer(x) * (self.unit if kinds == "NamedLinear" else 0.0)

    named, x = Named(), pynn.ones(1, 2)
    step = pynn.capture(named.step)
    for _ in range(3):
        assert step(x).tolist() == named.step(x).tolist()
    Named.unit = 3.0
    assert step(x).tolist() == named.step(x).tolist()


def test_what_a_method_of_another_reads_is_compared():
    x, thing = pynn.ones(2), Scaled(2.0)  # whose `step` was never called on its own
    assert thing.twice(x).tolist() == [4, 4]
    thing.scale = 3.0
    assert thing.twice(x).tolist() == [9, 9]


def test_a_method_of_the_class_is_captured_for_each_class():
    class First:
        factor = 2.0

        @classmethod
        @pynn.capture
        def times(cls, x):
            return x * cls.factor

    class Second(First):
        factor = 3.0

    x = pynn.ones(2)
    for _ in range(3):
        assert [First.times(x).tolist(), Second.times(x).tolist(), Second().times(x).tolist()] == [
            [2, 2],
            [3, 3],
            [3, 3],
        ]
    First.factor = 4.0
    assert First.times(x).tolist() == [4, 4]
    assert repr(vars(First)["times"].__func__) == "Captured(times, plans=3)"


def test_a_method_of_a_class_with_slots_is_refused():
    class Slots:
        __slots__ = ()

        @pynn.capture
        def step(self, x):
            return x

    with pytest.raises(TypeError, match=r"^capture: step of Slots, needs a class without __slots__$"):
        Slots().step(pynn.ones(2))


def test_a_decorated_method_may_be_overridden():
    x, more = pynn.ones(2), ScaledMore(2.0)
    for _ in range(3):
        assert more.step(x).tolist() == [3, 3]
        assert more.twice(x).tolist() == [7, 7]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_a_copy_has_captures_of_its_own(copied):
    x, thing = pynn.ones(2), Scaled(2.0)
    assert thing.step(x).tolist() == [2, 2]
    other = copied(thing)
    other.scale = 3.0
    for _ in range(2):
        assert other.step(x).tolist() == [3, 3]
        assert thing.step(x).tolist() == [2, 2]


def test_objects_with_decorated_methods_are_freed():
    thing = Scaled(2.0)
    thing.step(pynn.ones(2))
    alive = weakref.ref(thing)
    del thing
    gc.collect()
    assert alive() is None


def test_a_decorated_method_of_a_module_trains_it():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 1)
            self.optimizer = pynn.optim.SGD(self.parameters(), lr=0.1)

        def forward(self, x):
            return self.layer(x)

        @pynn.capture
        def step(self, x):
            self.optimizer.zero_grad()
            loss = (self(x) ** 2).mean()
            loss.backward()
            self.optimizer.step()
            return loss

    net, x = Net(), np.ones((4, 2), np.float32)
    losses = [net.step(x).item() for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 4
    assert list(net.state_dict()) == ["layer.weight", "layer.bias"]
    assert repr(net.step) == "Captured(step, plans=1)"
