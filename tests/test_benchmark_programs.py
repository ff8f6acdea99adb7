"""The programs of benchmarks/ beside compare.py: the machine's limits, another revision, overhead, a neighbour."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import small_mnist
from benchmark_tools import FOLDER, installed

import pynn
from pynn import _core

pytestmark = pytest.mark.usefixtures("same_threads_after")


def test_roofline_counts_what_a_step_does(bench, tmp_path, capsys):
    module = importlib.import_module("roofline")
    path = tmp_path / "figures.json"
    module.main(["--quick", "--detail", "--threads", "1", "--filter", "mlp128-b32,conv8-16", "--json", str(path)])
    assert "the calls of a step" in capsys.readouterr().out
    mlp, conv = json.loads(path.read_text())["results"]
    # The first layer has no gradient of its input: two products of it, three of the second. That of its weight counts
    # what its ReLU leaves of the gradient.
    live, rest = divmod(mlp["multiply_adds"] - 32 * (784 * 128 + 3 * 128 * 10), 784)
    assert 0 < live < 32 * 128
    assert rest == 0
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
    # The second convolution is computed in tiles, or by Winograd's filtering: 4 multiplications in place of 9.
    taps = 9 if _core.info()["isa"] == "amx" else 4
    assert cnn["multiply_adds"] == 256 * (26 * 26 * 32 * 9 + 24 * 24 * 64 * 32 * taps + 9216 * 128 + 128 * 10)


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
