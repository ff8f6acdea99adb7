"""Runs of the command line that go on, and what the folder of a run is safe from."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_tools import position_of
from cli_tools import run

from pynn._files import make_folder
from pynn.data import write_idx
from pynn.serialize import load
from pynn.train import Trainer
from pynn.train.progress import Progress

pytest.importorskip("safetensors")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train(capsys, data_dir):
    """Call ``pynn train mnist`` with more arguments; on bad ones it writes one line, which is returned."""

    def call(*argv):
        code, _, err = run(capsys, "train", "mnist", "--quiet", "--data-dir", data_dir, *argv)
        if code == 0:
            return ""
        assert code == 2
        assert err.startswith("pynn: error: ")
        assert err.count("\n") == 1
        return err

    return call


SHORT = ["--model", "mlp", "--epochs", 1, "--batch-size", 100]


def files(folder):
    return {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("every", [[], ["--checkpoint-every", 1]])
@pytest.mark.parametrize("model", ["mlp", "cnn"])  # the second one shifts its images at random
def test_resume_ends_with_the_bits_of_a_run_in_one_go(capsys, tmp_path, data_dir, monkeypatch, model, every):
    argv = ["train", "mnist", "--model", model, "--epochs", 3, "--batch-size", 100, "--val", 50, "--seed", 4, "--quiet"]
    assert run(capsys, *argv, "--data-dir", data_dir, "--out", "whole") == (0, "", "")
    with monkeypatch.context() as patched:
        calls = []

        def interrupted_update(self, *args):
            calls.append(1)
            if len(calls) == 6:  # in the second epoch: 350 images are 4 batches
                raise KeyboardInterrupt

        patched.setattr(Progress, "update", interrupted_update)
        assert run(capsys, *argv, *every, "--data-dir", data_dir, "--out", "parts")[0] == 130
    assert position_of(tmp_path / "parts" / "last.safetensors") == (1, 1 if every else 0)
    code, out, err = run(capsys, "train", "mnist", "--resume", "parts", "--data-dir", data_dir)
    assert (code, err) == (0, "")
    assert f"resumed from parts: after epoch 1/3{', step 1 of epoch 2' if every else ''}\n" in out
    assert "\nepoch 1/3" not in out
    assert "epoch 2/3" in out
    whole, parts = (load(tmp_path / name / "weights.safetensors") for name in ("whole", "parts"))
    assert whole[1] == parts[1]
    for name, array in whole[0].items():
        np.testing.assert_array_equal(parts[0][name], array, err_msg=name)
    whole, parts = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "parts"))
    assert not parts["interrupted"]
    for figure in ("loss", "val_loss", "lr"):
        assert [row[figure] for row in parts["history"]] == [row[figure] for row in whole["history"]]


def test_resume_refuses_what_does_not_fit(capsys, tmp_path, data_dir):
    resume = ["train", "mnist", "--data-dir", data_dir, "--resume", "x"]
    message = "pynn: error: train mnist: --resume x does not exist, needs the folder of a run\n"
    assert run(capsys, *resume) == (2, "", message)
    assert not (tmp_path / "x").exists()
    argv = ["train", "mnist", "--model", "mlp", "--epochs", 1, "--quiet", "--data-dir", data_dir, "--out", "x"]
    assert run(capsys, *argv)[0] == 0
    code, _, err = run(capsys, *resume, "--epochs", 3, "--out", "x")
    assert code == 2
    assert "--resume takes the settings of the run, leave out --epochs, --out" in err
    settings = tmp_path / "x" / "settings.json"
    stored = json.loads(settings.read_text())
    settings.write_text(json.dumps({**stored, "dataset": "others"}))
    assert "is on others, the data are custom IDX data" in run(capsys, *resume)[2]
    settings.write_text("[]")
    assert "does not have the settings of a run: it holds a list" in run(capsys, *resume)[2]
    settings.write_text(json.dumps({"dataset": "x"}))
    assert "does not have the settings of a run" in run(capsys, *resume)[2]
    settings.write_text(json.dumps(stored))
    (tmp_path / "x" / "last.safetensors").unlink()  # as if the process had died in the first epoch
    out = run(capsys, *resume)[1]
    assert "no checkpoint in x, so the run begins anew\n" in out
    assert "epoch 1/1" in out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "vgg", "unknown model 'vgg'"),
        ("model", [], "unhashable"),
        ("epochs", "3", "epochs is '3', needs an integer of at least 1"),
        ("batch_size", True, "batch_size is True, needs an integer"),
        ("val", "a", "val is 'a', needs an integer of at least 0"),
        ("lr", None, "lr is None, needs a number"),
        ("lr", -1.0, "lr is -1.0, needs a number above 0"),
        ("lr", float("nan"), "lr is nan, needs a number above 0"),
        ("seed", 2**64, "seed is 18446744073709551616, needs an integer from 0 to 18446744073709551615"),
        ("shift", -2, "shift is -2, needs an integer from 0 to 27"),
        ("label_smoothing", 1.0, r"label_smoothing is 1.0, needs a number in [0, 1)"),
        ("checkpoint_every", 0, "checkpoint_every is 0, needs an integer of at least 1"),
        # as good as those of the run, but others
        ("batch_size", 50, "settings.json of the run has batch_size 50, its checkpoint was written with 100"),
        ("lr", 0.5, "settings.json of the run has lr 0.5, its checkpoint was written with 0.004"),
    ],
)
def test_resume_checks_the_settings(tmp_path, train, name, value, message):
    assert train(*SHORT, "--out", "x") == ""
    settings = tmp_path / "x" / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), name: value}))
    before = (tmp_path / "x" / "last.safetensors").read_bytes()
    assert message in train("--resume", "x")
    assert (tmp_path / "x" / "last.safetensors").read_bytes() == before


def test_resume_refuses_other_custom_data(tmp_path, data_dir, digits, train):
    assert train(*SHORT, "--out", "x") == ""
    before = files(tmp_path / "x")
    images, labels = digits[0]
    for name, array in ("images-idx3", images[:, ::-1]), ("labels-idx1", (labels.astype(np.uint8) + 1) % 10):
        path = data_dir / f"train-{name}-ubyte"
        own = path.read_bytes()
        write_idx(path, array)
        assert f"the run in x is on other custom IDX data than those in {data_dir}: " in train("--resume", "x")
        assert files(tmp_path / "x") == before
        path.write_bytes(own)
    assert train("--resume", "x") == ""


def test_resume_of_a_run_that_knows_only_the_name_of_its_data(tmp_path, train):
    assert train(*SHORT, "--out", "x") == ""
    settings = tmp_path / "x" / "settings.json"
    stored = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: value for name, value in stored.items() if name != "sha256"}))
    assert train("--resume", "x") == ""
    assert json.loads(settings.read_text()) == stored


def test_resume_keeps_the_steps_between_checkpoints(tmp_path, train, monkeypatch):
    assert train(*SHORT, "--checkpoint-every", 3, "--out", "x") == ""
    (tmp_path / "x" / "last.safetensors").unlink()
    told = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda *args, **options: told.append(options) or fit(*args, **options))
    for more, every in ([], 3), (["--checkpoint-every", 2], 2), ([], 2):
        assert train("--resume", "x", *more) == ""
        assert told.pop()["checkpoint_every"] == every


@pytest.mark.parametrize("kept", ["last.safetensors", "best.safetensors"])
def test_a_new_run_does_not_take_the_folder_of_another(tmp_path, train, kept):
    assert train(*SHORT, "--val", 50, "--out", "x") == ""
    for name in {"last.safetensors", "best.safetensors"} - {kept}:
        (tmp_path / "x" / name).unlink()
    before = files(tmp_path / "x")
    message = train(*SHORT, "--out", "x")
    assert "x has the checkpoints of a run: go on with it by --resume x, or take another folder as --out" in message
    assert files(tmp_path / "x") == before
    assert train("--resume", "x") == ""
    assert (tmp_path / "x" / "last.safetensors").exists()


def test_a_file_in_the_place_of_a_folder(tmp_path, train):
    (tmp_path / "a-file").touch()
    for path in ("a-file", "a-file/run"):
        assert f"train mnist: --out {path} is a file, or would lie in one; it needs a folder" in train("--out", path)
    assert train(*SHORT, "--out", "x") == ""
    message = train("--resume", "x/last.safetensors")
    assert "train mnist: --resume x/last.safetensors is a file, needs the folder of the run" in message


def test_a_new_run_does_not_overwrite_the_results_of_another(tmp_path, train, monkeypatch):
    monkeypatch.setattr("pynn.train.mnist.importlib.util.find_spec", lambda name: None)  # no extras, so no checkpoints
    assert train(*SHORT, "--out", "x") == ""
    for kept in ("metrics.json", "weights.npz"):
        before = files(tmp_path / "x")
        message = train(*SHORT, "--out", "x")
        assert message == "pynn: error: train mnist: x has the results of a run, take another folder as --out\n"
        assert files(tmp_path / "x") == before
        (tmp_path / "x" / kept).unlink()
    assert train(*SHORT, "--out", "x") == ""
    assert "--resume x has no settings.json, which pynn train writes where safetensors is installed" in train(
        "--resume", "x"
    )


def test_a_folder_that_takes_no_files_is_found_before_the_training(tmp_path, train, monkeypatch):
    def read_only(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pynn._files.tempfile.TemporaryFile", read_only)
    monkeypatch.setattr(Trainer, "fit", None)
    assert train(*SHORT, "--out", "x").endswith("train mnist: --out takes no files: Read-only file system: 'x'\n")


def test_metrics_are_json_where_the_last_step_diverges(tmp_path, train):
    def unknown(constant):
        raise ValueError(f"{constant} is not JSON's")

    argv = ["--model", "mlp", "--epochs", 1, "--batch-size", 400, "--lr", 1e30, "--out", "x"]  # a single step
    assert train(*argv) == ""
    metrics = json.loads((tmp_path / "x" / "metrics.json").read_text(), parse_constant=unknown)
    assert metrics["final_test_loss"] is None
    assert metrics["history"][0]["loss"] > 0


def test_a_folder_that_cannot_be_made(tmp_path, train, monkeypatch):
    def forbidden(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert train(*SHORT, "--out", "x").endswith("train mnist: --out cannot be made: Permission denied: 'x'\n")
    with pytest.raises(PermissionError):
        make_folder("save", "x")


def test_a_run_that_leaves_nothing_leaves_no_folder(tmp_path, train, monkeypatch):
    def failing(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Trainer, "fit", failing)
    assert "No space left on device" in train(*SHORT)
    assert list((tmp_path / "runs").iterdir()) == []
    assert "No space left on device" in train(*SHORT, "--out", "x")
    assert (tmp_path / "x").is_dir()
