"""Checkpoints within epochs: after any step a new process goes on to the bits of a training in one go."""

import json

import numpy as np
import pytest
from checkpoint_tools import child, contents, edited, position_of, state_of
from checkpointed_run import go_on, make

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.serialize import load, save
from pynn.train import Callback, CSVLogger, EarlyStopping, Trainer

pytest.importorskip("safetensors")

EPOCHS = 3
STEPS = 3  # of an epoch in checkpointed_run


class StopAfter(Callback):
    """End the training in the step after the given number of them, as if the process had died."""

    def __init__(self, steps):
        self.steps = steps

    def on_batch_end(self, trainer, epoch, step, loss):
        self.steps -= 1
        if self.steps < 0:
            raise KeyboardInterrupt


class Recorder(Callback):
    """Keep what it is told, and the losses of the epoch at hand as its state."""

    def __init__(self):
        self.calls, self.losses = [], []

    def on_epoch_begin(self, trainer, epoch):
        self.calls.append(f"begin {epoch}")
        self.losses = []
        pynn.random.generator().random()

    def on_batch_end(self, trainer, epoch, step, loss):
        self.calls.append((epoch, step))
        self.losses.append(loss)

    def on_epoch_end(self, trainer, row):
        row["worst"] = max(self.losses)

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = state["losses"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return go_on(folder, EPOCHS, True), folder


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["captured", "eager"])
@pytest.mark.parametrize(
    ("steps", "every"), [*((k, 1) for k in range(1, EPOCHS * STEPS)), (2, 2), (5, 2), (6, 3), (7, 3)]
)
def test_a_new_process_goes_on_after_any_step(tmp_path, whole, steps, every, before):
    """With dropout, batch normalisation, a schedule of steps and noise in the loader."""
    go_on(tmp_path, EPOCHS, before == "captured", every=every, callbacks=[StopAfter(steps)])
    epochs, left = divmod(steps, STEPS)
    # The end of an epoch has its own checkpoint, unless the validation after it was not reached; it was.
    assert position_of(tmp_path / "last.safetensors") == (epochs, left - left % every)
    process = child(tmp_path, EPOCHS, "captured" if steps % 2 else "eager", every)
    process.communicate()
    assert process.returncode == 0
    trainer, folder = whole
    for name in ("last.safetensors", "best.safetensors"):
        assert contents(tmp_path / name) == contents(folder / name)
    final = load(tmp_path / "final.safetensors")[0]
    for name, array in trainer.model.state_dict().items():
        assert array.tobytes() == final[name].tobytes(), name


def test_before_the_validation_of_an_epoch(tmp_path, whole):
    trainer, loader, _ = make()

    class Val:
        def __iter__(self):
            raise KeyboardInterrupt

    assert len(trainer.fit(loader, EPOCHS, val=Val(), checkpoint=tmp_path, checkpoint_every=1)) == 0
    assert position_of(tmp_path / "last.safetensors") == (0, STEPS)
    go_on(tmp_path, EPOCHS, True, seed=9)
    assert contents(tmp_path / "last.safetensors") == contents(whole[1] / "last.safetensors")


def test_after_ctrl_c_the_same_trainer_goes_on(tmp_path, whole):
    trainer, loader, val = make()
    for steps in (4, 1, 0, 2):
        resume = tmp_path if (tmp_path / "last.safetensors").exists() else None
        options = {"checkpoint": tmp_path, "checkpoint_every": 1, "resume": resume}
        assert trainer.fit(loader, EPOCHS, val=val, callbacks=[StopAfter(steps)], **options).interrupted
    assert position_of(tmp_path / "last.safetensors") == (2, 1)
    trainer.fit(loader, EPOCHS, val=val, checkpoint=tmp_path, resume=tmp_path)
    assert contents(tmp_path / "last.safetensors") == contents(whole[1] / "last.safetensors")
    assert state_of(trainer, loader)[0] == state_of(whole[0], loader)[0]


