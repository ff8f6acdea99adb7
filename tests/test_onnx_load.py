"""Loaded ONNX models: what they compute, what is trained, and capture."""

import copy
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from onnx_models import FLOAT, INT64, load, model_of, network, value

import pynn
from pynn import functional as F
from pynn import nn, optim
from pynn.train import Trainer

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
from onnx import helper  # noqa: E402


# -- what a loaded model is --------------------------------------------------------------------------------------------
def test_weights_are_parameters_under_their_names_and_statistics_are_buffers(tmp_path, rng):
    model = load(network(rng), tmp_path)
    names = ["conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_buffers()] == ["bn.running_mean", "bn.running_var"]
    assert model.inputs == ("x",)
    assert model.outputs == ("y",)
    assert repr(model) == "GraphModule(x [?, 2, 6, 6] float32 -> y; 7 nodes)"


def test_the_state_goes_to_another_module_of_the_graph(tmp_path, rng):
    first, second = load(network(rng), tmp_path), load(network(rng), tmp_path)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert not np.array_equal(first(x).data, second(x).data)
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(x).data, second(x).data)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_the_same(tmp_path, rng, again):
    model = load(network(rng), tmp_path)
    x = rng.normal(size=(2, 2, 6, 6)).astype(np.float32)
    assert np.array_equal(again(model)(x).data, model(x).data)


def test_values_are_those_of_the_reference_implementation(tmp_path, rng):
    from onnx.reference import ReferenceEvaluator

    proto = network(rng)
    x = rng.normal(size=(5, 2, 6, 6)).astype(np.float32)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    np.testing.assert_allclose(load(proto, tmp_path)(x).data, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_central_differences(tmp_path, rng):
    model = load(network(rng, np.float64), tmp_path)
    x = pynn.Tensor(rng.normal(size=(2, 2, 6, 6)), requires_grad=True)
    pull = rng.normal(size=(2, 3))
    (model(x) * pull).sum().backward()
    for leaf in (x, *model.parameters()):
        flat, slopes = leaf.data.reshape(-1), leaf.grad.reshape(-1)
        for i in rng.choice(flat.size, min(6, flat.size), replace=False):
            middle, h = flat[i], 1e-6
            at = []
            for moved in (middle + h, middle - h):
                flat[i] = moved
                at.append((model(x).data * pull).sum())
            flat[i] = middle
            assert abs(slopes[i] - (at[0] - at[1]) / (2 * h)) < 1e-7 * max(1, abs(slopes[i]))


def test_fine_tuning_captured_has_the_bits_of_eager(tmp_path, rng):
    proto = network(rng)
    images, labels = rng.normal(size=(32, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 32)
    results = []
    for captured in (False, True):
        model = load(proto, tmp_path)
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = pynn.capture(step) if captured else step
        losses = [run(images, labels).item() for _ in range(30)]
        results.append((losses, model.state_dict()))
    (eager, eager_state), (replayed, replayed_state) = results
    assert eager[-1] < 0.5 * eager[0]
    assert eager == replayed
    assert all(np.array_equal(eager_state[name], replayed_state[name]) for name in eager_state)


def test_a_loaded_model_is_a_part_of_a_larger_one(tmp_path, rng):
    base = load(network(rng), tmp_path)
    model = nn.Sequential(base, nn.ReLU(), nn.Linear(3, 2))
    base.requires_grad_(False)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["2.weight", "2.bias"]
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model[2].parameters(), lr=0.1))
    before = model.state_dict()
    batches = [(rng.normal(size=(4, 2, 6, 6)).astype(np.float32), rng.integers(0, 2, 4)) for _ in range(3)]
    trainer.fit(batches, epochs=1)
    after = model.state_dict()
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"2.weight", "2.bias"}


