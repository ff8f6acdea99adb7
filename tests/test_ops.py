"""Every operation of `pynn.functional`: values, gradients in both dtypes, layouts, and refusals, row by row."""

import inspect

import numpy as np
import pytest
from closeness import assert_close, sum_ulps
from ops import OPS
from ops.norm import SEED

import pynn
from pynn import functional as F

DTYPES = [np.float32, np.float64]
OPERATIONS = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
DIFFERENTIABLE = pytest.mark.parametrize("op", [op for op in OPS.values() if op.differentiable], ids=lambda op: op.name)
DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def is_float(value):
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def convert(op, call, change):
    """Return args and kwargs with `change(array, takes_gradient)` applied to every float array."""

    def one(key, value):
        if isinstance(value, list) and any(is_float(v) for v in value):
            return [change(v, True) for v in value]
        return change(value, op.differentiable and key not in op.constants) if is_float(value) else value

    return [one(i, v) for i, v in enumerate(call.args)], {k: one(k, v) for k, v in call.kwargs.items()}


def run(op, call, change):
    args, kwargs = convert(op, call, change)
    pynn.seed(SEED)
    with np.errstate(all="ignore"):
        return end_to_end(getattr(F, op.name)(*args, **kwargs))


def end_to_end(result):
    """Return the results of an operation that has several as one tensor."""
    return F.concatenate([F.reshape(y, -1) for y in result]) if isinstance(result, tuple) else result


def to_array(dtype):
    return lambda a, takes_gradient: a.astype(dtype)


def leaves(op, call, dtype):
    """Return the result of a call on leaf tensors, and these leaves."""
    made = []

    def leaf(a, takes_gradient):
        if not takes_gradient:
            return a.astype(dtype)
        made.append(pynn.Tensor(a.astype(dtype), requires_grad=True))
        return made[-1]

    return run(op, call, leaf), made


def expected(op, call):
    args, kwargs = convert(op, call, to_array(np.float64))
    with np.errstate(all="ignore"):
        want = op.oracle(*args, **kwargs)
        return np.concatenate([y.reshape(-1) for y in want]) if isinstance(want, tuple) else np.asarray(want)


def describe(call):
    def short(value):
        if isinstance(value, list) and any(is_float(v) for v in value):
            return [list(v.shape) for v in value]
        return list(value.shape) if is_float(value) else value

    return f"sample: {[short(v) for v in call.args]} {call.kwargs}"


def each_sample(op, check):
    for call in op.samples:
        try:
            check(call)
        except Exception as error:
            error.add_note(describe(call))
            raise


def test_every_public_operation_has_a_row():
    public = {name for name in dir(F) if callable(getattr(F, name)) and not name.startswith("_")}
    assert public == set(F.__all__) == set(OPS)
    assert all(op.samples for op in OPS.values())


@DTYPE
@OPERATIONS
def test_values(op, dtype):
    def check(call):
        y, want = run(op, call, to_array(dtype)), expected(op, call)
        assert isinstance(y, pynn.Tensor)
        assert y.data.flags.c_contiguous
        assert not y.requires_grad
        if want.dtype != np.float64:
            np.testing.assert_array_equal(y.data, want, strict=True)
            return
        assert y.dtype == (np.float64 if op.name == "astype" else dtype)
        size = np.max(np.abs(want), initial=0) if op.cancels else np.abs(want)
        assert_close(y.data, want, op.budget(call), size, op.name)

    each_sample(op, check)


def projected_gradients(op, call, dtype):
    """Return d sum(dy * op(...)) for a fixed random dy, for each differentiable array; and dy."""
    y, made = leaves(op, call, dtype)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    if made:
        y.backward(dy.astype(y.dtype))
    return [leaf.grad for leaf in made], dy.astype(np.float64)


@DIFFERENTIABLE
def test_gradients_against_central_differences(op):
    """(f(x + h) - f(x - h)) / 2h in float64.

    With h = 2^-17 the truncation is of the order h^2 = 6e-11, the rounding of f of the order eps / h = 3e-11 times f.
    Each of the checked sums may hold a hundred such terms.
    """
    h = 2.0**-17

    def check(call):
        gradients, dy = projected_gradients(op, call, np.float64)
        for which, gradient in enumerate(gradients):

            def f(v, step):
                count = -1

                def shift(a, takes_gradient):
                    nonlocal count
                    count += takes_gradient
                    return a + step * v if takes_gradient and count == which else a.copy()  # noqa: B023

                return np.sum(dy * run(op, call, shift).data)

            assert gradient.dtype == np.float64
            for v in directions(gradient.shape):
                numeric = (f(v, h) - f(v, -h)) / (2 * h)
                analytic = np.sum(gradient * v)
                scale = 1 + np.sum(np.abs(gradient * v)) + np.sum(np.abs(dy))
                assert abs(numeric - analytic) <= 1e-8 * scale, (
                    f"argument {which}: {analytic} by backward, {numeric} by differences"
                )

    each_sample(op, check)


def directions(shape):
    """Return one array per element that is 1 there, or random directions for shapes of many elements."""
    size = int(np.prod(shape))
    if size <= 40:
        return np.eye(size).reshape(size, *shape)
    rng = np.random.default_rng(2)
    return rng.uniform(-1, 1, size=(3, *shape))