class Drawing:
    """Batches whose order and noise are drawn from pynn's generator; there is no position to save."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        for rows in np.split(pynn.random.generator().permutation(len(self.x)), [6, 13, 20, 29, 31]):
            yield self.x[rows] + np.float32(pynn.random.generator().normal()), self.y[rows]


class Drifting:
    """Batches that follow from a generator of its own, which is its position between two epochs."""

    def __init__(self, x, y):
        self.x, self.y, self.generator = x, y, np.random.default_rng(1)

    def __iter__(self):
        for rows in np.split(self.generator.permutation(len(self.x)), 8):
            yield self.x[rows] + self.generator.normal(size=(len(rows), 1)).astype(np.float32), self.y[rows]

    def state_dict(self):
        return self.generator.bit_generator.state

    def load_state_dict(self, state):
        self.generator.bit_generator.state = state


class Augmented(Drifting):
    """A transform of a DataLoader with a generator of its own."""

    def __init__(self):
        self.generator, self.calls = np.random.default_rng(1), 0

    def __call__(self, x, y):
        self.calls += 1
        return x + self.generator.normal(size=x.shape).astype(np.float32), y


LOADERS = {
    "list": lambda x, y: [(x[i::6], y[i::6]) for i in range(6)],
    "drawing": Drawing,
    "drifting": Drifting,
    "DataLoader": lambda x, y: DataLoader(x, y, batch_size=7, shuffle=True, drop_last=True, transform=Augmented()),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop])
def test_other_loaders_and_callbacks(tmp_path, kind, optimizer):
    """Also where the training data are evaluated in between, and where callbacks draw random numbers."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 2, 40)

    class Evaluate(Callback):
        def on_batch_end(self, trainer, epoch, step, loss):
            if step == 2:
                trainer.evaluate(loader)

    def run(*callbacks, seed=0, **options):
        nonlocal loader
        pynn.seed(seed)
        loader = LOADERS[kind](x, y)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 2))
        made = optimizer(model.parameters(), lr=0.05)
        trainer = Trainer(model, nn.CrossEntropyLoss(), made, optim.StepLR(made, 1), verbose=False)
        recorder = Recorder()
        every = [recorder, Evaluate(), CSVLogger(tmp_path / "rows.csv"), *callbacks]
        history = trainer.fit(loader, 3, callbacks=every, **options)
        rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in history]
        return rows, state_of(trainer)[:4], pynn.random.get_rng_state(), recorder.calls

    loader = None
    *expected, calls = run()
    steps = sum(isinstance(call, tuple) for call in calls)
    for k in range(1, steps):
        folder = tmp_path / str(k)
        first = run(StopAfter(k), checkpoint=folder, checkpoint_every=1)[-1]
        within = position_of(folder / "last.safetensors")[1] > 0
        *found, second = run(seed=5, resume=folder)
        assert found == expected
        # Each step is told once, and the epoch at hand begins in either process.
        done = [call for call in calls if isinstance(call, tuple)]
        assert [call for call in second if isinstance(call, tuple)] == done[k:]
        assert [call for call in first if isinstance(call, tuple)][:k] == done[:k]
        assert second[0] == f"begin {done[k - 1 if within else k][0]}"
    assert k > 10


def test_batches_that_are_done_are_not_made_again_by_a_data_loader(tmp_path):
    x = np.ones((12, 3), np.float32)

    def run(*callbacks, **options):
        transform = Augmented()
        loader = DataLoader(x, x[:, :2], batch_size=2, transform=transform)
        model = nn.Linear(3, 2)
        trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False, capture=False)
        trainer.fit(loader, 1, callbacks=callbacks, **options)
        return transform.calls

    assert run(StopAfter(4), checkpoint=tmp_path, checkpoint_every=4) == 5
    assert run(resume=tmp_path) == 2


def test_what_ends_the_training_is_kept(tmp_path):
    """A callback that asked for the end within the epoch, and `EarlyStopping`, which looks at the epochs before."""

    class Ask(Callback):
        def on_batch_end(self, trainer, epoch, step, loss):
            if (epoch, step) == (2, 1):
                trainer.should_stop = True

    def run(*callbacks, **options):
        trainer, loader, val = make()
        stopping = EarlyStopping("lr", patience=3, mode="min")  # the rate rises
        history = trainer.fit(loader, 20, val=val, callbacks=[stopping, *callbacks], **options)
        return len(history), history.best_epoch, stopping.stopped_epoch, state_of(trainer, loader)[:4]

    assert run(Ask())[0] == 2
    run(Ask(), StopAfter(5), checkpoint=tmp_path / "asked", checkpoint_every=1)
    assert run(resume=tmp_path / "asked")[0] == 2
    whole = run()
    assert whole[:3] == (4, 1, 4)
    for steps in range(2, 12):
        folder = tmp_path / str(steps)
        run(StopAfter(steps), checkpoint=folder, checkpoint_every=1)
        assert run(resume=folder) == whole


@pytest.mark.parametrize("steps", [3, 5], ids=["between epochs", "within one"])
@pytest.mark.parametrize("method", ["on_train_begin", "load_state_dict"])
def test_a_callback_that_cannot_go_on_leaves_all_as_it_was(tmp_path, steps, method):
    class Refuses(Recorder):
        """Has a state, and one method that fails."""

    def fail(*arguments):
        raise ZeroDivisionError("failed")

    trainer, loader, val = make()
    trainer.fit(loader, 3, val=val, callbacks=[Refuses(), StopAfter(steps)], checkpoint=tmp_path, checkpoint_every=1)
    trainer, loader, val = make(seed=7)
    trainer.fit(loader, 1, val=val)
    before, history = state_of(trainer, loader, val), trainer.history
    refuses = Refuses()
    refuses.on_epoch_begin = lambda trainer, epoch: None  # what that draws is no part of a load
    setattr(refuses, method, fail)
    with pytest.raises(ZeroDivisionError, match="failed"):
        trainer.fit(loader, 3, val=val, callbacks=[refuses], resume=tmp_path)
    assert state_of(trainer, loader, val) == before
    assert trainer.history is history


