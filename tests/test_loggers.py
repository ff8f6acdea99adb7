"""Callbacks that write: the files have the history, and whole lines only."""

import errno
import math
import struct
import sys

import numpy as np
import pytest
from callback_tools import Fails, Scores, make, read_csv, read_json, weights

from pynn.data import DataLoader
from pynn.train import Callback, CSVLogger, JSONLinesLogger, TensorBoardLogger


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
