"""`EarlyStopping`: when it stops, and which weights are left."""

import math

import numpy as np
import pytest
from callback_tools import CAPTURE, Scores, make, weights

from pynn.data import DataLoader
from pynn.train import Callback, EarlyStopping


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


def test_epochs_before_a_resume_may_lack_the_figure(blobs, tmp_path):
    pytest.importorskip("safetensors")
    make().fit([blobs], 2, checkpoint=tmp_path)
    stopping = EarlyStopping("score", patience=2)
    history = make().fit([blobs], 9, resume=tmp_path, callbacks=[Scores([0, 0, 2, 1, 1, 2, 2]), stopping])
    assert (len(history), history.best_epoch, stopping.stopped_epoch) == (6, 4, 6)
    with pytest.raises(ValueError, match="there is no 'val_loss' among the figures of epoch 3"):
        make().fit([blobs], 9, resume=tmp_path, callbacks=[EarlyStopping()])


def test_bad_options(blobs):
    for options, message in (
        ({"patience": 0}, "EarlyStopping: patience is 0, needs at least 1"),
        ({"min_delta": -1}, "EarlyStopping: min_delta is -1"),
        ({"min_delta": math.nan}, "EarlyStopping: min_delta is nan"),
        ({"mode": "up"}, "EarlyStopping: mode is 'up', needs 'min' or 'max'"),
    ):
        with pytest.raises(ValueError, match=message):
            EarlyStopping(**options)
    with pytest.raises(TypeError, match="EarlyStopping: monitor is 3, needs the name of a figure, such as 'val_loss'"):
        EarlyStopping(3)
    with pytest.raises(ValueError, match="there is no 'val_loss' among the figures of epoch 1, which are epoch, loss"):
        make().fit([blobs], 3, callbacks=[EarlyStopping()])
