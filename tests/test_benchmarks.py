"""benchmarks/compare.py runs, reports what it says, and notices a difference."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "compare.py"
HAVE_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module  # dataclasses look their module up
    yield spec.loader.exec_module(module) or module
    del sys.modules["compare"]


@pytest.fixture(autouse=True)
def same_threads_after():
    import pynn

    before = pynn.num_threads()
    yield
    pynn.set_num_threads(before)


def test_one_workload_is_timed_and_written(compare, tmp_path, capsys):
    path = tmp_path / "figures.json"
    compare.main(["--quick", "--filter", "mlp128-b32", "--threads", "1", "--json", str(path)])
    out = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert report["threads"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]
    (result,) = report["results"]
    assert result["workload"] == "mlp128-b32"
    assert result["title"] in out
    assert result["pynn_us"] > 0
    assert ("PyTorch is not installed" in out) == (not HAVE_TORCH)
    if HAVE_TORCH:
        pairs = zip(result["blocks_us"]["pynn"], result["blocks_us"]["torch"], strict=True)
        assert result["ratio"] == pytest.approx(np.median([theirs / ours for ours, theirs in pairs]))


def test_without_pytorch_pynn_is_timed_alone(compare, monkeypatch, capsys):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    compare.main(["--quick", "--filter", "mlp128-b32"])
    out = capsys.readouterr().out
    assert "PyTorch is not installed" in out
    assert "ratio" not in out


@pytest.mark.parametrize("workload", ["mlp128", "lenet", "cnn"])
def test_every_kind_of_network_agrees_with_pytorch(compare, workload):
    pytest.importorskip("torch", reason="needs PyTorch to compare with")
    chosen = next(w for w in compare.WORKLOADS if w.name == workload)
    ours, theirs = sides(compare, chosen)
    assert compare.check_agreement(ours, theirs, compare.batches(4, 0)) <= compare.LOSS_TOLERANCE


def test_a_wrong_gradient_is_noticed(compare):
    pytest.importorskip("torch", reason="needs PyTorch to compare with")
    ours, theirs = sides(compare, compare.WORKLOADS[0])
    gradients = ours.gradients
    ours.gradients = lambda: {name: 1.01 * gradient for name, gradient in gradients().items()}
    with pytest.raises(SystemExit, match=r"gradient of 0\.weight"):
        compare.check_agreement(ours, theirs, compare.batches(4, 0))


def test_a_wrong_step_is_noticed(compare):
    pytest.importorskip("torch", reason="needs PyTorch to compare with")
    ours, theirs = sides(compare, compare.WORKLOADS[0])
    ours.optimizer.param_groups[0]["lr"] *= 1.1
    with pytest.raises(SystemExit, match=r"step \d: pynn's loss"):
        compare.check_agreement(ours, theirs, compare.batches(4, 0))


def sides(compare, workload):
    """Return both sides of a workload with the same weights and a small data set."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(compare.SAMPLES, *workload.shape)).astype(np.float32)
    labels = rng.integers(0, 10, compare.SAMPLES)
    ours = compare.pynn_side(workload, images, labels)
    return ours, compare.torch_side(workload, images, labels, ours.model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"), [(["--filter", "vgg"], "no workload"), (["--repeats", "0"], "needs at least 1")]
)
def test_options_without_sense_are_refused(compare, options, message, capsys):
    with pytest.raises(SystemExit):
        compare.main(options)
    assert message in capsys.readouterr().err
