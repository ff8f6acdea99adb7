"""Callbacks of `Trainer.fit`: when they are called, and that they change nothing."""

import pytest
from callback_tools import CAPTURE, Fails, Notes, make, read_csv, read_json, weights

from pynn.data import DataLoader
from pynn.train import Callback, CSVLogger, EarlyStopping, JSONLinesLogger


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
