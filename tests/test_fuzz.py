"""Every binding of `_core` under hostile arguments: it computes, or raises an exception that names it; no crash.

A failure prints the blob that reproduces it. With `CI` set in the environment the examples are the same in every run;
`PYNN_FUZZ_EXAMPLES` says how many there are for each binding.
"""

import os

import numpy as np
import pytest
from core_cases import CASES, Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pynn import _core

settings.register_profile(
    "fuzz",
    deadline=None,
    print_blob=True,
    max_examples=int(os.environ.get("PYNN_FUZZ_EXAMPLES", "60")),
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("fuzz-ci", settings.get_profile("fuzz"), derandomize=True, database=None)
profile = settings.get_profile("fuzz-ci" if os.environ.get("CI") else "fuzz")

ALLOWED = (TypeError, ValueError, IndexError, MemoryError, OverflowError)

# Sizes are small, or so large that no machine has the memory; nothing in between, which some machine might allocate.
SMALL = [-3, -1, 0, 1, 2, 3, 5, 8, 9]
HUGE = [2**40, 2**62, 2**63 - 1, 2**63, 2**64, -(2**40), -(2**63), -(2**64), 10**30]
INTEGERS = st.sampled_from([*SMALL, *SMALL, *HUGE, True, np.int64(2), np.uint8(3)])
NOT_INTEGERS = st.sampled_from([None, 1.5, float("nan"), "1", b"1", [], (), {}, object(), np.float32(2), 2j])
FLOATS = st.sampled_from(
    [0.0, -0.0, 0.5, 1.0, -1.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"), 10**400, 7]
)
STRINGS = st.sampled_from(["none", "mean", "sum", "relu", "tanh", "", "nonsense", "mean\0", "é" * 1000, b"mean"])
SHAPES = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 17]), max_size=5).map(tuple)
RANK_64 = np.zeros((1,) * 64 if int(np.__version__.split(".")[0]) > 1 else (1,) * 32, np.float32)
NOT_ARRAYS = st.sampled_from(
    [None, 1.0, 3, "x", [1.0, 2.0], [[1.0], [2.0, 3.0]], [], (), {}, object(), np.float32(1), memoryview(b"1234")]
)


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def poisoned(a):
    a = a.copy()
    if a.size:
        a.reshape(-1)[-1] = np.nan if a.dtype.kind == "f" else 1
    return a


# The values of `a` in forms that the core must refuse, or must read with care.
LAYOUTS = [
    frozen,
    poisoned,
    np.asfortranarray,
    lambda a: a[..., ::-1] if a.ndim else a,
    lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    lambda a: a.astype(a.dtype.newbyteorder()),
    lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    lambda a: np.broadcast_to(a, (3, *a.shape)),
    lambda a: np.broadcast_to(a, (2**40, *a.shape)) if 0 < a.nbytes < 2**20 else a,
    lambda a: a.reshape(-1),
    lambda a: a[None],
    lambda a: a[:0] if a.ndim else a,
    lambda a: a.astype(object),
    lambda a: a.view(np.recarray),
]