def test_a_graph_may_be_any_depth(tmp_path):
    names = ["x", *(f"v{i}" for i in range(2999)), "y"]
    nodes = [helper.make_node("Add", [a, "one"], [b]) for a, b in itertools.pairwise(names)]
    model = load(model_of(nodes, [value("x", [1])], [value("y", [1])], {"one": np.float32(1)}), tmp_path)
    x = pynn.zeros(1, requires_grad=True)
    y = model(x)
    y.backward()
    assert y.item() == 3000
    assert x.grad.item() == 1


def test_masks_and_numbers_are_constants_and_shared_weights_are_one_parameter(tmp_path):
    arrays = {
        "w": np.ones((2, 2), np.float32),
        "mask": np.array([[0, -np.inf]], np.float32),
        "half": np.float32(0.5),
        "training": np.ones(2, np.float32),
        "low": np.float32(0),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Add", ["b", "mask"], ["c"]),
        helper.make_node("Mul", ["c", "half"], ["d"]),
        helper.make_node("Add", ["d", "training"], ["e"]),
        helper.make_node("Clip", ["e", "low"], ["y"]),
    ]
    model = load(model_of(nodes, [value("x", [1, 2])], [value("y", [1, 2])], arrays), tmp_path)
    # A name that the class has already gets an underscore.
    assert [name for name, _ in model.named_parameters()] == ["w", "training_"]
    assert model.training is True
    assert model(np.ones((1, 2), np.float32)).data.tolist() == [[3.0, 0.0]]


def test_equal_arrays_that_were_stored_once_are_trained_apart(tmp_path):
    nodes = [
        helper.make_node("Identity", ["first"], ["second"]),
        helper.make_node("Mul", ["x", "first"], ["a"]),
        helper.make_node("Mul", ["a", "second"], ["y"]),
    ]
    proto = model_of(nodes, [value("x", [2])], [value("y", [2])], {"first": np.full(2, 3, np.float32)})
    model = load(proto, tmp_path)
    model(np.array([1, 2], np.float32)).sum().backward()
    assert {name: p.grad.tolist() for name, p in model.named_parameters()} == {"first": [3, 6], "second": [3, 6]}


def test_several_inputs_and_outputs_go_by_name_and_in_order(tmp_path):
    nodes = [helper.make_node("Sub", ["a", "b"], ["c"]), helper.make_node("Shape", ["a"], ["s"])]
    outputs = [value("s", [1], INT64), value("c", ["n"])]
    model = load(model_of(nodes, [value("a", ["n"]), value("b", ["n"])], outputs), tmp_path)
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    for shape, difference in (model(two, one), model(b=one, a=two), model(two, b=one)):
        assert shape.data.tolist() == [3]
        assert difference.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ((), {}, TypeError, r"got 0 inputs, needs x \[\?, 2, 6, 6\] float32"),
        ((1, 2), {}, TypeError, "got 2 inputs"),
        ((), {"z": np.zeros(1)}, TypeError, "got 0 inputs and z"),
        ((np.zeros((1, 2, 6, 6)),), {}, TypeError, "x is float64, needs float32"),
        ((np.zeros((1, 3, 6, 6), np.float32),), {}, ValueError, r"x is \[1, 3, 6, 6\], needs x \[\?, 2, 6, 6\]"),
    ],
)
def test_a_wrong_call_says_what_is_needed(tmp_path, rng, args, kwargs, error, words):
    with pytest.raises(error, match=f"GraphModule: {words}"):
        load(network(rng), tmp_path)(*args, **kwargs)


