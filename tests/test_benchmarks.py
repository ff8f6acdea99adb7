"""benchmarks/ run, report what they say, and notice a difference."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_mnist

import pynn

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = [path.stem for path in FOLDER.glob("*.py")]


def installed(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


needs_torch = pytest.mark.skipif(not installed("torch"), reason="needs PyTorch to compare with")


@pytest.fixture(scope="module")
def bench():
    """The modules of benchmarks/, which import each other by their bare names, as when one of them is run."""
    sys.path.insert(0, str(FOLDER))
    names = [
        "captured",
        "compare",
        "inference",
        "neighbour",
        "overhead",
        "products",
        "report",
        "sides",
        "timing",
        "training",
        "workloads",
    ]
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def same_threads_after():
    before = pynn.num_threads()
    yield
    pynn.set_num_threads(before)


@pytest.fixture
def quick(bench, tmp_path, capsys):
    """Run compare.py on one case with short blocks; return what it printed and its report."""

    def run(*options):
        path = tmp_path / "figures.json"
        bench.compare.main(["--quick", "--threads", "1", "--json", str(path), *options])
        assert [p.name for p in tmp_path.iterdir() if p.suffix == ".json"] == ["figures.json"]
        return capsys.readouterr().out, json.loads(path.read_text())

    return run


def test_one_workload_is_timed_and_written(quick):
    out, report = quick("--filter", "mlp128-b32", "--vs", "torch,numpy")
    assert report["threads"] == 1
    (result,) = report["results"]
    assert result["name"] == "mlp128-b32"
    assert result["title"] in out
    assert result["us"]["pynn"] > 0
    assert ("PyTorch is left out" in out) == (not installed("torch"))
    for side, ratio in result["ratios"].items():
        pairs = zip(result["blocks_us"]["pynn"], result["blocks_us"][side], strict=True)
        assert ratio["median"] == pytest.approx(np.median([theirs / ours for ours, theirs in pairs]))
    assert "numpy" in result["ratios"]


def test_without_others_pynn_is_timed_alone(bench, monkeypatch, quick):
    monkeypatch.setattr(bench.report.importlib.util, "find_spec", lambda name: None)
    out, report = quick("--filter", "mlp50-b16", "--vs", "torch,jax")
    assert "PyTorch is left out: torch is not installed" in out
    assert "JAX is left out: jax is not installed" in out
    assert "lowest" not in out
    assert list(report["results"][0]["us"]) == ["pynn"]


def test_inference(quick):
    out, report = quick("--mode", "inference", "--filter", "lenet-b1")
    (result,) = report["results"]
    assert set(result["us"]) == {"pynn", *report["sides"]}
    assert ("ONNX Runtime is left out" in out) == (not installed("onnxruntime", "onnx"))


def test_captured_inference_agrees_with_eager(quick):
    _, report = quick("--mode", "captured-inference", "--filter", "lenet-b1", "--vs", "eager")
    (result,) = report["results"]
    assert set(result["us"]) == {"pynn", "eager"}
    assert result["output_difference"] == 0


@pytest.mark.skipif(not installed("sklearn"), reason="needs scikit-learn to compare with")
@pytest.mark.filterwarnings("ignore:Got `batch_size`:UserWarning")
def test_both_classifiers_train_the_same_network(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("PYNN_DATA_DIR", str(small_mnist.put(tmp_path / "mnist")))
    out, report = quick("--mode", "sklearn", "--filter", "sklearn-128")
    (result,) = report["results"]
    assert "custom IDX data, 30 and 20 images" in out
    (ours,), (theirs,) = result["runs"]["pynn"], result["runs"]["sklearn"]
    assert (ours["epochs"], ours["accuracy"]) == (theirs["epochs"], theirs["accuracy"])
    assert result["us"]["pynn"] == pytest.approx(1e6 * ours["seconds"])


@needs_torch
def test_attention_and_a_gpt_agree_with_pytorch(quick):
    out, report = quick("--mode", "attention", "--filter", "attention64,nanogpt")
    assert [result["name"] for result in report["results"]] == ["attention64", "nanogpt"]
    assert report["results"][1]["loss_difference"] < 1e-4
    assert "nanoGPT" in out


def test_sequences(quick):
    out, report = quick("--mode", "sequences", "--filter", "names-lstm,names-rnn")
    assert [result["name"] for result in report["results"]] == ["names-lstm", "names-rnn"]
    assert all(set(result["us"]) == {"pynn", *report["sides"]} for result in report["results"])
    assert ("relative loss difference" in out) == installed("torch")


def test_examples(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("PYNN_DATA_DIR", str(small_mnist.put(tmp_path / "mnist")))
    names = ["spiral", "lecun1989", "makemore-bn", "wavenet", "char-lstm", "forecast", "vae", "q-learning"]
    _, report = quick("--mode", "examples", "--filter", ",".join(names))
    assert [result["name"] for result in report["results"]] == names
    assert all(set(result["us"]) == {"pynn", *report["sides"]} for result in report["results"])
    assert all(result["loss_difference"] < 1e-3 for result in report["results"])


def test_programs_have_the_parameters_of_their_examples(bench):
    steps, programs = (importlib.import_module(name) for name in ("example_steps", "example_programs"))
    sizes = {
        **{"spiral": 603, "mnist-mlp": 101_632, "digits-split": 23_860, "keras": 34_826, "pytorch-mnist": 1_199_882},
        **{"beautiful-mnist": 87_850, "lecun1989": 9_760, "bigram": 27 * 27, "makemore": 11_897, "makemore-bn": 12_097},
        **{"wavenet": 76_579, "forecast": 4_513, "nanogpt": 804_096, "vae": 652_824, "gan": 1_493_520 + 1_460_225},
        **{"q-learning": 2 * 898, "char-lstm": None},  # the class of the recurrent networks is checked with them
    }
    assert sizes.keys() == {case.name for case in programs.EXAMPLES}
    for case in programs.EXAMPLES:
        if (size := sizes[case.name]) is not None:
            model, _ = case.make(steps.pynn_library())
            assert sum(p.size for p in model.parameters()) == size, case.name


@needs_torch
def test_a_program_that_computes_something_else_is_noticed(bench):
    steps, programs = (importlib.import_module(name) for name in ("example_steps", "example_programs"))

    def make(library):
        rate = 0.1 if library.nn is pynn.nn else 0.2
        return programs.supervised(programs.mlp(4, 10), "SGD", lr=rate)(library)

    case = programs.Program("wrong", "wrong", make, lambda rng: (*programs.normal((8, 4))(rng), rng.integers(0, 10, 8)))
    with pytest.raises(SystemExit, match="step 1: pynn's loss is"):
        steps.measure(case, ["torch"], repeats=1, seconds=0.0, seed=0)


@needs_torch
def test_a_wrong_recurrent_gradient_is_noticed(bench):
    module, case = importlib.import_module("sequences"), bench.workloads.SEQUENCES[-1]
    text = np.random.default_rng(0).integers(0, case.vocabulary, (3, 5, 2))
    batches = [(np.ascontiguousarray(t[:-1]), t[1:].reshape(-1)) for t in text]
    ours = module.pynn_side(case, batches)
    theirs = module.torch_side(case, batches, ours)
    step = ours.step

    def wrong_step(i):
        loss = step(i)
        ours.parameters[1].grad *= 1.001
        return loss

    ours.step = wrong_step
    with pytest.raises(SystemExit, match="gradient of parameter 1"):
        module.check_agreement(ours, theirs)


def test_captured_steps(quick):
    out, report = quick("--mode", "captured", "--filter", "makemore,lecun1989", "--vs", "eager,torch")
    assert [result["name"] for result in report["results"]] == ["makemore", "lecun1989"]
    for result in report["results"]:
        assert set(result["us"]) == {"pynn", *report["sides"]}
        pairs = zip(result["capture_blocks_us"]["eager"], result["capture_blocks_us"]["capture"], strict=True)
        assert result["capture_steps"] == pytest.approx(np.median([first / step for step, first in pairs]))
    assert all(us > 0 for us in report["empty_us"].values())
    assert "Empty captured step: " in out


def test_the_targets_of_captured_steps(bench):
    workloads = bench.workloads
    assert [case.name for case in workloads.CAPTURED] == list(workloads.CAPTURED_TARGETS)
    assert bench.captured.targets("lenet") == {"torch": 5.5, "compile": 8, "jax": 8}
    assert bench.captured.targets("makemore") == {"torch": 10}
    assert bench.captured.targets("stem") == {}
    for us, left in (({"compile": 2.0, "jax": 3.0}, "compile"), ({"compile": 3.0, "jax": 2.0}, "jax")):
        result = {"us": {"pynn": 1.0, **us}, "targets": bench.captured.targets("lenet")}
        bench.captured.keep_faster(result)
        assert result["targets"] == {"torch": 5.5, left: 8}


@needs_torch
def test_without_a_working_compiler_torch_compile_is_left_out(tmp_path):
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    options = ["--mode", "captured", "--quick", "--filter", "makemore", "--vs", "compile"]
    command = [sys.executable, str(FOLDER / "compare.py"), *options]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    (line,) = [line for line in out.splitlines() if line.startswith("torch.compile is left out: ")]
    assert "compiler" in line
    assert "Empty captured step: " in out


def test_products_are_held_against_the_peak(quick):
    out, report = quick("--mode", "gemm", "--filter", "256x256x256", "--vs", "numpy")
    (result,) = report["results"]
    assert 0 < result["shares"]["pynn"] < 1.5
    assert "Measured peak" in out


@pytest.mark.skipif(not installed("matplotlib"), reason="needs matplotlib to draw")
def test_plot(quick, tmp_path):
    quick("--filter", "mlp50-b16,mlp100x4", "--vs", "numpy", "--plot", str(tmp_path / "ratios.svg"))
    assert "<svg" in (tmp_path / "ratios.svg").read_text()


def test_plot_names_the_extra_it_needs(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench.compare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        bench.compare.main(["--plot", "ratios.png"])
    assert "pip install 'pynn-cpu[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report", "timing", "workloads"])
def test_examples_in_docstrings(bench, name):
    result = doctest.testmod(getattr(bench, name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_lists_are_as_long_as_they_say(bench):
    workloads = bench.workloads
    assert len(workloads.MAIN) == 6
    assert len(workloads.NEIGHBOURS) >= 20
    for cases in (
        workloads.MAIN + workloads.NEIGHBOURS + workloads.SMALL,
        workloads.APPLICATIONS,
        workloads.PRODUCTS,
        workloads.SEQUENCES,
    ):
        assert len({case.name for case in cases}) == len(cases)


def sides(bench, name, batch=4):
    """Return pynn's and PyTorch's side of a workload, with the same weights and a small data set, and its batches."""
    lists = bench.workloads.MAIN + bench.workloads.NEIGHBOURS + bench.workloads.SMALL
    workload = next(w for w in lists if w.name == name)
    images, labels = (array[:64] for array in bench.sides.make_data(workload, 0))
    ours = bench.sides.pynn_side(workload, images, labels)
    theirs = bench.sides.TorchSide(workload, images, labels, ours.model.state_dict())
    return workload, {"pynn": ours, "torch": theirs}, bench.sides.row_batches(len(images), batch, 0)


@needs_torch
@pytest.mark.parametrize(
    "name", ["mlp128", "lenet", "cnn", "mlp-bn", "separable-mnist", "conv-s2", "makemore", "lecun1989"]
)
def test_every_kind_of_network_agrees_with_pytorch(bench, name):
    workload, both, rows = sides(bench, name)
    ours = both["pynn"]
    weights = ours.model.state_dict()
    both |= {"pynn": bench.sides.CapturedSide(workload, ours.images, ours.labels, weights), "eager": ours}
    assert bench.sides.check_agreement(both, rows) <= bench.sides.LATER_LOSS_TOLERANCE


@needs_torch
@pytest.mark.parametrize(("name", "parameters"), [("makemore", 11_897), ("lecun1989", 9_760)])
def test_small_networks_have_their_size_in_both_libraries(bench, name, parameters):
    _, both, _ = sides(bench, name)
    assert sum(p.size for p in both["pynn"].model.parameters()) == parameters
    assert sum(p.numel() for p in both["torch"].model.parameters()) == parameters


@pytest.mark.skipif(not installed("jax"), reason="needs JAX to compare with")
def test_jax_agrees():
    # In a process of its own: once JAX is imported, it warns of every fork, also of those of other tests.
    options = ["--quick", "--repeats", "1", "--threads", "1", "--vs", "jax", "--filter"]
    options.append("mlp100x4,stem,makemore,lecun1989")
    command = [sys.executable, str(FOLDER / "compare.py"), *options]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.count("JAX / pynn over 2: lowest") == 2  # of neighbours, and of the others


@needs_torch
@pytest.mark.parametrize("name", ["mlp128", "mlp512"])
def test_numpy_agrees(bench, name):
    workload, both, rows = sides(bench, name)
    both["numpy"] = bench.sides.numpy_side(both["pynn"], workload)
    bench.sides.check_agreement(both, rows)


@needs_torch
@pytest.mark.parametrize(("factor", "name"), [(1.05, r"0\.weight"), (1.001, r"2\.weight")])
def test_a_wrong_gradient_is_noticed(bench, factor, name):
    _, both, rows = sides(bench, "mlp128")
    gradients = both["pynn"].gradients
    both["pynn"].gradients = lambda: {
        key: factor * value if key == name.replace("\\", "") else value for key, value in gradients().items()
    }
    with pytest.raises(SystemExit, match=f"gradient of {name}"):
        bench.sides.check_agreement(both, rows)


@needs_torch
def test_a_wrong_step_is_noticed(bench):
    _, both, rows = sides(bench, "mlp128")
    both["pynn"].optimizer.param_groups[0]["lr"] *= 1.1
    with pytest.raises(SystemExit, match=r"step \d: pynn's loss"):
        bench.sides.check_agreement(both, rows)


def test_a_wrong_output_is_noticed(bench):
    steps = {"pynn": lambda i: np.ones(3), "onnxruntime": lambda i: np.array([1, 1, 1.01])}
    with pytest.raises(SystemExit, match="outputs of pynn and onnxruntime differ"):
        bench.inference.check(steps)


def test_the_ratio_is_that_of_neighbouring_blocks(bench):
    batches = itertools.repeat(None)
    blocks = bench.timing.alternate({"pynn": lambda _: None, "torch": lambda _: None}, batches, repeats=2, seconds=0)
    assert [len(times) for times in blocks.values()] == [2, 2]
    result = bench.timing.summarize({"pynn": [1.0, 10.0, 100.0], "torch": [3.0, 20.0, 100.0]})
    assert result["ratios"] == {"torch": {"median": 2.0, "quartiles": (1.0, 3.0)}}


def test_roofline_counts_what_a_step_does(bench, tmp_path, capsys):
    module = importlib.import_module("roofline")
    path = tmp_path / "figures.json"
    module.main(["--quick", "--detail", "--threads", "1", "--filter", "mlp128-b32,conv8-16", "--json", str(path)])
    assert "the calls of a step" in capsys.readouterr().out
    mlp, conv = json.loads(path.read_text())["results"]
    # The first layer has no gradient of its input: two products of it, three of the second.
    assert mlp["multiply_adds"] == 32 * (2 * 784 * 128 + 3 * 128 * 10)
    dense = 128 * (2 * 28 * 28 * 8 * 25 + 3 * 14 * 14 * 16 * 8 * 25 + 3 * 784 * 10)
    assert 0.3 * dense < conv["multiply_adds"] <= dense
    for result in (mlp, conv):
        assert result["floor_us"] >= result["arithmetic_us"] > 0
        assert all(call["us"] > 0 and call["moved"] > 0 for call in result["calls"])


def test_roofline_counts_what_inference_does(bench, tmp_path):
    module = importlib.import_module("roofline")
    path = tmp_path / "figures.json"
    module.main(
        ["--mode", "inference", "--quick", "--threads", "1", "--filter", "lenet-b1,cnn-b256", "--json", str(path)]
    )
    lenet, cnn = json.loads(path.read_text())["results"]
    linear = 400 * 120 + 120 * 84 + 84 * 10
    assert lenet["multiply_adds"] == 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + linear
    # The second convolution goes through Winograd's filtering: 4 multiplications in place of 9.
    assert cnn["multiply_adds"] == 256 * (26 * 26 * 32 * 9 + 24 * 24 * 64 * 32 * 4 + 9216 * 128 + 128 * 10)


def test_roofline_counts_what_recurrent_layers_do(bench, tmp_path):
    module = importlib.import_module("roofline")
    path = tmp_path / "figures.json"
    cases = "char-lstm,names-gru"
    module.main(["--mode", "sequences", "--quick", "--threads", "1", "--filter", cases, "--json", str(path)])
    lstm, gru = json.loads(path.read_text())["results"]
    # Indices cost no product; the first state is a constant.
    layer, first = 50 * 50 * 512 * 128, 50 * 512 * 128
    assert lstm["multiply_adds"] == (3 * layer - first) + (6 * layer - first) + 3 * 50 * 50 * 128 * 65
    assert gru["multiply_adds"] == 3 * 16 * 32 * 192 * 64 - 32 * 192 * 64 + 3 * 16 * 32 * 64 * 27


def test_two_versions_take_turns(bench, capsys):
    module = importlib.import_module("against_base")
    tree = Path(pynn.__path__[0]).parent
    workers = {version: module.Worker(tree, threads=1, seconds=0.0) for version in ("base", "tree")}
    try:
        (result,) = module.compare(bench.workloads.choose(bench.workloads.NEIGHBOURS, "mlp50-b16"), workers, repeats=2)
    finally:
        for worker in workers.values():
            worker.close()
    assert result["loss_difference"] == 0
    assert len(result["blocks_us"]["base"]) == 2
    assert "base / tree: lowest" in capsys.readouterr().out


def test_against_base_refuses_what_it_cannot_build(bench, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("against_base").main(["no-such-revision"])
    err = capsys.readouterr().err
    assert "is no revision of this repository" in err or "not compiled in place" in err


def test_time_to_accuracy(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYNN_DATA_DIR", str(small_mnist.put(tmp_path / "mnist")))
    module = importlib.import_module("time_to_accuracy")
    path = tmp_path / "times.json"
    module.main(["--seeds", "1", "--epochs", "20", "--threads", "1", "--json", str(path)])
    out = capsys.readouterr().out
    (run,) = json.loads(path.read_text())["runs"]
    assert 0 < run["pynn"]["seconds"] < run["pynn"]["seconds_to_exit"]
    assert 0 <= run["pynn"]["accuracy"] < module.ACCURACY_TARGET
    assert "target 99.0 %: MISSED" in out
    assert ("PyTorch / pynn" in out) == ("torch" in run) == installed("torch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--filter", "resnet"], "no case"),
        (["--repeats", "0"], "needs at least 1"),
        (["--threads", "0"], "needs at least 1"),
        (["--json", "no-such-folder/figures.json"], "its folder does not exist"),
        (["--vs", "keras"], "--mode train compares with torch, jax, numpy"),
        (["--mode", "captured", "--vs", "numpy"], "--mode captured compares with eager, torch, compile, jax"),
        (["--mode", "gemm", "--vs", "jax"], "--mode gemm compares with torch, numpy"),
    ],
)
def test_options_without_sense_are_refused(bench, options, message, capsys):
    with pytest.raises(SystemExit):
        bench.compare.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["accuracy.py", "--seeds", "0"], "--seeds 0: needs at least 1"),
        (["accuracy.py", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["footprint.py", "--wheel", "no-such.whl"], "--wheel no-such.whl: no such file"),
        (["footprint.py", "--repeats", "0"], "--repeats 0: needs at least 1"),
    ],
)
def test_programs_refuse_without_a_traceback(command, message):
    done = subprocess.run([sys.executable, FOLDER / command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_overhead_prints_every_operation(bench, capsys):
    bench.overhead.main(["--repeats", "1"])
    out = capsys.readouterr().out
    assert all(f"| {name} |" in out for name in (*bench.overhead.OPERATIONS, "step of a tiny lenet, Adam"))
    assert ("PyTorch is not installed" in out) == (not installed("torch"))


def test_neighbour_prints_a_ratio_and_leaves_no_process(bench, monkeypatch, capsys):
    processes = []
    start = bench.neighbour.subprocess.Popen
    monkeypatch.setattr(
        bench.neighbour.subprocess, "Popen", lambda command: processes.append(start(command)) or processes[-1]
    )
    monkeypatch.setattr(bench.neighbour, "NETWORKS", ("mlp128-b32",))
    bench.neighbour.main(["--repeats", "1", "--seconds", "0.01"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "B 32" in line]
    assert [line.split("|")[2].strip() for line in lines] == ["pynn", "PyTorch"][: 1 + installed("torch")]
    assert processes
    assert all(process.poll() is not None for process in processes)
