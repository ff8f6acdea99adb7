"""Checkpoints of trainings: bit for bit the same as a training in one go, whenever the process dies."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_tools import child, contents, edited, epochs_of, position_of, state_of
from checkpointed_run import go_on, make
from optimizer_tools import HeavyBall

import pynn
from pynn import nn, optim
from pynn._files import atomic_file
from pynn.data import DataLoader
from pynn.serialize import load, save
from pynn.train import Trainer, checkpoint_weights

pytest.importorskip("safetensors")

# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["captured", "eager"])
def test_a_new_process_goes_on_bit_for_bit(tmp_path, how):
    whole = go_on(tmp_path / "whole", 6, how == "captured")
    parts = tmp_path / "parts"
    go_on(parts, 3, how == "captured")
    assert epochs_of(parts / "last.safetensors") == 3
    process = child(parts, 6, how)
    process.communicate()
    assert process.returncode == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert contents(parts / name) == contents(tmp_path / "whole" / name)
    final = load(parts / "final.safetensors")[0]
    for name, array in whole.model.state_dict().items():
        assert array.tobytes() == final[name].tobytes(), name
    assert sorted(path.name for path in parts.iterdir()) == [
        "best.safetensors",
        "final.safetensors",
        "last.safetensors",
    ]


def test_every_epoch_can_be_gone_on_from(tmp_path):
    """Also when the best weights are those of an epoch before the checkpoint, and in a trainer that has captured."""
    whole = go_on(tmp_path / "whole", 8, True)
    best = contents(tmp_path / "whole" / "best.safetensors")
    trainer, loader, val = make(seed=5)
    trainer.fit(loader, 1, val=val)
    older = 0
    for epoch in range(1, 8):
        folder = tmp_path / str(epoch)
        go_on(folder, epoch, True)
        older += contents(folder / "last.safetensors")[1]["best"]["epoch"] < epoch
        history = trainer.fit(loader, 8, val=val, checkpoint=folder, resume=folder / "last.safetensors")
        assert history["val_loss"] == whole.history["val_loss"]
        assert history.best_epoch == whole.history.best_epoch
        assert contents(folder / "best.safetensors") == best
        assert state_of(trainer, loader)[0] == state_of(whole, loader)[0]
    assert older > 0


@pytest.mark.parametrize(
    "scheduler", [None, optim.ReduceLROnPlateau, lambda o: optim.StepLR(o, 2)], ids=["none", "plateau", "steps"]
)
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Muon, optim.RMSprop])
def test_other_optimizers_and_schedules_without_validation(tmp_path, optimizer, scheduler):
    def run(epochs, **options):
        pynn.seed(1)
        model = nn.Linear(3, 2, bias=False)  # Muon takes matrices only
        made = optimizer(model.parameters(), lr=0.05)
        trainer = Trainer(model, nn.MSELoss(), made, scheduler and scheduler(made), verbose=False)
        x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
        trainer.fit([(x, x[:, :2])], epochs, **options)
        return {name: array.tobytes() for name, array in model.state_dict().items()}

    whole = run(6)
    run(3, checkpoint=tmp_path)
    assert run(6, resume=tmp_path) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]  # best needs validation data


def test_a_finished_training_and_weights_of_a_checkpoint(tmp_path):
    trainer = go_on(tmp_path, 4, True)
    again, loader, val = make(seed=3)
    assert again.fit(loader, 4, val=val, resume=tmp_path).epochs == trainer.history.epochs
    best = checkpoint_weights(tmp_path / "best.safetensors")
    for name, array in again.model.state_dict().items():
        np.testing.assert_array_equal(array, best[name], err_msg=name)


def test_arrays_that_are_not_contiguous_are_kept(tmp_path):
    """The safetensors package writes the buffer of an array whatever its strides."""
    x = np.ones((4, 3), np.float32)
    model = nn.Linear(3, 2)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9), verbose=False)
    trainer.fit([(x, x[:, :2])], 1)
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    trainer.model.state_dict = lambda: {"weight": weights, "bias": np.arange(4, dtype=np.float32)[::2]}
    trainer.fit([(x, x[:, :2])], 1, checkpoint=tmp_path)
    read = checkpoint_weights(tmp_path)
    np.testing.assert_array_equal(read["weight"], weights)
    np.testing.assert_array_equal(read["bias"], [0, 2])


def test_a_transform_with_random_numbers_of_its_own():
    class Noise:
        def __init__(self):
            self.generator = np.random.default_rng(0)

        def __call__(self, x):
            return (x + self.generator.normal(),)

        def state_dict(self):
            return self.generator.bit_generator.state

        def load_state_dict(self, state):
            self.generator.bit_generator.state = state

    first, second = (DataLoader(np.arange(4.0), batch_size=2, shuffle=True, seed=s, transform=Noise()) for s in (0, 1))
    list(first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    np.testing.assert_array_equal(list(first), list(second))
    before = second.state_dict()
    for wrong, message in (
        ({**before, "num_samples": 5}, "state is of 5 samples, the loader has 4"),
        ({"seed": 1}, r"state has \['seed'\], needs"),
        ({**before, "seed": -1}, "seed of the state is -1, needs at least 0"),
        ({**before, "epoch": -1}, "epoch of the state is -1, needs at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            second.load_state_dict(wrong)
        assert second.state_dict() == before
    with pytest.raises(TypeError, match="DataLoader: state is a NoneType"):
        second.load_state_dict(None)


def test_random_numbers_go_on_and_bad_states_change_nothing():
    pynn.seed(7)
    pynn.randn(3)
    state = json.loads(json.dumps(pynn.random.get_rng_state()))
    draws = pynn.randn(5).tolist(), pynn.random.generator().random(), pynn.random.next_offset(4)
    pynn.random.set_rng_state(state)
    assert (pynn.randn(5).tolist(), pynn.random.generator().random(), pynn.random.next_offset(4)) == draws
    before = pynn.random.get_rng_state()
    for wrong in (
        {},
        {**state, "key": "x"},
        {**state, "offset": -1},
        {**state, "offset": 2**64},
        {**state, "generator": {"bit_generator": "MT19937"}},
        {**state, "generator": {**state["generator"], "uinteger": -1}},
        {**state, "generator": {**state["generator"], "state": {"state": -1, "inc": 1}}},
    ):
        with pytest.raises(ValueError, match="set_rng_state: not a state"):
            pynn.random.set_rng_state(wrong)
        assert pynn.random.get_rng_state() == before


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_a_failed_load_changes_nothing(tmp_path):
    go_on(tmp_path, 2, True)
    last = tmp_path / "last.safetensors"
    rest = json.loads(load(last)[1]["training"])
    row = rest["history"][0]
    trainer, loader, val = make(seed=11)
    trainer.fit(loader, 1, val=val)
    batches = list(loader)
    before = state_of(trainer, loader, val)
    history = trainer.history

    def refused(path, message, error=ValueError, data=loader):
        with pytest.raises(error, match=message):
            trainer.fit(data, 3, val=val, resume=path)
        assert state_of(trainer, loader, val) == before
        assert trainer.history is history

    bad = tmp_path / "bad.safetensors"
    (tmp_path / "folder").mkdir()
    for missing in ("none.safetensors", "none", "folder"):
        name = "folder/last.safetensors" if missing == "folder" else missing
        message = rf"^fit: resume: .*{name} does not exist, needs a checkpoint or the folder of one$"
        refused(tmp_path / missing, message, FileNotFoundError)
    bad.write_bytes(last.read_bytes()[:-1])
    refused(bad, "not a readable safetensors file")
    save(bad, {"weight": np.ones(2)})
    refused(bad, "expected 'pynn checkpoint 1'")
    refused(edited(last, bad, {"model.0.bias": np.ones(3, np.float32)}), "0.bias has shape")
    refused(edited(last, bad, {"optimizer.0.exp_avg": np.ones(3, np.float32)}), "exp_avg has shape")
    refused(edited(last, bad, scheduler={"step_count": 1}), "OneCycleLR: state has")
    refused(edited(last, bad, loaders={"training": {"seed": 1}}), "DataLoader: state has")
    refused(edited(last, bad, random={"key": 1}), "set_rng_state")
    refused(edited(last, bad, kinds={**rest["kinds"], "optimizer": "SGD"}), "written with optimizer SGD.* has Adam")
    refused(last, "a list has no load_state_dict", data=batches)
    for name in rest.keys() - {"scheduler", "best", "epoch"}:
        refused(edited(last, bad, **{name: None}), f"^fit: resume: .*bad.safetensors has no .*: its '{name}' is null")
    for name, wrong in (
        ("history", [None]),
        ("history", [{}]),
        ("history", [{**row, "epoch": 2}]),
        ("history", [{**row, "loss": "0.5"}]),
        ("history", [{**row, "accuracy": None}]),
        ("history", [{name: figure for name, figure in row.items() if name != "lr"}]),
        ("best", {"epoch": 1, "score": None}),
        ("best", {"epoch": 0, "score": [0.5]}),
        ("best", {"epoch": 3, "score": [0.5]}),
        ("best", {"epoch": 1, "score": []}),
        ("callbacks", {"EarlyStopping": 3}),
        ("epoch", 3),
        ("scheduler", None),
        ("loaders", {"training": None}),
        ("optimizer", {"param_groups": [None], "state": None}),
    ):
        refused(edited(last, bad, **{name: wrong}), "^fit: resume: .*bad.safetensors ")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    trainer, loader, _ = make()
    (tmp_path / "a-file").touch()
    with pytest.raises(NotADirectoryError, match=r"^fit: checkpoint .*a-file is a file, or .* needs a folder"):
        trainer.fit(loader, 1, checkpoint=tmp_path / "a-file")


def test_without_safetensors_it_says_so_before_training(tmp_path, monkeypatch):
    trainer, loader, val = make()
    before = state_of(trainer, loader, val)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"fit: checkpoint: .*pip install 'pynn-cpu\[safetensors\]'"):
        trainer.fit(loader, 1, checkpoint=tmp_path / "run")
    assert state_of(trainer, loader, val) == before


# -- when things go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="limits of files and SIGKILL are POSIX")
@pytest.mark.parametrize("full", ["while writing", "while flushing"])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, full):
    import resource

    go_on(tmp_path, 3, True)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    trainer, loader, val = make()
    with monkeypatch.context() as patched:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if full == "while writing":
            expected = errno.EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # less than a checkpoint has
        else:
            expected = errno.ENOSPC

            def no_space(descriptor):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patched.setattr(os, "fsync", no_space)
        try:
            with pytest.raises(OSError, match="fit: checkpoint not written") as caught:
                trainer.fit(loader, 5, val=val, checkpoint=tmp_path, resume=tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == expected
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    trainer.fit(loader, 5, val=val, checkpoint=tmp_path, resume=tmp_path)
    assert epochs_of(tmp_path / "last.safetensors") == 5


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("every", [None, 1])
def test_killed_at_random_moments_there_is_a_last_checkpoint(tmp_path, rng, kills, every):
    folder = tmp_path / "killed"
    last = folder / "last.safetensors"
    go_on(folder, 1, True)
    done, while_writing, within = position_of(last), 0, 0
    for _ in range(kills):
        with child(folder, 4000, "captured", every) as process:
            assert process.stdout.readline() == "ready\n"
            try:
                process.wait(timeout=rng.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        while_writing += any(folder.glob("*.tmp"))
        now = position_of(last)
        assert now >= done
        done = now
        within += done[1] > 0
    print(f"{done[0]} epochs; {while_writing} of {kills} kills came while a file was written, {within} within an epoch")
    # The parts make the training in one go, and nothing is left of the files that were cut off.
    go_on(folder, done[0] + 1, True, seed=3)
    go_on(tmp_path / "whole", done[0] + 1, True)
    for name in ("last.safetensors", "best.safetensors"):
        assert contents(folder / name) == contents(tmp_path / "whole" / name)
    assert sorted(path.name for path in folder.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_two_trainings_in_one_folder_leave_each_others_files_alone(tmp_path):
    trainer, loader, val = make()
    leftover = tmp_path / ".best.safetensors.0123abcd.tmp"
    leftover.touch()
    with atomic_file(tmp_path / "last.safetensors") as file:  # as another process does
        trainer.fit(loader, 1, val=val, checkpoint=tmp_path)
        file.write(b"whole")
    assert (tmp_path / "last.safetensors").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_an_optimiser_of_ones_own_goes_on(tmp_path):
    def train(epochs, **options):
        pynn.seed(0)
        model = nn.Linear(2, 2)
        loader = DataLoader(np.eye(2, dtype=np.float32), np.arange(2), batch_size=1, shuffle=True)
        trainer = Trainer(model, nn.CrossEntropyLoss(), HeavyBall(model.parameters(), lr=0.1), verbose=False)
        trainer.fit(loader, epochs, **options)
        return model.weight.tolist()

    train(2, checkpoint=tmp_path)
    assert train(4, resume=tmp_path) == train(4)
