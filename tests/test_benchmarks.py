"""benchmarks/compare.py runs in every mode, reports what it measured, and notices a difference."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import small_mnist
from benchmark_tools import FOLDER, installed

import pynn

pytestmark = pytest.mark.usefixtures("same_threads_after")
needs_torch = pytest.mark.skipif(not installed("torch"), reason="needs PyTorch to compare with")


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


@pytest.mark.parametrize("mode", ["train", "captured"])
def test_the_learning_rate_is_the_same_for_all_cases(bench, mode):
    cases = bench.compare.parse(["--mode", mode, "--lr", "0", "--filter", "mlp128,lenet"]).cases
    assert [(case.name, bench.sides.learning_rate(case)) for case in cases] == [("mlp128", 0), ("lenet", 0)]


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
        (["--mode", "inference", "--lr", "0"], "--mode inference has no such option"),
    ],
)
def test_options_without_sense_are_refused(bench, options, message, capsys):
    with pytest.raises(SystemExit):
        bench.compare.main(options)
    assert message in capsys.readouterr().err
