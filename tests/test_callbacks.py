"""Callbacks of `Trainer.fit`: when they are called, what they write, and when they stop."""

import csv
import errno
import json
import math
import struct
import sys

import numpy as np
import pytest

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.train import Callback, CSVLogger, EarlyStopping, JSONLinesLogger, TensorBoardLogger, Trainer

CAPTURE = pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])


@pytest.fixture
def blobs():
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    return (rng.normal(size=(60, 3)) + 3 * labels[:, None]).astype(np.float32), labels


def make(lr=0.05, **options):
    pynn.seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    options.setdefault("verbose", False)
    return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=lr), **options)


def weights(trainer):
    return {name: array.tobytes() for name, array in trainer.model.state_dict().items()}


class Notes(Callback):
    """Notes each call."""

    def __init__(self, calls, name=""):
        self.calls, self.name = calls, name

    def note(self, text):
        self.calls.append(f"{self.name}{text}")

    def on_train_begin(self, trainer):
        self.note(f"begin {len(trainer.history)}")

    def on_epoch_begin(self, trainer, epoch):
        self.note(f"epoch {epoch}")

    def on_batch_end(self, trainer, epoch, step, loss):
        self.note(f"batch {epoch}.{step}")
        assert math.isfinite(loss)

    def on_epoch_end(self, trainer, row):
        assert row is trainer.history.epochs[-1]
        self.note(f"end {row['epoch']}")

    def on_train_end(self, trainer):
        self.note("done")


class Scores(Callback):
    """Gives each epoch the next figure of a list."""

    def __init__(self, scores, name="score"):
        self.scores, self.name = list(scores), name

    def on_epoch_end(self, trainer, row):
        row[self.name] = self.scores[row["epoch"] - 1]


class Fails(Callback):
    """Raises in one epoch."""

    def __init__(self, epoch, error=ZeroDivisionError, when="on_epoch_end"):
        self.epoch, self.error = epoch, error
        setattr(self, when, self.fail)

    def fail(self, trainer, *arguments):
        if len(trainer.history) == self.epoch:
            raise self.error("failed")


# -- calls -------------------------------------------------------------------------------------------------------------


@CAPTURE
def test_order_of_calls(blobs, capture):
    calls = []
    make(capture=capture).fit(DataLoader(*blobs, batch_size=30), 2, callbacks=[Notes(calls, "a "), Notes(calls, "b ")])
    expected = ["begin 0"]
    for epoch in (1, 2):
        expected += [f"epoch {epoch}", f"batch {epoch}.1", f"batch {epoch}.2", f"end {epoch}"]
    both = [f"{name} {call}" for call in expected for name in "ab"]
    assert calls == [*both, "b done", "a done"]


@CAPTURE
def test_losses_of_batches_are_those_of_the_epoch(blobs, capture):
    losses = []

    class Losses(Callback):
        def on_batch_end(self, trainer, epoch, step, loss):
            losses.append(loss)

    history = make(capture=capture).fit(DataLoader(*blobs, batch_size=30), 1, callbacks=[Losses()])
    assert sum(30 * loss for loss in losses) / 60 == history["loss"][0]


def test_only_those_who_listen_hear_of_batches(blobs, tmp_path):
    """Nobody pays for callbacks that do not."""
    from pynn.train.callbacks import listeners

    listening = Notes([])
    others = [CSVLogger(tmp_path / "x"), JSONLinesLogger(tmp_path / "y"), EarlyStopping(), Callback()]
    assert listeners([*others, listening]) == [listening]
    with pytest.raises(TypeError, match=r"fit: a callback is a function, needs a pynn\.train\.Callback"):
        make().fit([blobs], 1, callbacks=[lambda row: None])
    with pytest.raises(
        TypeError, match=r"fit: callbacks is a EarlyStopping, needs a sequence of pynn\.train\.Callback"
    ):
        make().fit([blobs], 1, callbacks=EarlyStopping("loss"))


