"""What the core compares, finds and places for a captured step."""

import numpy as np
import pytest
from captured_steps import X

from pynn._core import Recording

WHOLE = np.ones(3, np.float32)
NOWHERE = Recording.extents([])


@pytest.mark.parametrize(
    "arguments",
    [
        ("is_ready", (X,), (np.ndarray, X), NOWHERE, (), (), (), ()),
        ("is_ready", (X,), (np.ndarray, X, True), X, (), (), (), ()),
        ("unchanged", (), (), (), (bool,)),
        ("unchanged", (), (), (), (1, True)),
        ("finish", (), (1, "x")),
        ("finish", (1,), ()),
        ("unchanged", (1, "x"), (), ()),
        ("unchanged", (), ({}, "x"), ()),
        ("unchanged", (), (), ([1],)),
        ("unchanged", (), (), ([1], [1])),
        ("unchanged", (), (), (1, (1,))),
        ("unchanged", (), ([], 0, 1), ()),
        ("unchanged", (1, 2, 3), (), ()),
        ("place", [WHOLE], {}, np.broadcast_to(WHOLE, (2, 3))),
        ("place", [WHOLE], {id(WHOLE): "0"}, WHOLE),
        ("place", [WHOLE], {id(WHOLE): 1 << 70}, WHOLE),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_the_core_compares_is_checked(arguments):
    name, *args = arguments
    with pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(Recording, name)(*args)


@pytest.mark.parametrize("offset", [-64, 8, 1 << 62])
def test_arrays_are_placed_only_where_they_fit(offset):
    x = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"^Recording\.place: an array of 16 bytes does not fit"):
        Recording.place((x,), {id(x): offset}, np.zeros(5, np.float32))


def test_arrays_are_found_and_placed_in_nested_lists():
    x, y = np.ones((2, 4), np.float32), np.ones(3)
    value = (x[1], [(1, "a"), [x.reshape(8), (y,)], None], 2.0)
    arrays, memory = Recording.arrays_in(value)
    assert [a.shape for a in arrays] == [(4,), (8,), (3,)]
    assert memory == [id(x), id(x), id(y)] == [Recording.memory(a) for a in arrays]
    assert Recording.memory_of_call((y, 1), value) == ([id(y)], memory, [64] * 3)
    block = np.zeros(20, np.float32)
    (first, (numbers, (whole, (other,)), none), two) = Recording.place(value, {id(x): 16}, block)
    block[:] = range(20)
    assert (first.tolist(), whole.tolist()) == ([8, 9, 10, 11], list(range(4, 12)))
    assert (numbers, none, two) == ((1, "a"), None, 2.0)
    assert other is y
    endless = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        Recording.arrays_in(endless)


def test_equal_keys_are_the_same_and_what_their_comparison_raises_is_raised():
    class Broken:
        __hash__ = object.__hash__

        def __eq__(self, other):
            raise RuntimeError("no order")

    value = object()
    assert Recording.unchanged((), (), ({1: value}, (1.0, value)))
    assert not Recording.unchanged((), (), ({1: value}, (2, value)))
    assert not Recording.unchanged((), (), ({1: value}, (1,)))
    assert Recording.unchanged((), (), (), (lambda: 1.0, 1))
    assert not Recording.unchanged((), (), (), (lambda: 1.0, 1, lambda: 1.0, 2))
    with pytest.raises(RuntimeError, match="no order"):
        Recording.unchanged((), (), ({Broken(): value}, (1, value)))
    with pytest.raises(RuntimeError, match="no order"):
        Recording.unchanged((), (), (), (Broken, 1))
