"""The command line, run in this process on small data; and the reading of digits from files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_tools import run

import pynn
from pynn import cli, nn
from pynn.data import MNIST, normalize_images, synthetic_digits, write_idx
from pynn.images import read_digits
from pynn.models import MODELS, Classifier, build
from pynn.serialize import load, save
from pynn.train import mnist as mnist_run
from pynn.train.progress import Progress
from pynn.train.settings import RECIPES

SYNTHETIC = "[synthetic digits] "


@pytest.fixture
def no_mnist(monkeypatch, digits):
    """Offline and without data, with a small substitute."""
    train, test = digits
    data = MNIST(*train, *test, "synthetic-digits", "a test")
    monkeypatch.setattr(mnist_run, "load_mnist", lambda data_dir: data)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -- train -------------------------------------------------------------------------------------------------------------


def test_train_writes_a_whole_run_folder(capsys, tmp_path, data_dir):
    argv = ["train", "mnist", "--model", "mlp", "--epochs", 2, "--batch-size", 50, "--lr", 0.005, "--seed", 7]
    code, out, err = run(capsys, *argv, "--data-dir", data_dir, "--threads", 1)
    assert (code, err) == (0, "")
    assert SYNTHETIC not in out
    assert "epoch 2/2" in out
    assert "test loss" in out
    folder = tmp_path / "runs" / "mnist-mlp-1"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {name: metrics[name] for name in ("dataset", "is_synthetic", "model", "seed", "epochs", "batch_size")} == {
        "dataset": "custom IDX data",
        "is_synthetic": False,
        "model": "mlp",
        "seed": 7,
        "epochs": 2,
        "batch_size": 50,
    }
    assert metrics["lr"] == 0.005
    assert metrics["threads"] == 1
    assert metrics["isa"] == pynn.info()["isa"]
    assert metrics["versions"]["pynn"] == pynn.__version__
    assert [row["epoch"] for row in metrics["history"]] == [1, 2]
    assert all({"loss", "accuracy", "seconds", "lr"} <= row.keys() for row in metrics["history"])
    assert metrics["images_per_s"] > 0
    assert not metrics["interrupted"]
    assert metrics["weights_of"] == "the last epoch"
    # The written weights are those that the written accuracy was measured with.
    (weights,) = folder.glob("weights.*")
    classifier = Classifier.load(weights)
    images, labels = read_digits(data_dir / "t10k-images-idx3-ubyte"), synthetic_digits(100, seed=4)[1]
    accuracy = np.mean(classifier.probabilities(images).argmax(1) == labels)
    assert accuracy == pytest.approx(metrics["final_test_accuracy"])
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_the_same_seed_gives_the_same_weights(capsys, tmp_path, data_dir):
    argv = ["train", "mnist", "--model", "mlp", "--epochs", 1, "--quiet", "--data-dir", data_dir]
    for seed in (1, 1, 2):
        assert run(capsys, *argv, "--seed", seed) == (0, "", "")
    first, second, third = (
        load(next((tmp_path / "runs" / f"mnist-mlp-{n}").glob("weights.*")))[0]["1.weight"] for n in (1, 2, 3)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_synthetic_data_are_named_everywhere(capsys, tmp_path, no_mnist, monkeypatch):
    titles = []
    monkeypatch.setattr(mnist_run, "save_figure", lambda figure, path: titles.append(figure.get_suptitle()))
    monkeypatch.setattr("pynn.train.history.save_figure", lambda figure, path: titles.append(figure.get_suptitle()))
    code, out, err = run(capsys, "train", "mnist", "--model", "mlp", "--epochs", 1, "--out", "out")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) >= 4
    assert all(line.startswith(SYNTHETIC) for line in out.splitlines())
    assert all(title.startswith(SYNTHETIC) for title in titles)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["dataset"], metrics["is_synthetic"]) == ("synthetic-digits", True)
    (weights,) = (tmp_path / "out").glob("weights.*")
    assert load(weights)[1]["is_synthetic"] == "true"
    np.save("digits.npy", synthetic_digits(2, seed=0)[0])
    code, out, err = run(capsys, "predict", weights, "digits.npy")
    assert (code, len(out.splitlines()), err) == (0, 2, "")
    assert all(line.startswith(SYNTHETIC) for line in out.splitlines())


def test_synthetic_data_are_named_in_errors(capsys, tmp_path, no_mnist, monkeypatch):
    code, _, err = run(capsys, "train", "mnist", "--val", 400)
    assert (code, err.startswith(f"pynn: {SYNTHETIC}error: ")) == (2, True)
    code, _, err = run(capsys, "train", "mnist", "--model", "mlp", "--lr", 1e30)
    assert (code, err.startswith(f"pynn: {SYNTHETIC}error: ")) == (1, True)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist_run, "build", interrupt)
    assert run(capsys, "train", "mnist", "--out", "x")[::2] == (130, f"pynn: {SYNTHETIC}interrupted\n")


def test_pictures(capsys, tmp_path, data_dir):
    pytest.importorskip("matplotlib")
    assert run(capsys, "train", "mnist", "--model", "mlp", "--epochs", 1, "--data-dir", data_dir, "--out", "x")[0] == 0
    for name in ("curves.png", "mistakes.png"):
        assert (tmp_path / "x" / name).read_bytes().startswith(b"\x89PNG")


def test_without_extras_npz_and_a_hint(capsys, tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(mnist_run.importlib.util, "find_spec", lambda name: None)
    code, out, _ = run(capsys, "train", "mnist", "--model", "mlp", "--epochs", 1, "--data-dir", data_dir, "--out", "x")
    assert code == 0
    assert "pip install 'pynn-cpu[viz]'" in out
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["metrics.json", "weights.npz"]


def test_held_out_images_choose_the_weights(capsys, tmp_path, data_dir):
    argv = ["train", "mnist", "--model", "mlp", "--epochs", 3, "--data-dir", data_dir, "--out", "x", "--quiet"]
    assert run(capsys, *argv, "--val", 100) == (0, "", "")
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text())
    scores = [(row["val_accuracy"], -row["val_loss"]) for row in metrics["history"]]
    assert metrics["weights_of"] == f"epoch {scores.index(max(scores)) + 1}, best on the held-out images"
    code, _, err = run(capsys, *argv, "--val", 400)
    assert code == 2
    assert "--val 400 leaves none of the 400 training images" in err


def test_ctrl_c_saves_and_exits_with_130(capsys, tmp_path, data_dir, monkeypatch):
    calls = []

    def interrupted_update(self, *args):
        calls.append(1)
        if len(calls) == 6:  # in the second epoch: 400 images are 4 batches of 100
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", interrupted_update)
    argv = [
        "train",
        "mnist",
        "--model",
        "mlp",
        "--epochs",
        5,
        "--batch-size",
        100,
        "--data-dir",
        data_dir,
        "--out",
        "x",
    ]
    code, out, err = run(capsys, *argv)
    assert (code, err) == (130, "")
    assert "interrupted in epoch 2/5" in out
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert metrics["interrupted"]
    assert len(metrics["history"]) == 1
    assert metrics["weights_of"] == "the moment of interruption"
    assert any((tmp_path / "x").glob("weights.*"))


def test_ctrl_c_before_the_training_exits_with_130(capsys, monkeypatch):
    def interrupt(data_dir):
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist_run, "load_mnist", interrupt)
    assert run(capsys, "train", "mnist") == (130, "", "pynn: interrupted\n")


def test_divergence_exits_with_1_and_names_the_layer(capsys, tmp_path, data_dir):
    argv = ["train", "mnist", "--model", "mlp", "--lr", 1e30, "--epochs", 2, "--data-dir", data_dir, "--quiet"]
    code, out, err = run(capsys, *argv)
    assert (code, out) == (1, "")
    assert err.startswith("pynn: error: fit: the loss is ")
    assert "layer '" in err
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["train"],
        ["train", "cifar"],
        ["train", "mnist", "--epochs", "0"],
        ["train", "mnist", "--batch-size", "x"],
        ["train", "mnist", "--lr", "nan"],
        ["train", "mnist", "--lr", "-1"],
        ["train", "mnist", "--seed", "-1"],
        ["train", "mnist", "--threads", "3000000000"],
        ["train", "mnist", "--out", ""],
        ["train", "mnist", "--resume", ""],
        ["train", "mnist", "--model", "vgg"],
        ["predict", "weights.npz"],
    ],
)
def test_bad_arguments_exit_with_2(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage: pynn" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["train", "mnist", "--limit", "3"], ["predict", "w", "i", "--x"], ["info", "x"]])
def test_unknown_arguments_come_with_the_usage_of_their_command(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: pynn {argv[0]}")


def buffered():
    """The environment with Python's own output buffered, as it is by default: argparse ignores errors of writing."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    "argv",
    [["info"], ["--help"], ["--version"], ["train", "mnist", "--model", "mlp", "--epochs", "1", "--data-dir", "."]],
)
def test_nobody_reads_the_output(tmp_path, data_dir, argv):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "pynn", *argv], stdout=output, stderr=subprocess.PIPE, cwd=data_dir, env=buffered()
        )
    assert (done.returncode, done.stderr) == (141, b"")
    assert list(data_dir.glob("runs/*")) == []