@CAPTURE
def test_training_has_the_same_bits_with_callbacks(blobs, tmp_path, capture):
    def run(callbacks):
        trainer = make(capture=capture)
        trainer.fit(DataLoader(*blobs, batch_size=16, shuffle=True, seed=0), 3, val=[blobs], callbacks=callbacks)
        assert trainer.capture == capture
        return weights(trainer)

    callbacks = [CSVLogger(tmp_path / "a.csv"), JSONLinesLogger(tmp_path / "a.jsonl"), Notes([])]
    assert run(callbacks) == run([])


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_end_is_told_also_after_an_error(blobs, tmp_path, error):
    calls = []
    trainer = make()
    callbacks = [Notes(calls), CSVLogger(tmp_path / "h.csv"), Fails(2, error), JSONLinesLogger(tmp_path / "h.jsonl")]
    if error is KeyboardInterrupt:
        assert trainer.fit([blobs], 5, callbacks=callbacks).interrupted
    else:
        with pytest.raises(ZeroDivisionError, match="failed"):
            trainer.fit([blobs], 5, callbacks=callbacks)
    assert calls[-2:] == ["end 2", "done"]
    assert len(trainer.history) == 2
    assert [row["epoch"] for row in read_csv(tmp_path / "h.csv")] == ["1", "2"]
    assert [row["epoch"] for row in read_json(tmp_path / "h.jsonl")] == [1]  # it would have come after the failing one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.csv", "h.jsonl"]


def test_an_error_at_the_begin_ends_those_that_have_begun(blobs):
    first, last = [], []
    callbacks = [Notes(first), Fails(0, when="on_train_begin"), Notes(last)]
    with pytest.raises(ZeroDivisionError):
        make().fit([blobs], 1, callbacks=callbacks)
    assert (first, last) == (["begin 0", "done"], [])


def test_should_stop_ends_after_the_epoch_and_does_not_stay(blobs):
    class Stop(Callback):
        def on_batch_end(self, trainer, epoch, step, loss):
            trainer.should_stop = epoch == 2

    calls = []
    trainer = make()
    assert len(trainer.fit([blobs, blobs], 5, callbacks=[Stop(), Notes(calls)])) == 2
    assert calls[-4:] == ["batch 2.1", "batch 2.2", "end 2", "done"]
    assert len(trainer.fit([blobs], 3)) == 3


# -- files -------------------------------------------------------------------------------------------------------------


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def as_written(rows):
    return [{name: repr(value) for name, value in row.items()} for row in rows]


def test_files_have_the_history_exactly(blobs, tmp_path):
    seen = []

    class Look(Callback):
        def on_epoch_end(self, trainer, row):
            seen.append((len(read_csv(tmp_path / "new" / "h.csv")), len(read_json(tmp_path / "h.jsonl"))))

    callbacks = [CSVLogger(tmp_path / "new" / "h.csv"), JSONLinesLogger(str(tmp_path / "h.jsonl")), Look()]
    trainer = make()
    for epochs in (3, 2):  # the second fit begins anew
        history = trainer.fit([blobs], epochs, val=[blobs], callbacks=callbacks)
        assert read_csv(tmp_path / "new" / "h.csv") == as_written(history)
        assert read_json(tmp_path / "h.jsonl") == history.epochs
    assert seen == [(1, 1), (2, 2), (3, 3), (1, 1), (2, 2)]


def test_numbers_that_json_has_not(blobs, tmp_path):
    callbacks = [Scores([math.nan, np.float32(math.inf), np.float32(0.5)]), JSONLinesLogger(tmp_path / "h.jsonl")]
    make().fit([blobs], 3, callbacks=callbacks)
    assert [row["score"] for row in read_json(tmp_path / "h.jsonl")] == [None, None, 0.5]


def test_a_figure_that_comes_later_gets_a_column(blobs, tmp_path):
    class Sometimes(Callback):
        def on_epoch_end(self, trainer, row):
            if row["epoch"] == 2:
                row["a, b"] = 7

    make().fit([blobs], 3, callbacks=[Sometimes(), CSVLogger(tmp_path / "h.csv")])
    assert [row["a, b"] for row in read_csv(tmp_path / "h.csv")] == ["", "7", ""]


@pytest.mark.parametrize("damage", ["none", "a line more", "a line less", "half a line", "no file"])
def test_resume_goes_on_with_the_files(blobs, tmp_path, damage):
    pytest.importorskip("safetensors")
    table, lines = tmp_path / "h.csv", tmp_path / "h.jsonl"

    def run(epochs, **options):
        trainer = make()
        loader = DataLoader(*blobs, batch_size=16, shuffle=True, seed=0)
        callbacks = [Scores(range(10)), CSVLogger(table), JSONLinesLogger(lines)]
        return trainer.fit(loader, epochs, val=[blobs], callbacks=callbacks, checkpoint=tmp_path / "run", **options)

    run(3)
    for path in (table, lines):
        kept = path.read_text().splitlines(keepends=True)
        if damage == "a line more":
            path.write_text("".join([*kept, kept[-1]]))
        elif damage == "a line less":
            path.write_text("".join(kept[:-1]))
        elif damage == "half a line":
            path.write_text("".join(kept)[:-9])
        elif damage == "no file":
            path.unlink()
    history = run(5, resume=tmp_path / "run")
    assert history["epoch"] == [1, 2, 3, 4, 5]
    assert history["score"] == [0, 1, 2, 3, 4]
    assert read_csv(table) == as_written(history)
    assert read_json(lines) == history.epochs