@DIFFERENTIABLE
def test_float32_gradients_against_float64(op):
    def check(call):
        got, dy = projected_gradients(op, call, np.float32)
        want, _ = projected_gradients(op, call, np.float64)
        for g32, g64 in zip(got, want, strict=True):
            assert g32.dtype == np.float32
            # Any sum in a backward adds products with dy, and the forward's roundings enter its factors.
            ulps = 8 + op.budget(call) + sum_ulps(max(1, dy.size))
            assert_close(g32, g64, ulps, np.max(np.abs(g64), initial=0) + np.max(np.abs(dy), initial=0), op.name)

    each_sample(op, check)


@DIFFERENTIABLE
def test_only_what_requires_a_gradient_gets_one(op):
    call = op.samples[-1]
    _, all_leaves = leaves(op, call, np.float32)
    for chosen in range(len(all_leaves)):
        made = []

        def leaf(a, takes_gradient):
            if takes_gradient:
                made.append(pynn.Tensor(a.astype(np.float32), requires_grad=len(made) == chosen))  # noqa: B023
                return made[-1]  # noqa: B023
            return a.astype(np.float32)

        y = run(op, call, leaf)
        assert y.requires_grad
        y.backward(np.ones(y.shape, y.dtype))
        for i, x in enumerate(made):
            assert (x.grad is not None) == (i == chosen)
        assert made[chosen].grad.shape == made[chosen].shape


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "negative strides": lambda a: np.array(a[tuple([slice(None, None, -1)] * a.ndim)])[
        tuple([slice(None, None, -1)] * a.ndim)
    ],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "read-only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@OPERATIONS
def test_layouts(op, layout):
    def change(a, takes_gradient):
        a = a.astype(np.float32)
        # Running statistics are written in place: only a plain array can take them.
        return LAYOUTS[layout](a) if takes_gradient or not op.differentiable or op.name != "batch_norm" else a

    def check(call):
        assert run(op, call, change).data.tobytes() == run(op, call, to_array(np.float32)).data.tobytes()

    each_sample(op, check)


def float_arrays(op, call):
    count = 0

    def change(a, takes_gradient):
        nonlocal count
        count += 1
        return a

    convert(op, call, change)
    return count


ANY_DTYPE = {"astype", "reshape", "flatten", "transpose", "broadcast_to", "concatenate", "stack", "index", "where"}


@pytest.mark.parametrize("op", [op for op in OPS.values() if op.name not in ANY_DTYPE], ids=lambda op: op.name)
def test_refuses_other_dtypes(op):
    call = next(c for c in op.samples[::-1] if float_arrays(op, c) and c.kwargs.get("training", True))
    for dtype in (np.int64, np.bool_, np.float16, np.complex64, object):
        with pytest.raises(TypeError, match=dtype.__name__ if dtype is not np.bool_ else "bool"):
            run(op, call, to_array(dtype))


@pytest.mark.parametrize(
    "op", [op for op in OPS.values() if any(float_arrays(op, c) > 1 for c in op.samples)], ids=lambda op: op.name
)
def test_refuses_mixed_dtypes(op):
    call = next(c for c in op.samples[::-1] if float_arrays(op, c) > 1)
    for odd in range(float_arrays(op, call)):
        count = -1

        def change(a, takes_gradient):
            nonlocal count
            count += 1
            return a.astype(np.float64 if count == odd else np.float32)  # noqa: B023

        with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
            run(op, call, change)


ODD = [None, "x", 1.5, 2, -1, 2**70, -(2**70), [1, 2], (1, 2, 3), [[1], [2, 3]], {}, object]


@OPERATIONS
def test_what_is_odd_computes_or_is_refused_by_name(op):
    """Each argument in turn, in a call of each form that the samples have: no raw text of Python, NumPy or pybind11."""
    function = getattr(F, op.name)
    signature = inspect.signature(function)
    forms = {(len(call.args), *call.kwargs): call for call in op.samples}
    for call in forms.values():
        args, kwargs = convert(op, call, to_array(np.float32))
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            for value in ODD:
                bound = signature.bind(*args, **kwargs)
                bound.arguments[name] = value
                try:
                    function(*bound.args, **bound.kwargs)
                except (TypeError, ValueError, IndexError) as error:
                    error.add_note(f"{describe(call)}, with {name} = {value!r}")
                    if not str(error).startswith((f"{op.name}: ", "Tensor: ")):
                        raise


@pytest.mark.parametrize("name", OPS)
def test_refuses_bad_input(name):
    op = OPS[name]
    for bad in op.bad:
        try:
            run(op, bad.call, to_array(np.float32))
        except Exception as error:
            error.add_note(describe(bad.call))
            with pytest.raises(bad.error, match=bad.match):
                raise
        else:
            pytest.fail(f"{name} accepted {describe(bad.call)}")


def test_stack_refuses_two_dtypes():
    with pytest.raises(TypeError, match=r"^stack: arrays\[1\] is float64, needs float32"):
        F.stack([np.ones(3, np.float32), np.ones(3)])
    with pytest.raises(TypeError, match=r"^stack: one dtype is needed, got int64, int32"):
        F.stack([np.ones(3, np.int64), np.ones(3, np.int32)])