def test_an_error_of_a_node_names_it(tmp_path):
    nodes = [helper.make_node("Add", ["x", "y"], ["z"], name="sum")]
    model = load(model_of(nodes, [value("x", ["n"]), value("y", ["m"])], [value("z", ["n"])]), tmp_path)
    with pytest.raises(ValueError, match=r"Add 'sum': add: .*\[2\].*\[3\]"):
        model(np.zeros(2, np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize(
    "nodes",
    [
        [
            helper.make_node("Constant", [], ["c"], value_floats=[1.0, 1.0]),
            helper.make_node("Reshape", ["c", "shape"], ["y"]),
        ],
        [helper.make_node("Identity", ["w"], ["y"])],
        [helper.make_node("Mul", ["x", "w"], ["z"]), helper.make_node("Reshape", ["w", "shape"], ["y"])],
        [helper.make_node("Identity", ["x"], ["y"])],
    ],
    ids=["constant", "weight", "weight in another shape", "input"],
)
def test_writing_to_an_output_changes_neither_model_nor_input(tmp_path, nodes):
    arrays = {"w": np.ones(2, np.float32), "shape": np.array([2])}
    model = load(model_of(nodes, [value("x", [2])], [value("y", [2])], arrays), tmp_path)
    x = np.ones(2, np.float32)
    for run in (model, pynn.capture(model)):
        for _ in range(3):
            with pynn.no_grad():
                y = run(pynn.Tensor(x))
                assert y.data.tolist() == [1, 1]
                y[0] = 5
    assert x.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Unsqueeze", ["x", "twice"], ["y"], name="n"), r"axes \[0, 0\] name one twice"),
        (helper.make_node("Resize", ["x", "", "infinite"], ["y"], name="n"), "OverflowError"),
        (helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], name="n"), "ZeroDivisionError"),
        (helper.make_node("Resize", ["x", "", "negative"], ["y"], name="n"), r"scales are \[-1.0\], need"),
        (helper.make_node("Flatten", ["x"], ["y"], name="n", axis=2), "axis 2 is out of range for 1 axes"),
        (helper.make_node("Flatten", ["x"], ["y"], name="n", axis=-2), "axis -2 is out of range for 1 axes"),
    ],
    ids=["StopIteration", "OverflowError", "ZeroDivisionError", "scale", "axis", "negative axis"],
)
def test_an_error_of_arithmetic_names_the_node(tmp_path, node, words):
    arrays = {"twice": np.array([0, 0]), "infinite": np.array([np.inf], np.float32), "sizes": np.array([3])}
    arrays["negative"] = np.array([-1], np.float32)
    model = load(model_of([node], [value("x", ["n"])], [value("y", ["m"])], arrays), tmp_path)
    with pytest.raises(ValueError, match=f"^{node.op_type} 'n': {words}"):
        model(np.zeros(0 if "Zero" in words else 2, np.float32))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Split", ["x", "one"], ["y", "z"]), "computes 1 outputs, the graph takes 2"),
        (helper.make_node("Split", ["x", "negative"], ["y", "z"]), r"parts of \[5, -1\] do not fit axis 0 of \[4\]"),
    ],
    ids=["too few", "negative"],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, node, words):
    arrays = {"one": np.array([4]), "negative": np.array([5, -1])}
    model = load(model_of([node], [value("x", ["n"])], [value("y", ["m"]), value("z", ["k"])], arrays), tmp_path)
    with pytest.raises(ValueError, match=f"^Split 'y': {words}"):
        model(np.zeros(4, np.float32))


def test_a_result_that_memory_cannot_hold_names_the_node(tmp_path):
    node = helper.make_node("Tile", ["x", "times"], ["y"], name="n")
    model = load(model_of([node], [value("x", ["n"])], [value("y", ["m"])], {"times": np.array([2**40])}), tmp_path)
    with pytest.raises(MemoryError, match=r"^Tile 'n': .*shape"):
        model(np.zeros(4, np.float32))


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(-5, -9, [0]), (-5, 1, []), (-3, -9, [0]), (9, -9, [2, 1, 0]), (-1, 0, [2, 1])]
)
def test_a_backward_slice_that_starts_before_the_front_starts_at_the_front(tmp_path, start, end, expected):
    arrays = {name: np.array([n]) for name, n in (("start", start), ("end", end), ("axis", 0), ("step", -1))}
    nodes = [helper.make_node("Slice", ["x", *arrays], ["y"])]
    model = load(model_of(nodes, [value("x", ["n"])], [value("y", ["m"])], arrays), tmp_path)
    assert model(np.arange(3, dtype=np.float32)).data.tolist() == expected