def test_a_full_disk_leaves_whole_lines(blobs, tmp_path, monkeypatch):
    logger = JSONLinesLogger(tmp_path / "h.jsonl")

    class Full(Callback):
        def on_epoch_begin(self, trainer, epoch):
            if epoch == 3:
                monkeypatch.setattr("builtins.open", lambda *a, **k: HalfFull(real(*a, **k)))

    class HalfFull:
        def __init__(self, file):
            self.file, self.left = file, 10

        def write(self, data):
            if self.left == 0:
                raise OSError(errno.ENOSPC, "no space")
            written = self.file.write(data[: self.left])
            self.left = 0
            return written

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = open
    with monkeypatch.context(), pytest.raises(OSError, match="no space"):
        make().fit([blobs], 5, callbacks=[Full(), logger])
    monkeypatch.undo()
    assert [row["epoch"] for row in read_json(tmp_path / "h.jsonl")] == [1, 2]


def test_a_folder_that_cannot_be_made_is_told_before_training(blobs, tmp_path):
    (tmp_path / "file").touch()
    for logger in (CSVLogger, JSONLinesLogger):
        trainer = make()
        before = weights(trainer)
        with pytest.raises(OSError, match="file"):
            trainer.fit([blobs], 1, callbacks=[logger(tmp_path / "file" / "x")])
        assert weights(trainer) == before


# -- TensorBoard -------------------------------------------------------------------------------------------------------


