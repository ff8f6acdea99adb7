"""Chains of elementwise calls in captured steps: which calls become one, and that they keep the bits of single ones."""

import functools

import numpy as np
import pytest

import pynn
from pynn import _core, chains, passes
from pynn import functional as F
from pynn._core import Recording
from pynn.chains import fuse_elementwise
from pynn.plan import Call

SHAPE = (64, 80)  # more than chains.LEAST


def array(*shape, dtype=np.float32):
    return np.zeros(shape or SHAPE, dtype)


def call(name, *args, y=None, **options):
    return Call(name, args, [array() if y is None else y], **options)


def kept(*calls):
    return {at for c in calls for at in c.made_memory}


def names(calls):
    return [c.name for c in calls]


# -- the pass ----------------------------------------------------------------------------------------------------------


def test_what_only_the_chain_reads_stays_with_the_threads():
    x, other = array(), array()
    first = call("tanh", x)
    second = call("mul", *first.outputs, other)
    third = call("leaky_relu_backward", *second.outputs, x, 0.1)
    (fused,) = fuse_elementwise([first, second, third], kept(first, third))
    assert fused.name == "tanh+mul+leaky_relu_backward"
    assert fused.links == (("tanh", (0,)), ("mul", (2, 1)), ("leaky_relu_backward", (3, 0, 0.1)))
    assert [id(a) for a in fused.args] == [id(x), id(other)]
    assert fused.outputs[0] is first.outputs[0]
    assert fused.outputs[2] is third.outputs[0]
    assert [id(a) for a in fused.scratch] == [id(fused.outputs[1])]
    assert fused.outputs[1] is not second.outputs[0]  # whose memory can go
    assert str(fused) == "tanh+mul+leaky_relu_backward([64, 80], [64, 80]) -> [64, 80], [64, 80]"


def test_what_a_later_call_reads_is_written():
    first = call("exp", array())
    second = call("neg", *first.outputs)
    last = call("sum", *first.outputs, y=array(1))
    fused, _ = fuse_elementwise([first, second, last], kept(second, last))
    assert (fused.name, fused.scratch) == ("exp+neg", [])


def test_one_element_for_all_is_read_where_it_is():
    half = array(1)
    first = call("mul", array(), half)
    second = call("add", half, *first.outputs)
    (fused,) = fuse_elementwise([first, second], kept(second))
    assert fused.links == (("mul", (0, 1)), ("add", (1, 2)))


@pytest.mark.parametrize("why", ["small", "shape", "dtype", "row", "unrelated", "no elementwise call", "repeats"])
def test_calls_that_stay_as_they_are(why):
    first = call("exp", array())
    second = call("neg", *first.outputs)
    if why == "small":
        first = call("exp", array(9), y=array(9))
        second = call("neg", *first.outputs, y=array(9))
    elif why == "shape":
        second = call("neg", first.outputs[0].reshape(80, 64), y=array(80, 64))
    elif why == "dtype":
        second = call("neg", *first.outputs, y=array(dtype=np.float64))
    elif why == "row":
        second = call("add", *first.outputs, array(80))
    elif why == "unrelated":
        second = call("neg", array())
    elif why == "no elementwise call":
        second = call("softmax", *first.outputs)
    else:
        second.repeat = object()
    calls = [first, second]
    assert fuse_elementwise(calls, kept(second)) is calls


def test_a_chain_ends_where_it_is_long():
    calls = [call("neg", array())]
    for _ in range(chains.MOST + 2):
        calls.append(call("neg", *calls[-1].outputs))
    assert [len(c.links) for c in fuse_elementwise(calls, kept(calls[-1]))] == [chains.MOST, 3]


# -- calls between them ------------------------------------------------------------------------------------------------


def test_a_call_moves_back_over_others():
    first = call("exp", array())
    reader = call("softmax", *first.outputs)
    second = call("neg", *first.outputs)
    assert names(fuse_elementwise([first, reader, second], kept(reader, second))) == ["exp+neg", "softmax"]


def test_a_chain_moves_forward_to_a_call_that_needs_more():
    first = call("exp", array())
    maker = call("softmax", array())
    second = call("mul", *first.outputs, *maker.outputs)
    assert names(fuse_elementwise([first, maker, second], kept(second))) == ["softmax", "exp+mul"]


def test_nothing_moves_past_what_it_needs():
    first = call("exp", array())
    between = call("softmax", *first.outputs)
    second = call("mul", *first.outputs, *between.outputs)
    calls = [first, between, second]
    assert fuse_elementwise(calls, kept(second)) is calls


@pytest.mark.parametrize("which", ["read by the first", "read by the second"])
def test_nothing_moves_past_a_write_to_what_it_reads(which):
    parameter, x, other = array(), array(), array()
    first = call("exp", parameter if which == "read by the first" else x)
    maker = call("softmax", array())
    update = Call("sgd_", ([parameter], [array()]), [], [parameter])
    operand = maker.outputs[0] if which == "read by the first" else parameter
    second = call("mul", *first.outputs, operand)
    calls = [first, maker, update, second]
    fused = fuse_elementwise(calls, kept(second))
    if which == "read by the first":  # neither forward over the update, nor back over the maker
        assert fused is calls
    else:  # the chain comes behind the update
        assert names(fused) == ["softmax", "sgd_", "exp+mul"]
    beside = Call("sgd_", ([other], [array()]), [], [other])
    assert "exp+mul" in names(fuse_elementwise([first, maker, beside, second], kept(second)))