def test_limits_of_clip_may_have_an_axis(tmp_path):
    arrays = {"least": np.array([0], np.float32), "most": np.array([0.5], np.float32)}
    nodes = [helper.make_node("Clip", ["x", *arrays], ["y"])]
    model = load(model_of(nodes, [value("x", ["n"])], [value("y", ["n"])], arrays), tmp_path)
    assert model(np.array([-1, 0.25, 1], np.float32)).data.tolist() == [0, 0.25, 0.5]


def test_a_negative_length_is_free(tmp_path):
    model = load(
        model_of([helper.make_node("Relu", ["x"], ["y"])], [value("x", [-1, 2])], [value("y", [-1, 2])]), tmp_path
    )
    assert repr(model) == "GraphModule(x [?, 2] float32 -> y; 1 nodes)"
    assert model(np.zeros((3, 2), np.float32)).shape == (3, 2)


def test_names_that_a_module_has_itself(tmp_path):
    names = ["__class__", "__dict__", "inputs", "_graph", "training", "training_", "forward"]
    values = ["self", *(f"v{i}" for i in range(len(names) - 1)), "y"]
    nodes = [helper.make_node("Add", [values[i], name], [values[i + 1]]) for i, name in enumerate(names)]
    arrays = {name: np.full(1, 10.0**i, np.float32) for i, name in enumerate(names)}
    model = load(model_of(nodes, [value("self", [1])], [value("y", [1])], arrays), tmp_path)
    assert model(self=np.zeros(1, np.float32)).item() == 1111111
    assert {name: p.item() for name, p in model.named_parameters()} == {
        "training_": 1e5,
        "__class___": 1,
        "__dict___": 10,
        "inputs_": 100,
        "_graph_": 1000,
        "training__": 1e4,
        "forward_": 1e6,
    }


def test_a_long_axis_is_resized_without_a_matrix(tmp_path):
    x = np.arange(48_000, dtype=np.float32).reshape(1, 1, -1)
    scales = {"scales": np.array([1, 1, 2], np.float32)}
    for mode, expected in (("nearest", np.repeat(x, 2)), ("linear", np.arange(96_000) / 2 - 0.25)):
        nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode)]
        model = load(model_of(nodes, [value("x", ["n", 1, "t"])], [value("y", ["n", 1, "u"])], scales), tmp_path)
        tracemalloc.start()
        y = model(pynn.Tensor(x))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * x.nbytes  # NumPy's arrays; a matrix would take 96,000 times as much
        np.testing.assert_allclose(y.data.reshape(-1), np.clip(expected, 0, 47_999), rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "stride", "pads", "expected"),
    [(8, 3, [0, 1], [2, 5, 7]), (8, 3, [1, 2], [1, 4, 7]), (4, 2, [2, 2], [0, 2, 3])],
)
def test_no_window_of_ceil_mode_begins_in_the_padding_behind(tmp_path, n, stride, pads, expected):
    x = np.arange(n, dtype=np.float32).reshape(1, 1, n)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[stride], pads=pads, ceil_mode=1)
    model = load(model_of([node], [value("x", [1, 1, n])], [value("y", [1, 1, "m"])]), tmp_path)
    assert model(x).data.reshape(-1).tolist() == expected


def test_integers_are_divided_towards_0(tmp_path):
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    a = [least, least, least, most, -7, 7, -7, 7, -6, 0]
    b = [3, -3, 1, -2, 2, -2, -2, 2, 3, -5]
    nodes = [helper.make_node("Div", ["a", "b"], ["y"])]
    inputs = [value("a", ["n"], INT64), value("b", ["n"], INT64)]
    y = load(model_of(nodes, inputs, [value("y", ["n"], INT64)]), tmp_path)(np.array(a), np.array(b))
    quotients = [abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1) for p, q in zip(a, b, strict=True)]
    assert y.data.tolist() == quotients