def test_there_is_no_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # Python's own where a process starts with it closed
    assert cli.main(["info"]) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("argument", ["info", "--help"])
def test_the_output_goes_to_a_full_disk(argument):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pynn", argument], stdout=full, stderr=subprocess.PIPE, env=buffered()
        )
    assert (done.returncode, done.stderr) == (2, b"pynn: error: [Errno 28] No space left on device\n")


def test_bad_data_exit_with_2_and_one_line(capsys, tmp_path, data_dir):
    def failing(*argv):
        code, out, err = run(capsys, *argv)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("pynn: error: ")
        return err

    assert "nowhere" in failing("train", "mnist", "--data-dir", "nowhere")
    (data_dir / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    assert "t10k-images-idx3-ubyte" in failing("train", "mnist", "--data-dir", data_dir)
    assert not (tmp_path / "runs").exists()
    assert "w.npz" in failing("predict", "w.npz", "x.npy")
    save("w.npz", {"a": np.ones(2)})
    assert "'model'" in failing("predict", "w.npz", "x.npy")
    Classifier("mlp", build("mlp"), 0.1, 0.3, "mnist", False).save("good.npz")
    assert "x.npy" in failing("predict", "good.npz", "x.npy")
    state, metadata = load("good.npz")
    save("w.npz", state, {**metadata, "model": "lenet"})
    assert "w.npz" in failing("predict", "w.npz", "x.npy")
    save("w.npz", state, {**metadata, "model": "vgg"})
    assert "unknown model 'vgg'" in failing("predict", "w.npz", "x.npy")


@pytest.mark.parametrize("argument", ["info", "--help"])
def test_python_m_pynn(argument):
    root = Path(pynn.__file__).parents[1]  # where "-m" finds pynn, whatever PYTHONPATH says
    done = subprocess.run(
        [sys.executable, "-m", "pynn", argument], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert ("num_threads: " if argument == "info" else "usage: pynn") in done.stdout


def test_info(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0
    assert {line.split(":")[0] for line in out.splitlines()} >= {"isa", "num_threads"}


# -- predict -----------------------------------------------------------------------------------------------------------


class Corner(nn.Sequential):
    """Tells the number of lit pixels in the first row of a 28×28 image."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
        weight = np.zeros((10, 784), np.float32)
        weight[:, :28] = np.arange(10)[:, None]
        # logit d: d * lit - d²/2, largest at d == lit
        self[1].load_state_dict({"weight": weight, "bias": -(np.arange(10, dtype=np.float32) ** 2) / 2})


def test_predict_lines(capsys, monkeypatch):
    monkeypatch.setitem(MODELS, "corner", Corner)
    Classifier("corner", Corner(), 0.0, 1.0, "mnist", False).save("w.npz")
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 0, :3] = images[1, 0, :8] = 255
    np.save("two.npy", images)
    write_idx("one.idx", images[1:])
    code, out, err = run(capsys, "predict", "w.npz", "two.npy", "one.idx")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["two.npy[0]: 3", "two.npy[1]: 8", "one.idx: 8"]
    probabilities = [float(cell.split(":")[1]) for cell in lines[0].split("probabilities ")[1].split()]
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(1, abs=0.01)


def test_predict_takes_a_run_folder(capsys, tmp_path):
    np.save("one.npy", np.zeros((1, 28, 28), np.uint8))
    (tmp_path / "run").mkdir()
    code, _, err = run(capsys, "predict", "run", "one.npy")
    assert (code, err) == (2, "pynn: error: predict: there are no weights.safetensors and no weights.npz in run\n")
    Classifier("mlp", build("mlp"), 0.1, 0.3, "mnist", False).save("run/weights.npz")
    assert run(capsys, "predict", "run", "one.npy") == run(capsys, "predict", "run/weights.npz", "one.npy")
    for missing in ("nothere", ""):
        message = f"{missing!r} does not exist, needs a file of weights or the folder of a run\n"
        for command in (["predict", missing, "one.npy"], ["demo", missing]):
            assert run(capsys, *command) == (2, "", f"pynn: error: {command[0]}: {message}")


def test_predict_says_what_is_no_image(capsys, tmp_path):
    Classifier("mlp", build("mlp"), 0.1, 0.3, "mnist", False).save("w.npz")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.npy").touch()
    for path, what in (
        ("nothere", "does not exist, needs a picture, an IDX or a .npy file"),
        ("folder", "is a folder, needs a picture, an IDX or a .npy file"),
        ("empty.npy", "is empty"),
    ):
        assert run(capsys, "predict", "w.npz", path) == (2, "", f"pynn: error: read_digits: {path} {what}\n")


@pytest.mark.parametrize("wrong", ["weights", "std"])
def test_predict_refuses_what_gives_no_probabilities(capsys, wrong):
    np.save("one.npy", np.zeros((1, 28, 28), np.uint8))
    Classifier("mlp", build("mlp"), 0.1, 0.3, "mnist", False).save("good.npz")
    state, metadata = load("good.npz")
    if wrong == "weights":
        save("w.npz", {name: array * np.float32("nan") for name, array in state.items()}, metadata)
        message = "Classifier: the weights of mlp give nan as a probability"
    else:
        save("w.npz", state, {**metadata, "std": "0.0"})
        message = "Classifier.load: w.npz: its mean is 0.1 and its std 0.0, needs numbers and a positive std"
    assert run(capsys, "predict", "w.npz", "one.npy") == (2, "", f"pynn: error: {message}\n")
    assert run(capsys, "demo", "w.npz", "--no-browser") == (2, "", f"pynn: error: {message}\n")


def test_classifier_normalises_as_it_was_trained(monkeypatch):
    monkeypatch.setitem(MODELS, "corner", Corner)
    images = synthetic_digits(3, seed=0)[0]
    classifier = Classifier("corner", Corner(), 0.1307, 0.3081, "mnist", False)
    classifier.save("w.npz")
    again = Classifier.load("w.npz")
    assert (again.mean, again.std, again.dataset, again.is_synthetic) == (0.1307, 0.3081, "mnist", False)
    x = ((images / 255 - 0.1307) / 0.3081).astype(np.float32)[:, None]
    expected = pynn.functional.softmax(Corner()(x)).data
    # Logits of up to 107, sums of 28 pixels that are rounded once more or less: their differences move by 1e-5 at most.
    np.testing.assert_allclose(again.probabilities(images), expected, rtol=2e-5, atol=1e-37)
    np.testing.assert_array_equal(again.inputs(images), normalize_images(images))


def test_classifier_refuses_images_that_are_scaled_already():
    classifier = Classifier("mlp", build("mlp"), 0.1307, 0.3081, "mnist", False)
    images = (synthetic_digits(3, seed=0)[0] / 255).astype(np.float32)
    for call in (classifier.probabilities, classifier.inputs):
        with pytest.raises(TypeError, match="got float32, needs a uint8 array"):
            call(images)


# -- models and figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 101_770), ("lenet", 61_706), ("cnn", 1_199_882)])
def test_models(name, parameters):
    model = build(name)
    assert sum(parameter.size for parameter in model.parameters()) == parameters
    model.eval()
    assert model(np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)
    assert name in RECIPES


def test_real_mnist_in_one_epoch(capsys, mnist_dir, tmp_path):
    argv = ["train", "mnist", "--model", "mlp", "--epochs", 1, "--data-dir", mnist_dir, "--out", "x", "--quiet"]
    assert run(capsys, *argv) == (0, "", "")
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text())
    assert metrics["dataset"] == "mnist"
    assert metrics["final_test_accuracy"] >= 0.96