# -- replays -----------------------------------------------------------------------------------------------------------

STEPS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: 0.5 * a,
    lambda a, b: F.maximum(a, b),
    lambda a, b: F.minimum(a, b),
    lambda a, b: a.tanh(),
    lambda a, b: F.relu(a),
    lambda a, b: F.leaky_relu(a, 0.2),
    lambda a, b: F.sigmoid(a),
    lambda a, b: F.gelu(a),
    lambda a, b: F.gelu(b, approximate="tanh"),
    lambda a, b: F.silu(a),
    lambda a, b: F.elu(a),
    lambda a, b: F.softplus(b),
    lambda a, b: a.tanh().exp(),
    lambda a, b: (a * a + 1.0).sqrt(),
    lambda a, b: (a * a + 1.0).log(),
    lambda a, b: abs(a),
    lambda a, b: F.clip(a, -0.7, 0.9),
    lambda a, b: -a,
]


def random_steps(seed, shape, dtype):
    """Return functions of x that compute a random expression with its gradient: as it is, and captured."""
    rng = np.random.default_rng(seed)
    chosen = [(STEPS[i], *rng.integers(0, 4, 2)) for i in rng.integers(0, len(STEPS), 12)]
    start = rng.standard_normal(shape).astype(dtype)

    def make():
        weight = pynn.Tensor(start.copy(), requires_grad=True)

        def step(x):
            weight.grad = None
            values = [x, weight * x, x + weight, weight]
            for function, i, j in chosen:
                values.append(function(values[-1 - i], values[-1 - j]))
            values[-1].sum().backward()
            return values[-1], values[-3], weight.grad

        return step

    return make(), pynn.capture(make())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(6))
def test_random_expressions_have_the_bits_of_single_calls(seed, dtype, threads):
    before = _core.num_threads()
    shape = [SHAPE, (33333,), (3, 7, 1001)][seed % 3]
    rng = np.random.default_rng(seed)
    _core.set_num_threads(threads)
    try:
        plain, captured = random_steps(seed, shape, dtype)
        for turn in range(3):
            x = rng.standard_normal(shape).astype(dtype)
            if turn == 2:
                x.reshape(-1)[[1, 4000, -1]] = np.nan, np.inf, -np.inf
            for expected, got in zip(plain(pynn.Tensor(x)), captured(x), strict=True):
                assert np.asarray(expected).tobytes() == np.asarray(got).tobytes(), f"seed {seed}"
        assert captured.plan().saved["fuse_elementwise"] > 0, f"seed {seed}"
    finally:
        _core.set_num_threads(before)


def test_results_inside_of_a_chain_take_no_memory():
    def function(x):
        return x * (1.0 + (x * x * x * 0.03 + x).tanh())

    captured = pynn.capture(function)
    x = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    for _ in range(2):  # the second is bound, not copied
        assert captured(x).numpy().tobytes() == function(pynn.Tensor(x)).numpy().tobytes()
        x = x + 1
    plan = captured.plan()
    assert len(plan.calls) == 1
    assert plan.bytes_planned == 0 < plan.bytes_recorded
    assert "fuse_elementwise 6" in str(plan)


def test_small_steps_are_left_alone():
    captured = pynn.capture(lambda x: (x * x + 1.0).tanh())
    captured(np.ones((4, 4), np.float32))
    assert captured.plan().saved["fuse_elementwise"] == 0


# -- what Recording refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["another size", "another width", "not elementwise", "too many arrays"])
def test_what_is_no_chain_is_refused(why):
    x = np.ones((4, 4), np.float32)

    def function():
        _core.exp(x)
        if why == "another size":
            _core.exp(x[0])
        elif why == "another width":
            _core.exp(x.astype(np.float64))
        elif why == "not elementwise":
            _core.softmax(x)
        else:
            for _ in range(40):
                _core.exp(x)

    outputs = [np.zeros_like(x) for _ in range(41)]
    if why == "another size":
        outputs[1] = outputs[1][0]
    elif why == "another width":
        outputs[1] = outputs[1].astype(np.float64)
    recording = Recording()
    with pytest.raises(ValueError, match=r"chain"):
        recording.record(0, function, (), outputs, [])
    assert len(recording) == 0
    recording.record(0, functools.partial(_core.exp, x), (), [outputs[0]])
    recording.run()
    np.testing.assert_array_equal(outputs[0], _core.exp(x))


def test_chains_are_made_after_the_passes_that_look_for_single_calls():
    order = passes.REWRITES.index
    assert order(fuse_elementwise) > max(order(passes.fuse_activation), order(passes.fuse_pool))
