"""What each pass does to the calls of a captured step, and what it must leave alone."""

import numpy as np
import pytest
from captured_steps import step_of

import pynn
from pynn import _core, nn, optim, passes
from pynn import functional as F
from pynn.plan import Call, Plan, memory

HALVED = ((2, 2), (2, 2), (0, 0), (1, 1))


def array(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def call(name, *args, shape=(2, 3), results=1, **options):
    return Call(name, args, [array(*shape) for _ in range(results)], **options)


def names(calls):
    return [c.name for c in calls]


def kept(*arrays):
    return {memory(a) for a in arrays}


def plan_of(function, *args):
    captured = pynn.capture(function)
    captured(*args)
    return captured.plan()


# -- dead stores -------------------------------------------------------------------------------------------------------


def test_drop_unread_follows_chains_and_keeps_what_writes_or_checks():
    x = array(2, 3)
    used = call("exp", x)
    unused = call("tanh", used.outputs[0])
    chain = call("relu", unused.outputs[0])
    update = Call("sgd_", ([x], [used.outputs[0]]), [], [x])
    check = Call("require_finite", ([x], "x"), [], checks=True)
    calls = [used, unused, chain, update, check]
    assert passes.drop_unread(calls, set()) == [used, update, check]
    assert passes.drop_unread(calls, kept(chain.outputs[0])) == calls


def test_a_result_that_is_read_through_a_view_stays():
    first = call("exp", array(2, 3))
    second = call("relu", first.outputs[0].reshape(6), shape=(6,))
    assert passes.drop_unread([first, second], kept(second.outputs[0])) == [first, second]


# -- activations -------------------------------------------------------------------------------------------------------


def linear(x, out=4):
    return call("linear", x, array(out, 3), array(out), "none", shape=(2, out))


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_an_activation_goes_into_linear(name):
    first = linear(array(2, 3))
    activation = call(name, first.outputs[0], shape=(2, 4))
    (fused,) = passes.fuse_activation([first, activation], kept(activation.outputs[0]))
    assert (fused.name, fused.args[3]) == ("linear", name)
    assert fused.outputs is activation.outputs


@pytest.mark.parametrize("why", ["kept", "read twice", "unknown", "has one", "is a view"])
def test_an_activation_stays_where_its_input_is_needed(why):
    first = linear(array(2, 3))
    z = first.outputs[0]
    activation = call("exp" if why == "unknown" else "relu", z.reshape(8) if why == "is a view" else z, shape=(2, 4))
    calls, keep = [first, activation], kept(activation.outputs[0])
    if why == "kept":
        keep |= kept(z)
    elif why == "read twice":
        calls.append(call("tanh", z, shape=(2, 4)))
    elif why == "has one":
        first.args = (*first.args[:3], "relu")
    fused = passes.fuse_activation(calls, keep)
    assert names(fused) == ["linear", activation.name] + ["tanh"] * (why == "read twice")


# -- whole networks ----------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """Written with functions, so that `Sequential` cannot pick the fused kernels."""

    def __init__(self):
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.hidden, self.last = nn.Linear(24, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.last(F.tanh(self.hidden(x.flatten(1))))


def train_blocks(wrap, steps):
    pynn.seed(0)
    model = Blocks()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 6)
    step = wrap(step_of(model, optimizer))
    return [step(x, y).item() for _ in range(steps)], step


def test_a_network_of_functions_becomes_one_of_fused_kernels():
    _, step = train_blocks(pynn.capture, 2)
    plan = step.plan()
    assert names(plan.calls) == [
        "conv2d_max_pool2d", "conv2d_max_pool2d", "linear", "linear", "cross_entropy", "linear_backward",
        "linear_backward", "conv2d_max_pool2d_backward", "conv2d_max_pool2d_backward", "sgd_",
    ]  # fmt: skip
    assert {name: n for name, n in plan.saved.items() if n} == {"fuse_activation": 6, "fuse_pool": 4}


@pytest.mark.parametrize("activation", [F.relu, F.tanh])
@pytest.mark.parametrize(("rows", "out", "on_result"), [(300, 1, False), (7, 33, True), (300, 1, True)])
def test_a_layer_of_one_input_has_the_bits_of_single_calls(activation, rows, out, on_result):
    """With the activation in them, gradients of one column were added in another order."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 1), dtype=np.float32)
    v, w = (nn.Parameter(rng.standard_normal(s, dtype=np.float32)) for s in ((1, 1), (out, 1)))

    def step(x):
        v.grad = w.grad = None
        y = activation(F.linear(x * v if on_result else x, w))
        (y * y).sum().backward()

    step(pynn.Tensor(x))
    expected = [None if p.grad is None else p.grad.copy() for p in (v, w)]
    captured = pynn.capture(step)
    for _ in range(2):
        captured(x)
        np.testing.assert_equal([p.grad for p in (v, w)], expected)


def test_fusing_changes_the_order_of_additions_only():
    eager, _ = train_blocks(lambda f: f, 30)
    captured, _ = train_blocks(pynn.capture, 30)
    assert captured[0] == eager[0]  # forward: the same bits
    np.testing.assert_allclose(captured, eager, rtol=2e-5)


@pytest.mark.parametrize("window", [(2, 1), (3, 2), (2, 2)])
def test_only_windows_of_two_by_two_go_into_convolution(window):
    conv = nn.Conv2d(1, 4, 3, padding=1)
    plan = plan_of(lambda x: F.max_pool2d(F.relu(conv(x)), *window), array(2, 1, 8, 8))
    assert names(plan.calls) == (["conv2d_max_pool2d"] if window == (2, 2) else ["conv2d", "max_pool2d"])


@pytest.mark.parametrize("fused", [False, True])
def test_indices_of_maxima_are_made_for_a_gradient_only(fused):
    conv = nn.Conv2d(1, 4, 3, padding=1)
    x = array(2, 1, 8, 8)

    def pooled(x):
        if fused:
            return F.conv2d_max_pool2d(x, conv.weight, conv.bias, padding=1)
        return F.max_pool2d(conv(x), 2)

    def gradient(x):
        conv.zero_grad()
        y = pooled(x)
        y.sum().backward()
        return y

    (call,) = plan_of(pooled, x).calls
    assert call.name == "conv2d_max_pool2d"
    assert [output.dtype for output in call.outputs] == [np.float32]
    forward = plan_of(gradient, x).calls[0]
    assert [output.dtype for output in forward.outputs] == [np.float32, np.uint8]


def test_pooling_makes_no_indices_without_a_gradient(monkeypatch):
    made = []
    core = _core.conv2d_max_pool2d
    monkeypatch.setattr(_core, "conv2d_max_pool2d", lambda *args: (made.append(core(*args)), made[-1])[1])
    x, weight = array(2, 1, 8, 8), pynn.Tensor(array(4, 1, 3, 3), requires_grad=True)
    with pynn.no_grad():
        without = F.conv2d_max_pool2d(x, weight)
    F.conv2d_max_pool2d(x, weight.data)
    np.testing.assert_array_equal(F.conv2d_max_pool2d(x, weight).data, without.data)
    assert [indices is None for _, indices in made] == [True, True, False]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_places_do_not_overlap_while_both_are_needed_and_are_reused_after():
    rng = np.random.default_rng(0)
    calls, results = [], [array(4)]
    for _ in range(40):
        sources = [results[i] for i in rng.integers(max(0, len(results) - 5), len(results), 2)]
        calls.append(call("add", *sources, shape=(int(rng.integers(1, 5000)),)))
        results += calls[-1].outputs
    offsets, size = passes.place(calls, set())
    lives = {}
    for i, c in enumerate(calls):
        for output in c.outputs:
            lives[memory(output)] = [i, i, output.nbytes]
        for read in c.reads:
            if memory(read) in lives:
                lives[memory(read)][1] = i
    assert offsets.keys() == lives.keys()
    for a, (first, last, nbytes) in lives.items():
        assert offsets[a] % 64 == 0
        assert offsets[a] + nbytes <= size
        for b, (other_first, other_last, other_nbytes) in lives.items():
            if a != b and first <= other_last and other_first <= last:
                assert offsets[a] + nbytes <= offsets[b] or offsets[b] + other_nbytes <= offsets[a]
    assert size < 0.5 * sum(nbytes for _, _, nbytes in lives.values())


def test_what_stays_in_the_l2_cache_stays_where_it_is():
    first = call("exp", array(1000), shape=(1000,))
    second, unread = (call("exp", *first.outputs, shape=(1000,)) for _ in range(2))
    assert passes.place([first, second], set()) == ({}, 0)
    plan = Plan([first, second, unread], kept(*second.outputs))
    assert (plan.bytes_planned, plan.bytes_recorded) == (4032, 2 * 4032)


def test_what_is_kept_has_no_place():
    first = call("exp", array(300, 300), shape=(300, 300))
    assert passes.place([first], kept(*first.outputs)) == ({}, 0)


# -- the plan as text --------------------------------------------------------------------------------------------------


def test_a_plan_says_what_it_does():
    model = nn.Linear(3, 4)
    captured = pynn.capture(lambda x: F.relu(model(x)))
    captured(array(2, 3))
    lines = str(captured.plan()).splitlines()
    assert lines == [
        "  0 linear([2, 3], [4, 3], [4], 'relu', True) -> [2, 4]",
        "1 calls of 2 recorded; saved by passes: drop_unread 0, fuse_activation 1, fuse_pool 0, "
        "fuse_elementwise 0, fuse_update 0",
        "0 bytes between calls, 64 before they shared memory",
    ]
    captured(array(2, 3))
    assert str(captured.plan()).splitlines()[-1] == "barriers: 0"


def test_a_plan_as_a_picture():
    plan = plan_of(lambda x: F.exp(F.tanh(x)), array(2, 3))
    assert plan.dot() == (
        "digraph plan {\n  node [shape=box, fontname=monospace]\n"
        '  c0 [label="tanh"]\n  c1 [label="exp"]\n  c0 -> c1 [label="[2, 3]"]\n}'
    )


def test_a_name_with_quotes_in_a_picture():
    """The schedule of a class that is made with `type` may have any."""
    assert r'c0 [label="a \"b\"\\"]' in Plan([Call('a "b"\\', (), [], checks=True)], set()).dot()