def test_the_time_of_an_epoch_is_that_of_its_parts(tmp_path):
    def run(*callbacks, **options):
        trainer, loader, _ = make()
        return trainer.fit(loader, 1, callbacks=callbacks, **options)

    run(StopAfter(2), checkpoint=tmp_path, checkpoint_every=2)
    last = tmp_path / "last.safetensors"
    epoch = json.loads(load(last)[1]["training"])["epoch"]
    assert epoch["totals"]["seconds"] > 0
    edited(last, last, epoch={**epoch, "totals": {**epoch["totals"], "seconds": 1e6}})
    (row,) = run(resume=tmp_path)
    assert 1e6 < row["seconds"] < 2e6
    assert row["images_per_s"] == 40 / row["seconds"]


def test_files_without_the_newer_entries_load(tmp_path, whole):
    go_on(tmp_path, 2, True)
    last = tmp_path / "last.safetensors"
    arrays, metadata = load(last)
    rest = json.loads(metadata["training"])
    assert (rest.pop("epoch"), rest.pop("callbacks")) == (None, {})
    save(last, arrays, {**metadata, "training": json.dumps(rest)})
    go_on(tmp_path, EPOCHS, True, seed=9)
    assert contents(last) == contents(whole[1] / "last.safetensors")


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_a_failed_load_within_an_epoch_changes_nothing(tmp_path):
    go_on(tmp_path, 2, True, every=1, callbacks=[StopAfter(5)])
    last, bad = tmp_path / "last.safetensors", tmp_path / "bad.safetensors"
    epoch = contents(last)[1]["epoch"]
    trainer, loader, val = make(seed=11)
    trainer.fit(loader, 1, val=val)
    before, history = state_of(trainer, loader, val), trainer.history
    x, y = loader.arrays

    def refused(path, message, data=loader):
        with pytest.raises(ValueError, match=f"^fit: resume: .*{message}"):
            trainer.fit(data, 3, val=val, resume=path)
        assert state_of(trainer, loader, val) == before
        assert trainer.history is history

    def other(**options):
        return DataLoader(*options.pop("arrays", (x, y)), **{"batch_size": 16, "shuffle": True, "seed": 0, **options})

    refused(last, "within an epoch of data with batch_size 16, these have 20", other(batch_size=20))
    refused(last, "within an epoch of data with num_samples 40, these have 39", other(arrays=(x[1:], y[1:])))
    refused(last, "within an epoch of data with shuffle True, these have False", other(shuffle=False))
    refused(last, "within an epoch of data with drop_last False, these have True", other(drop_last=True))
    refused(last, "a list has no load_state_dict", list(other()))
    refused(edited(last, bad, {"model.0.bias": np.ones(3, np.float32)}), "0.bias has shape")
    for wrong, message in (
        ({"totals": {**epoch["totals"], "batches": 4}}, "it is 4 batches into an epoch, the data have 3"),
        ({"totals": {**epoch["totals"], "batches": -1}}, "it is -1 batches into an epoch"),
        ({"totals": {"steps": 1}}, "does not fit this training"),
        ({"start": None}, "does not fit this training"),
        ({"cut": {}}, "data with num_samples None, these have 40"),
    ):
        refused(edited(last, bad, epoch={**epoch, **wrong}), message)


def test_a_position_behind_the_end_of_other_data(tmp_path):
    x = np.ones((4, 3), np.float32)
    model = nn.Linear(3, 2)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), verbose=False)
    batches = [(x, x[:, :2])] * 5
    trainer.fit(batches, 2, callbacks=[StopAfter(9)], checkpoint=tmp_path, checkpoint_every=4)
    with pytest.raises(ValueError, match="within an epoch of data with batches 5, these have 3"):
        trainer.fit(batches[:3], 2, resume=tmp_path)
    trainer.fit(iter(batches), 1, callbacks=[StopAfter(4)], checkpoint=tmp_path, checkpoint_every=4)
    with pytest.raises(ValueError, match="it is 4 batches into an epoch, the data have 3"):
        trainer.fit(iter(batches[:3]), 2, resume=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoint_every": 3}, ValueError, "fit: checkpoint_every needs a folder"),
        ({"checkpoint_every": 0, "checkpoint": "x"}, ValueError, "fit: checkpoint_every is 0, needs at least 1"),
        ({"checkpoint_every": 2.0, "checkpoint": "x"}, TypeError, "fit: checkpoint_every is 2.0, needs an integer"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    trainer, loader, _ = make()
    with pytest.raises(error, match=message):
        trainer.fit(loader, 1, **options)
    assert not list(tmp_path.iterdir())
