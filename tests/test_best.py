"""The best weights: which they are, and that they come back whatever ends the training."""

import math
import sys

import numpy as np
import pytest
from callback_tools import Fails, Scores, make, weights

from pynn import nn
from pynn.data import DataLoader
from pynn.train import Callback, EarlyStopping, checkpoint_weights
from pynn.train.best import BestWeights


def test_ctrl_c_anywhere_keeps_weights_and_epoch_together():
    def offer(best, epoch, line):
        """Return whether Ctrl-C came, before this line."""

        def trace(frame, event, _):
            if frame.f_code is not BestWeights.offer.__code__:
                return None
            if event == "line" and frame.f_lineno == line:
                raise KeyboardInterrupt
            return trace

        best._model.load_state_dict({"weight": [[float(epoch)]], "bias": [0.0]})
        sys.settrace(trace)
        try:
            best.offer({"epoch": epoch, "val_loss": 1 / epoch})
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    first = BestWeights.offer.__code__.co_firstlineno
    came = 0
    for line in range(first, first + 12):
        best = BestWeights(nn.Linear(1, 1))
        offer(best, 1, None)
        came += offer(best, 2, line)
        assert best._model.weight.item() == 2
        assert best.restore() == best._model.weight.item()
    assert came >= 2


@pytest.mark.parametrize("first", [0.2, math.nan])
def test_resume_with_another_figure_compares_by_that_one(blobs, tmp_path, first):
    pytest.importorskip("safetensors")
    scores = Scores([first, 0.3, 0.1, 0.4])
    make().fit([blobs], 2, val=[blobs], checkpoint=tmp_path, callbacks=[scores])
    history = make().fit(
        [blobs], 4, val=[blobs], checkpoint=tmp_path, resume=tmp_path, callbacks=[scores, EarlyStopping("score")]
    )
    assert history.best_epoch == 3
    # Back to the accuracy, and among equal ones the loss, which falls.
    trainer = make()
    history = trainer.fit([blobs], 5, val=[blobs], checkpoint=tmp_path, resume=tmp_path)
    assert history["val_accuracy"][-1] == max(history["val_accuracy"])
    assert history["val_loss"] == sorted(history["val_loss"], reverse=True)
    assert history.best_epoch == 5
    best = checkpoint_weights(tmp_path / "best.safetensors")
    assert {name: array.tobytes() for name, array in best.items()} == weights(trainer)


def test_resume_with_a_figure_that_the_best_epoch_lacks_begins_anew(blobs, tmp_path):
    pytest.importorskip("safetensors")
    make().fit([blobs], 2, checkpoint=tmp_path, callbacks=[EarlyStopping("loss")])
    assert make().fit([blobs], 2, val=[blobs], resume=tmp_path).best_epoch is None
    assert make().fit([blobs], 4, val=[blobs], resume=tmp_path).best_epoch == 4


@pytest.mark.parametrize("when", ["on_epoch_begin", "on_epoch_end"])
def test_an_exception_restores_them_before_the_callbacks_hear_of_the_end(blobs, when):
    at_end = []

    class Notes(Callback):
        def on_train_end(self, trainer):
            at_end.append(weights(trainer))

    best, trainer = make(), make()
    best.fit([blobs], 2)
    callbacks = [Notes(), Scores([3, 1, 2, 2]), EarlyStopping("score"), Fails(3, when=when)]
    with pytest.raises(ZeroDivisionError):
        trainer.fit([blobs], 5, callbacks=callbacks)
    assert at_end == [weights(best)] == [weights(trainer)]
    assert (len(trainer.history), trainer.history.best_epoch) == (3, 2)
    with pytest.raises(ZeroDivisionError):
        trainer.fit([blobs], 5, callbacks=callbacks, restore_best=False)
    assert trainer.history.best_epoch is None


def test_a_loss_that_is_not_finite_is_explained_by_the_weights_that_gave_it(blobs):
    x, y = blobs
    trainer = make()
    model = trainer.model

    def loader():
        yield x, y
        if trainer.history.epochs:
            model.load_state_dict({**model.state_dict(), "2.bias": np.full(2, np.nan, np.float32)})

    class Loader:
        __iter__ = staticmethod(loader)

    with pytest.raises(FloatingPointError, match=r"in epoch 3, step 1: layer '2' .* its bias is not finite"):
        trainer.fit(Loader(), 5, val=DataLoader(x, y, batch_size=60))