@st.composite
def hostile_array(draw, a):
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.sampled_from(LAYOUTS))(a)
    if kind == 1:
        dtype = draw(
            st.sampled_from(
                [
                    np.float16,
                    np.float32,
                    np.float64,
                    np.longdouble,
                    np.int8,
                    np.uint8,
                    np.int32,
                    np.int64,
                    np.uint64,
                    np.bool_,
                    np.complex64,
                    "S3",
                    "M8[s]",
                    "f4,i8",
                ]
            )
        )
        return np.zeros(a.shape, dtype)
    if kind == 2:
        shape = draw(SHAPES)
        return np.resize(a, shape) if a.size else np.zeros(shape, a.dtype)
    if kind == 3 and a.dtype.kind in "iu":  # indices, labels
        low, high = np.iinfo(a.dtype).min, np.iinfo(a.dtype).max
        b = a.copy()
        if b.size:
            b.reshape(-1)[draw(st.integers(0, b.size - 1))] = draw(
                st.sampled_from([low, high, 0, 1, 255 % high, high // 2])
            )
        return b
    return draw(st.one_of(NOT_ARRAYS, st.just(RANK_64)))


@st.composite
def hostile(draw, value):
    """Return something nasty in place of `value`."""
    if isinstance(value, np.ndarray):
        return draw(hostile_array(value))
    if isinstance(value, bool):
        return draw(st.one_of(st.booleans(), NOT_INTEGERS))
    if isinstance(value, int):
        return draw(st.one_of(INTEGERS, INTEGERS, NOT_INTEGERS))
    if isinstance(value, float):
        return draw(st.one_of(FLOATS, FLOATS, NOT_INTEGERS))
    if isinstance(value, str):
        return draw(st.one_of(STRINGS, NOT_INTEGERS))
    if isinstance(value, list | tuple):
        return draw(hostile_sequence(value))
    return draw(st.one_of(NOT_ARRAYS, FLOATS))


@st.composite
def hostile_sequence(draw, value):
    kind = draw(st.integers(0, 5))
    items = list(value)
    if kind <= 2 and items:
        at = draw(st.integers(0, len(items) - 1))
        items[at] = draw(hostile(items[at]))
    elif kind == 3:
        items = items[: draw(st.integers(0, len(items)))]
    elif kind == 4:
        items = items + (items[-1:] or [1]) * draw(st.sampled_from([1, 2, 70]))
    else:
        return draw(
            st.one_of(NOT_ARRAYS, INTEGERS, st.lists(INTEGERS, max_size=4), st.lists(INTEGERS, max_size=4).map(tuple))
        )
    return type(value)(items)


def nbytes(value):
    if isinstance(value, list | tuple):
        return sum(nbytes(v) for v in value)
    return value.nbytes if isinstance(value, np.ndarray) else 0


def arrays(value):
    if isinstance(value, list | tuple):
        return [array for v in value for array in arrays(v)]
    return [value] if isinstance(value, np.ndarray) and value.nbytes < 2**20 and value.dtype != object else []


def small_cases(name):
    return [case for case in CASES[name] if nbytes(case.args) < 5_000] or [
        min(CASES[name], key=lambda c: nbytes(c.args))
    ]


def attack(name, args):
    """Call a function; whatever it raises must name it, and leave the arguments as they were."""
    before = [a.tobytes() for a in arrays(args)]
    try:
        getattr(_core, name)(*args)
        refusal = None
    except ALLOWED as error:
        refusal = error
    if refusal is not None:
        named = isinstance(refusal, MemoryError | OverflowError) or str(refusal).startswith(name)
        assert named, f"{name} does not say who refuses: {refusal}"
        assert [a.tobytes() for a in arrays(args)] == before, f"{name} failed, but had written to its arguments"


@pytest.mark.parametrize("name", CASES)
def test_hostile_arguments(name):
    cases = small_cases(name)

    @profile
    @given(st.data())
    def run(data):
        case = data.draw(st.sampled_from(cases))
        args = list(case.cast(data.draw(st.sampled_from([np.float32, np.float64]))))
        for at in data.draw(st.lists(st.integers(0, len(args) - 1), min_size=1, max_size=3, unique=True)):
            args[at] = data.draw(hostile(args[at]))
        attack(name, args)

    run()


@pytest.mark.parametrize("name", ["empty", "set_num_threads"])
def test_hostile_runtime(name):
    case = Case(name, {"empty": ((3, 4), np.float32), "set_num_threads": (1,)}[name], 0)
    threads = _core.num_threads()

    @profile
    @given(st.data())
    def run(data):
        attack(name, [data.draw(hostile(argument)) for argument in case.args])

    try:
        run()
    finally:
        _core.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_wrong_number_of_arguments(name):
    args = list(small_cases(name)[0].cast(np.float32))
    with pytest.raises(TypeError, match=f"^{name}"):
        getattr(_core, name)(*args, *[None] * 20)  # the last ones can have defaults
    with pytest.raises(TypeError, match=f"^{name}"):
        getattr(_core, name)()
    with pytest.raises(TypeError, match=f"^{name}"):
        getattr(_core, name)(*args, nonsense=1)
