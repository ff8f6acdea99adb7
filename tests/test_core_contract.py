"""Every function of the compiled core: its signature, its values against the oracle, and its type checks."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import oracle
import pytest
from closeness import assert_close, same
from core_cases import CASES, RUNTIME

from pynn import _core
from pynn.intercept import IN_PLACE

STUB = Path(__file__).parents[1] / "pynn" / "_core.pyi"
DTYPES = [np.float32, np.float64]

# What multiplies a probability or a slope that may be denormal.
FLUSHED_TIMES = {"silu": 128, "softplus_backward": 8, "softmax_backward": 8}


def stub_signatures():
    """Return {function: [(argument, default as source text or None)]} of the stub."""
    signatures = {}
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            defaults = [None] * (len(node.args.args) - len(node.args.defaults)) + node.args.defaults
            signatures[node.name] = [
                (argument.arg, None if default is None else ast.literal_eval(default))
                for argument, default in zip(node.args.args, defaults, strict=True)
            ]
    return signatures


def compiled_signature(function):
    """Return the same of a pybind11 function, from the first line of its docstring."""
    line = function.__doc__.splitlines()[0]
    text = re.search(r"\((.*)\) ->", line)[1]
    arguments, depth, start = [], 0, 0
    for i, character in enumerate(text + ","):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            arguments.append(text[start:i].strip())
            start = i + 1
    named = []
    for argument in filter(None, arguments):
        head, _, default = argument.partition(" = ")
        named.append((head.partition(":")[0].strip(), ast.literal_eval(default) if default else None))
    return named


def arrays(value):
    """Return all arrays within arguments or a result, in order."""
    if isinstance(value, list | tuple):
        return [array for v in value for array in arrays(v)]
    return [value] if isinstance(value, np.ndarray) else []


def flat(result):
    """Return the arrays of a result, where a number counts as one."""
    return [np.asarray(result)] if isinstance(result, float | bool) else arrays(result)


def outputs(module, case, dtype):
    """Return what a call gives, with the arguments it writes to; check that it writes to no others."""
    args = case.cast(dtype)
    with np.errstate(all="ignore"):
        results = flat(getattr(module, case.name)(*args))
    for i, (argument, before) in enumerate(zip(args, case.cast(dtype), strict=True)):
        if i in IN_PLACE.get(case.name, ()):
            results += arrays(argument)
        else:
            for a, b in zip(arrays(argument), arrays(before), strict=True):
                assert a.tobytes() == b.tobytes(), f"{case.name} wrote to argument {i}"
    return results


def check(case, dtype):
    actual, expected = outputs(_core, case, dtype), outputs(oracle, case, np.float64)
    scales = [None] * len(expected)
    if case.scale is not None:
        with np.errstate(all="ignore"):
            scales = case.scale(*case.cast(np.float64))
        scales = list(scales) if isinstance(scales, list | tuple) else [scales]
        scales = [s for s in scales if s is not None]
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        what = f"{case.name} output {i}"
        if e.dtype != np.float64:
            np.testing.assert_array_equal(a, e, what, strict=True)
            continue
        scale = scales[i] if i < len(scales) and scales[i] is not None else np.abs(e)
        assert_close(a, e, case.ulps, scale, what, FLUSHED_TIMES.get(case.name, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_values(name, dtype):
    for number, case in enumerate(CASES[name]):
        try:
            check(case, dtype)
        except Exception as error:
            error.add_note(f"case {number}: {describe(case)}")
            raise


def describe(case):
    return ", ".join(
        str(list(a.shape)) if isinstance(a, np.ndarray) else f"{len(a)} arrays" if arrays(a) else repr(a)
        for a in case.args
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_new_contiguous_arrays(name, dtype):
    for case in CASES[name]:
        args = case.cast(dtype)
        with np.errstate(all="ignore"):
            result = getattr(_core, name)(*args)
        for output in flat(result):
            assert output.flags.c_contiguous
            assert output.flags.aligned
            assert output.flags.writeable
            assert output.dtype.isnative
            assert not any(np.may_share_memory(output, a) for a in arrays(args))


def test_every_function_has_cases():
    assert set(CASES) | RUNTIME == set(stub_signatures())


def test_stub_lists_the_functions_of_the_module():
    public = {name for name, value in vars(_core).items() if not name.startswith("_") and callable(value)}
    assert public == {*stub_signatures(), "PackedRows", "Recording"}


def test_oracle_lists_the_functions_of_the_stub():
    for name, arguments in stub_signatures().items():
        assert list(inspect.signature(getattr(oracle, name)).parameters) == [argument for argument, _ in arguments]


@pytest.mark.parametrize("name", stub_signatures())
def test_stub_signature(name):
    assert compiled_signature(getattr(_core, name)) == stub_signatures()[name]


def test_keywords():
    x = np.ones((2, 3), np.float32)
    assert _core.sum(x=x, axes=(1,), keepdims=False).tolist() == [3.0, 3.0]


# -- what every function refuses ------------------------------------------------------------------------------------


def positions(case):
    """Return where the float arrays are: (argument, index in its list or None)."""
    found = []
    for i, argument in enumerate(case.args):
        if isinstance(argument, np.ndarray) and argument.dtype == np.float64:
            found.append((i, None))
        elif isinstance(argument, list):
            found += [(i, j) for j in range(len(argument))]
    return found


def replaced(case, position, change):
    """Return the float32 arguments with one array changed."""
    args = list(case.cast(np.float32))
    i, j = position
    if j is None:
        args[i] = change(args[i])
    else:
        args[i] = [change(a) if k == j else a for k, a in enumerate(args[i])]
    return args


def strided(a):
    return np.repeat(a, 2, axis=-1)[..., ::2]


def misaligned(a):
    return np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(a.shape)


def byte_swapped(a):
    return a.astype(a.dtype.newbyteorder())


def plain_case(name):
    """Return the first case whose float arrays all have elements, the largest rank first."""
    candidates = [
        c for c in CASES[name] if positions(c) and all(a.size > 1 for a in arrays(c.args) if a.dtype == np.float64)
    ]
    if not candidates:  # lists hold empty arrays too
        candidates = [c for c in CASES[name] if positions(c)]
    return max(candidates, key=lambda c: arrays(c.args)[0].ndim)


@pytest.mark.parametrize("name", CASES)
def test_refuses_other_dtypes_and_layouts(name):
    case = plain_case(name)
    for position in positions(case):
        changes = {
            "float16": lambda a: a.astype(np.float16),
            "int64": lambda a: a.astype(np.int64),
            "complex64": lambda a: a.astype(np.complex64),
            "object": lambda a: a.astype(object),
            "byte-swapped": byte_swapped,
        }
        target = arrays(replaced(case, position, lambda a: a)[position[0]])[position[1] or 0]
        if target.size > 1:
            changes |= {"strided": strided, "misaligned": misaligned}
        if len(positions(case)) > 1:
            changes["float64 beside float32"] = lambda a: a.astype(np.float64)
        for what, change in changes.items():
            with np.errstate(all="ignore"):  # casts of infinities and NaN
                args = replaced(case, position, change)
            try:
                getattr(_core, name)(*args)
            except TypeError as error:
                assert str(error).startswith(name)  # noqa: PT017 -- one test goes through many arguments
            else:
                pytest.fail(f"{name} accepted a {what} array as argument {position}")


@pytest.mark.parametrize("name", sorted(IN_PLACE))
def test_refuses_to_write_to_read_only_arrays(name):
    def freeze(a):
        a = a.copy()
        a.flags.writeable = False
        return a

    case = next(c for c in CASES[name] if name != "batch_norm" or (c.args[3] is not None and c.args[5]))
    position = {"batch_norm": (3, None)}.get(name, (0, 3))
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        getattr(_core, name)(*replaced(case, position, freeze))


@pytest.mark.parametrize("name", [name for name in CASES if name not in IN_PLACE])
def test_reads_read_only_arrays(name):
    def freeze(a):
        a.flags.writeable = False
        return a

    case = plain_case(name)
    args = case.cast(np.float32)
    for a in arrays(args):
        freeze(a)
    getattr(_core, name)(*args)


# -- facts that no comparison shows ------------------------------------------------------------------------------------


def test_philox_known_answer():
    # Random123's kat_vectors, philox4x32 10: counter 0, key 0.
    known = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert oracle.philox(0, np.zeros(1, np.uint64))[0].tolist() == known
    for i, word in enumerate(known):
        uniform = (word >> 8) / 2**24
        ones = np.ones(4, np.float64)
        assert _core.dropout(ones, uniform, 0, 0)[i] != 0
        assert _core.dropout(ones, uniform + 2.0**-24, 0, 0)[i] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_reaches_the_output(dtype):
    nan = np.array([np.nan, 1.0], dtype)
    one = np.ones(2, dtype)
    for name in ("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg"):
        assert same(getattr(_core, name)(nan)[:1], nan[:1]), name
    for name in ("maximum", "minimum"):
        assert np.isnan(getattr(_core, name)(nan, one)[0]), name
        assert np.isnan(getattr(_core, name)(one, nan)[0]), name
    assert np.isnan(_core.clip(nan, -1.0, 1.0)[0])
    assert np.isnan(_core.max(nan, (0,), False))
    assert np.isnan(_core.min(nan, (0,), False))
    loss, dx = _core.hinge_loss(nan, one, "none", True)  # relu's rule: the gradient stops at 0 or less, not at NaN
    assert np.isnan(loss[0])
    assert dx[0] == -1


def test_rows_without_elements_take_no_time():
    many = 2**40  # to count through them would take hours
    rows = np.zeros((many, 0), np.float32)
    for name in ("softmax", "log_softmax"):
        assert getattr(_core, name)(rows).shape == rows.shape
        assert getattr(_core, f"{name}_backward")(rows, rows).shape == rows.shape
    assert _core.argmax(np.zeros((many, 3, 0), np.float32), 1).shape == (many, 0)
    images, channels = np.zeros((many, 2, 0), np.float32), np.ones(2, np.float32)
    y, mean, rstd = _core.batch_norm(images, None, None, channels, channels, False, 0.1, 0.0)
    assert y.shape == images.shape
    assert _core.batch_norm_backward(images, images, None, mean, rstd, True)[0].shape == images.shape
    heads, how = np.zeros((many, 1, 0, 3), np.float32), (None, None, 1.0, 0.0, 0, 0)
    y, lse = _core.scaled_dot_product_attention(heads, heads, heads, *how)
    dxs = _core.scaled_dot_product_attention_backward(y, y, lse, heads, heads, heads, *how)
    assert all(dx.shape == heads.shape for dx in dxs)
    qkv = np.zeros((many, 0, 3), np.float32)
    y, lse = _core.self_attention(qkv, 1, *how)
    assert _core.self_attention_backward(y, y, lse, qkv, 1, *how).shape == qkv.shape


def test_kernels_and_images_without_elements_take_no_memory():
    long, pixel = 2**31 - 1, np.zeros((1, 0, 1, 1), np.float32)
    weight, bias = np.zeros((2, 0, long, 1), np.float32), np.ones(2, np.float32)
    how = (1, 1), (2**30, 2**30, 0, 0), (1, 1), 1, "none"
    y = _core.conv2d(pixel, weight, bias, *how)
    assert y.tolist() == np.ones((1, 2, 3, 1)).tolist()
    dx, dweight, dbias = _core.conv2d_backward(y, None, pixel, weight, *how, True, True, True)
    assert (dx.shape, dweight.shape, dbias.tolist()) == (pixel.shape, weight.shape, [3, 3])
    nothing, one = np.zeros((0, 1, long, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    how = (long, 1), (0, 0, 0, 0), (1, 1), 1, "none"
    dx, _, _ = _core.conv2d_backward(nothing[:, :, :1], None, nothing, one, *how, True, True, True)
    assert dx.shape == nothing.shape


def test_sizes_that_overflow_are_refused():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"^slice: shape .* has more elements than memory can hold"):
        _core.slice(x, (0, 0), (1, 1), (2**62, 2**62))
    with pytest.raises(ValueError, match=r"^slice: shape .* has a negative size"):
        _core.slice(x, (0, 0), (1, 1), (2, -(2**63)))
    with pytest.raises(ValueError, match=r"^concatenate: .* axis 1"):  # 2**64 together
        _core.concatenate([np.zeros((0, 2**60), np.float32)] * 16, 1)


def test_refused_numbers_are_shown_in_full():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"^layer_norm: eps is -1e-08, needs"):
        _core.layer_norm(x, None, None, -1e-8)
    with pytest.raises(ValueError, match=r"^cross_entropy: label_smoothing is 1\.0000001, needs"):
        _core.cross_entropy(x, np.zeros(2, np.int64), -100, 1.0000001, "mean", False)
    with pytest.raises(ValueError, match=r"^dropout: p is 1e\+300, needs"):
        _core.dropout(x, 1e300, 0, 0)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])  # with stride 1 through lists of windows
def test_pooled_gradient_refuses_an_index_outside_its_window(stride):
    x, weight = np.ones((3, 2, 9, 8), np.float32), np.ones((4, 2, 3, 3), np.float32)
    how = stride, (0, 0, 0, 0), (1, 1), 1, "relu"
    y, indices = _core.conv2d_max_pool2d(x, weight, None, *how)
    for index in (4, 255):
        indices.reshape(-1)[-1] = index
        with pytest.raises(IndexError, match=r"^conv2d_max_pool2d_backward: indices .* outside 0..3"):
            _core.conv2d_max_pool2d_backward(y, y, indices, x, weight, *how, True, True, True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 17, 1030])
def test_require_finite(dtype, bad, at):
    array = np.zeros(1031, dtype)
    array[at] = bad
    with pytest.raises(FloatingPointError, match=r"^x is not finite$"):
        _core.require_finite([np.ones(3, dtype), array], "x")
    with pytest.raises(FloatingPointError, match=rf"^the loss is {bad}$"):
        _core.require_finite([np.full(1, bad, dtype)], "the loss")


def test_info():
    info = _core.info()
    assert set(info) >= {"isa", "isas", "compiler", "num_threads", "max_threads"}
    assert info["isa"] in info["isas"]
    assert info["num_threads"] == _core.num_threads()


def test_set_num_threads():
    before = _core.num_threads()
    try:
        _core.set_num_threads(2)
        assert _core.num_threads() == 2
        for n in (0, -1, 1 << 40):
            with pytest.raises(ValueError, match=r"^set_num_threads\b"):
                _core.set_num_threads(n)
        for bad in ("2", 2.0, None):
            with pytest.raises(TypeError, match=rf"^set_num_threads: n is {bad!r}, needs an integer from 1 to 256$"):
                _core.set_num_threads(bad)
        assert _core.num_threads() == 2
    finally:
        _core.set_num_threads(before)


def test_kernel_counts():
    _core.reset_kernel_counts()
    assert not any(_core.kernel_counts().values())
    x = np.ones((3, 3), np.float32)
    _core.matmul(x, x)
    counts = {name: count for name, count in _core.kernel_counts().items() if count}
    assert sum(counts.values()) == 1
    assert all(name.startswith("gemm.") for name in counts)