def events(folder):
    """Return (step, name, value) of all scalars, by the format of TFRecord files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 12 + length + 4
        assert at == len(data)
    return found


def test_tensorboard(blobs, tmp_path):
    pytest.importorskip("tensorboardX", reason="needs tensorboardX to write events")
    folder = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        make().fit([blobs], 5, val=[blobs], callbacks=[TensorBoardLogger(folder), Fails(3)])
    assert {step for step, *_ in events(folder)} == {1, 2, 3}
    history = make().fit([blobs], 2, val=[blobs], callbacks=[TensorBoardLogger(tmp_path / "other")])
    expected = {(row["epoch"], name): value for row in history for name, value in row.items() if name != "epoch"}
    got = {(step, name): value for step, name, value in events(tmp_path / "other")}
    assert got == {at: np.float32(value) for at, value in expected.items()}


def test_tensorboard_missing_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"TensorBoardLogger: .*pip install 'pynn-cpu\[tensorboard\]'"):
        TensorBoardLogger(tmp_path)


# -- early stopping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "options", "epochs"),
    [
        ([5, 4, 3, 4, 5, 1], {"patience": 2}, 5),
        ([5, 4, 3, 4, 5, 1], {"patience": 3}, 6),
        ([5, 4, 3, 3, 3, 3], {"patience": 2}, 5),  # equal is not better
        ([5, 4.5, 4, 3.5, 3, 2.5], {"patience": 2, "min_delta": 0.5}, 6),  # every second one counts
        ([5, 4.75, 4.5, 3, 2, 1], {"patience": 2, "min_delta": 0.5}, 3),
        ([1, 2, 3, 2, 2, 9], {"patience": 2, "mode": "max"}, 5),
        ([math.nan, math.nan, 1, 2, 3, 4], {"patience": 2}, 2),
        ([3, math.nan, 2, math.nan, 1, math.nan], {"patience": 2}, 6),
        ([6, 5, 4, 3, 2, 1], {"patience": 1}, 6),
    ],
)
def test_when_it_stops(blobs, scores, options, epochs):
    stopping = EarlyStopping("score", **options)
    history = make().fit([blobs], 6, callbacks=[Scores(scores), stopping], restore_best=False)
    assert len(history) == epochs
    assert stopping.stopped_epoch == (epochs if epochs < 6 else None)


@pytest.mark.parametrize(
    "options",
    [{"patience": p} for p in (math.nan, 2.5, True, "3", None)] + [{"min_delta": d} for d in ("a", True, None)],
)
def test_numbers_that_are_none(options):
    ((name, value),) = options.items()
    with pytest.raises(TypeError, match=f"EarlyStopping: {name} is {value!r}, needs "):
        EarlyStopping(**options)


def test_numbers_of_numpy():
    stopping = EarlyStopping(patience=np.int64(2), min_delta=np.float32(0.5))
    assert (stopping.patience, stopping.min_delta) == (2, 0.5)


def test_the_first_of_two_decides_which_epoch_was_best(blobs):
    ups, downs = Scores([1, 2, 3, 4, 5, 6], "ups"), Scores([6, 5, 4, 5, 5, 5], "downs")
    first, second = EarlyStopping("ups", patience=9), EarlyStopping("downs", patience=2)
    history = make().fit([blobs], 6, callbacks=[ups, downs, first, second])
    assert (len(history), history.best_epoch, second.stopped_epoch) == (5, 1, 5)


def test_the_mode_follows_from_the_name():
    assert EarlyStopping("val_accuracy").mode == "max"
    assert EarlyStopping("val_loss").mode == "min"
    assert EarlyStopping("val_accuracy", mode="min").mode == "min"


@CAPTURE
def test_the_weights_of_its_best_epoch_are_restored(blobs, capture):
    kept = []

    class Keep(Callback):
        def on_epoch_end(self, trainer, row):
            kept.append(weights(trainer))

    trainer = make(capture=capture)
    # The validation would choose another epoch: its figures improve all the time.
    callbacks = [Scores([3, 1, 2, 2, 2], "val_own"), Keep(), EarlyStopping("val_own", patience=3)]
    history = trainer.fit([blobs], 9, val=[blobs], callbacks=callbacks)
    assert history["val_loss"] == sorted(history["val_loss"], reverse=True)
    assert (len(history), history.best_epoch) == (5, 2)
    assert weights(trainer) == kept[1]
    # Also without validation data, and not if that is declined.
    trainer, kept = make(capture=capture), []
    callbacks = [Scores([3, 1, 2, 2], "own"), Keep(), EarlyStopping("own", patience=2)]
    assert trainer.fit([blobs], 9, callbacks=callbacks).best_epoch == 2
    assert weights(trainer) == kept[1]
    assert trainer.fit([blobs], 9, callbacks=callbacks, restore_best=False).best_epoch is None
    assert weights(trainer) == kept[-1]


def test_it_says_why_it_stopped(blobs):
    lines = []
    make(verbose=True, log=lines.append, prefix="[x] ").fit(
        [blobs], 9, callbacks=[Scores([1] * 9), EarlyStopping("score", patience=1)]
    )
    assert [line[:13] for line in lines[:2]] == ["[x] epoch 1/9", "[x] epoch 2/9"]
    assert lines[2:] == ["[x] stopped after epoch 2: no better score for 1 epoch"]


def test_resume_waits_on_where_it_was(blobs, tmp_path):
    pytest.importorskip("safetensors")

    def run(epochs, scores=(5, 3, 4, 4, 4, 4, 4), **options):
        stopping = EarlyStopping("score", patience=3)
        trainer = make()
        loader = DataLoader(*blobs, batch_size=16, shuffle=True, seed=0)
        history = trainer.fit(loader, epochs, callbacks=[Scores(scores), stopping], **options)
        return len(history), history.best_epoch, stopping.stopped_epoch, weights(trainer)

    whole = run(9)
    assert whole[:3] == (5, 2, 5)
    run(4, checkpoint=tmp_path)
    assert run(9, checkpoint=tmp_path, resume=tmp_path) == whole
    assert run(9, resume=tmp_path) == whole  # it has stopped already
    from pynn.train import checkpoint_weights

    best = checkpoint_weights(tmp_path / "best.safetensors")
    assert {name: array.tobytes() for name, array in best.items()} == whole[3]


def test_bad_options(blobs):
    for options, message in (
        ({"patience": 0}, "EarlyStopping: patience is 0, needs at least 1"),
        ({"min_delta": -1}, "EarlyStopping: min_delta is -1"),
        ({"min_delta": math.nan}, "EarlyStopping: min_delta is nan"),
        ({"mode": "up"}, "EarlyStopping: mode is 'up', needs 'min' or 'max'"),
    ):
        with pytest.raises(ValueError, match=message):
            EarlyStopping(**options)
    with pytest.raises(ValueError, match="there is no 'val_loss' among the figures of epoch 1, which are epoch, loss"):
        make().fit([blobs], 3, callbacks=[EarlyStopping()])