HALF, ONE, ROOT = np.float32(0.5), np.float32(1), np.float32(2**0.5)
GELUS = {
    "halved last": ["d = Div x root", "e = Erf d", "a = Add e one", "m = Mul x a", "y = Mul m half"],
    "halved first": ["h = Mul x half", "d = Div x root", "e = Erf d", "a = Add one e", "y = Mul h a"],
    "halved in the middle": ["d = Mul inverse x", "e = Erf d", "a = Add e one", "m = Mul a half", "y = Mul m x"],
}
ALMOST = {
    "another scale": ["d = Div x half", "e = Erf d", "a = Add e one", "m = Mul x a", "y = Mul m half"],
    "another factor": ["d = Div x root", "e = Erf d", "a = Add e one", "m = Mul d a", "y = Mul m half"],
    "read elsewhere": ["d = Div x root", "e = Erf d", "a = Add e one", "m = Mul x a", "g = Mul m half", "y = Add g e"],
}


@pytest.mark.parametrize("name", [*GELUS, *ALMOST])
def test_gelu_written_with_erf_is_one_call_of_the_core(tmp_path, rng, name):
    from onnx.reference import ReferenceEvaluator

    words = [line.split() for line in (GELUS | ALMOST)[name]]
    nodes = [helper.make_node(op, inputs, [output]) for output, _, op, *inputs in words]
    arrays = {"half": HALF, "one": ONE, "root": ROOT, "inverse": ONE / ROOT}
    proto = model_of(nodes, [value("x", ["n"])], [value("y", ["n"])], arrays)
    model = pynn.capture(load(proto, tmp_path))
    x = rng.normal(size=50).astype(np.float32)
    np.testing.assert_allclose(model(x).data, ReferenceEvaluator(proto).run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)
    assert (len(model.plan().calls) == 1) == (name in GELUS)


@pytest.mark.parametrize(("shape", "calls"), [((), 1), ((1,), 1), ((1, 1), None)])
def test_numbers_with_more_axes_than_x_are_no_gelu(tmp_path, rng, shape, calls):
    nodes = [helper.make_node(op, inputs, [y]) for y, _, op, *inputs in map(str.split, GELUS["halved last"])]
    arrays = {"half": np.full(shape, HALF), "one": np.full(shape, ONE), "root": np.full(shape, ROOT)}
    model = pynn.capture(load(model_of(nodes, [value("x", ["n"])], [value("y", ["m"])], arrays), tmp_path))
    x = rng.normal(size=5).astype(np.float32)
    y = model(x)
    assert y.shape == np.broadcast_shapes((5,), shape)
    np.testing.assert_allclose(y.data.reshape(-1), F.gelu(x).data, rtol=1e-5, atol=1e-6)
    assert (len(model.plan().calls) == 1) == (calls == 1)


def test_shape_arithmetic_is_captured_and_follows_the_shape(tmp_path, rng):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"], axis=0),
        helper.make_node("Cast", ["n"], ["nf"], to=FLOAT),
        helper.make_node("Div", ["nf", "two"], ["half"]),
        helper.make_node("Floor", ["half"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["k"], to=INT64),
        helper.make_node("Range", ["zero", "k", "one"], ["rows"]),
        helper.make_node("Gather", ["x", "rows"], ["y"], axis=0),
    ]
    arrays = {"first": np.int64(0), "two": np.float32(2), "zero": np.int64(0), "one": np.int64(1)}
    model = load(model_of(nodes, [value("x", ["n", 3])], [value("y", ["k", 3])], arrays), tmp_path)
    captured = pynn.capture(model)
    for n in (4, 7, 4):
        x = rng.normal(size=(n, 3)).astype(np.float32)
        assert np.array_equal(model(x).data, x[: n // 2])
        assert np.array_equal(captured(x).data, x[: n // 2])


def test_a_comparison_of_computed_values_is_not_captured(tmp_path):
    nodes = [helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=1.0)]
    model = load(model_of(nodes, [value("x", ["n"])], [value("y", ["n"])]), tmp_path)
    with pytest.raises(pynn.CaptureError, match="is read"):
        pynn.capture(model)(np.zeros(3, np.float32))
