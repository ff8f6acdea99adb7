"""The training loop: what it computes, what it reports, and how it ends. See also test_trainer_errors.py."""

import math

import numpy as np
import pytest
from training_tools import Scripted, assert_same, make, weights

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.functional import cross_entropy
from pynn.tape import is_grad_enabled


def interrupt():
    raise KeyboardInterrupt


def nothing():
    pass


# -- what it computes --------------------------------------------------------------------------------------------------


def test_fit_is_the_plain_loop(blobs):
    trainer = make()
    trainer.fit(DataLoader(*blobs, batch_size=16, shuffle=True, seed=5), epochs=2)

    reference = make()
    loader = DataLoader(*blobs, batch_size=16, shuffle=True, seed=5)
    for _ in range(2):
        for x, y in loader:
            reference.optimizer.zero_grad()
            cross_entropy(reference.model(x), y).backward()
            reference.optimizer.step()
    assert_same(weights(trainer), weights(reference))


def test_history_has_the_means_over_samples(blobs):
    x, y = blobs
    trainer = make(lr=0.0)  # the weights stay, so the epoch's figures are those of the data
    history = trainer.fit(DataLoader(x, y, batch_size=16), epochs=2)  # the last batch has 12
    scores = trainer.model(x)
    assert history["loss"] == pytest.approx([cross_entropy(scores, y).item()] * 2, rel=1e-5)
    assert history["accuracy"] == [np.mean(scores.data.argmax(1) == y)] * 2
    assert history["epoch"] == [1, 2]
    assert history["lr"] == [0.0, 0.0]
    assert all(row["seconds"] > 0 and row["images_per_s"] > 0 for row in history)
    assert not history.interrupted
    assert history is trainer.history
    assert "2 epochs" in repr(history)


def test_training_learns_and_evaluate_agrees_with_predict(blobs):
    x, y = blobs
    trainer = make(lr=0.3)
    trainer.fit(DataLoader(x, y, batch_size=10, shuffle=True, seed=0), epochs=20)
    figures = trainer.evaluate(DataLoader(x, y, batch_size=7))
    assert figures["accuracy"] >= 0.95
    assert figures["accuracy"] == np.mean(trainer.predict(x).argmax(1) == y)
    assert figures["loss"] == pytest.approx(cross_entropy(pynn.tensor(trainer.predict(x)), y).item(), rel=1e-5)


def test_loss_without_labels_has_no_accuracy(blobs):
    x, _ = blobs
    trainer = make(loss=nn.MSELoss())
    loader = DataLoader(x, np.ones((len(x), 2), np.float32), batch_size=20)
    history = trainer.fit(loader, 1, val=loader)
    assert set(history.epochs[0]) == {"epoch", "loss", "val_loss", "lr", "seconds", "images_per_s"}
    assert history.best_epoch == 1


def test_one_score_for_each_sample_has_no_accuracy(blobs):
    def loss(outputs, targets):
        return ((outputs[:, 0] - targets.astype(np.float32)) ** 2).mean()

    x, y = blobs
    trainer = make(model=nn.Sequential(nn.Linear(3, 1)), loss=loss, capture=False)
    assert trainer.evaluate([(x, y)]).keys() == {"loss"}
    assert "accuracy" not in trainer.fit([(x, y)], 1).epochs[0]


def test_evaluate_and_predict_use_evaluation_mode_without_tape(blobs):
    x, y = blobs
    seen = []

    class Probe(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 2)
            self.frozen = nn.Dropout(0.5).eval()

        def forward(self, x):
            seen.append((self.training, is_grad_enabled()))
            return self.frozen(self.layer(x))

    trainer = make(model=Probe(), capture=False)
    trainer.evaluate([(x, y)])
    trainer.predict(x)
    assert seen == [(False, False)] * 2
    assert trainer.model.training
    assert not trainer.model.frozen.training
    assert is_grad_enabled()


class Reshaped(nn.Sequential):
    """Takes arrays and tensors only, which lists have to become before."""

    def forward(self, x):
        return super().forward(x.reshape(-1, 3))


def test_lists_are_captured_as_the_arrays_of_their_dtype(blobs):
    x, y = blobs
    trainer = make(model=Reshaped(nn.Linear(3, 2)))
    trainer.fit([(x.tolist(), y.tolist())], 1)
    assert trainer.capture
    expected = make(model=Reshaped(nn.Linear(3, 2)))
    assert trainer.history["loss"] == expected.fit([blobs], 1)["loss"]
    trainer.model[0].bias.data[0] = np.nan
    with pytest.raises(FloatingPointError, match=r"layer '0' \(Linear\) is the first whose output is not finite"):
        trainer.fit([(x.tolist(), y.tolist())], 1)


def test_lists_that_no_array_can_be_reach_a_forward_that_is_not_captured(blobs):
    x, y = blobs

    class Two(nn.Sequential):
        def forward(self, pair):
            return super().forward(np.concatenate(pair))

    trainer = make(model=Two(nn.Linear(3, 2)), capture=False)
    assert trainer.fit([([x[:20], x[20:]], y)], 1)["accuracy"][0] >= 0


def test_predict_of_every_kind_of_input(blobs):
    x, y = blobs
    trainer = make()
    expected = trainer.predict(x)
    assert expected.shape == (60, 2)
    np.testing.assert_allclose(trainer.predict(x, batch_size=7), expected, rtol=1e-5)
    np.testing.assert_array_equal(trainer.predict(pynn.tensor(x)), expected)
    np.testing.assert_array_equal(trainer.predict([(x, y)]), expected)
    np.testing.assert_array_equal(trainer.predict([x]), expected)


# -- schedulers --------------------------------------------------------------------------------------------------------


def test_scheduler_of_steps_and_of_epochs(blobs):
    loader = DataLoader(*blobs, batch_size=20)  # 3 steps in an epoch
    by_step = make(scheduler=lambda o: optim.CosineWarmupLR(o, total_steps=6))
    by_step.fit(loader, 2)
    assert by_step.scheduler.step_count == 6
    by_epoch = make(lr=1.0, scheduler=lambda o: optim.StepLR(o, step_size=1, gamma=0.5))
    assert by_epoch.fit(loader, 3)["lr"] == [1.0, 0.5, 0.25]
    assert by_epoch.scheduler.step_count == 3


@pytest.mark.parametrize(("mode", "name"), [("min", "loss"), ("max", "accuracy")])
@pytest.mark.parametrize("with_val", [True, False])
def test_plateau_gets_the_metric(blobs, monkeypatch, mode, name, with_val):
    trainer = make(scheduler=lambda o: optim.ReduceLROnPlateau(o, mode=mode))
    given = []
    monkeypatch.setattr(trainer.scheduler, "step", given.append)
    loader = DataLoader(*blobs, batch_size=20)
    history = trainer.fit(loader, 2, val=loader if with_val else None)
    assert given == history[f"val_{name}" if with_val else name]


# -- best weights and Ctrl-C -------------------------------------------------------------------------------------------


def spoil(trainer):
    """Return an action that makes the model bad."""

    def action():
        last = trainer.model[2]
        last.load_state_dict({"weight": -10 * np.ones((2, 4), np.float32), "bias": np.array([9, -9], np.float32)})

    return action


def test_best_weights_are_restored(blobs):
    trainer = make(lr=0.1)
    val = DataLoader(*blobs, batch_size=60)
    kept = []
    loader = Scripted([blobs], nothing, lambda: kept.append(weights(trainer)), spoil(trainer))
    # Accuracy rises or stays to epoch 2; the third epoch begins with bad weights.
    history = trainer.fit(loader, 3, val=val)
    assert history["val_loss"][2] > max(history["val_loss"][:2])
    assert history.best_epoch in (1, 2)
    expected = {name: history[f"val_{name}"][history.best_epoch - 1] for name in ("loss", "accuracy")}
    assert trainer.evaluate(val) == expected
    if history.best_epoch == 1:
        assert_same(weights(trainer), kept[0])


def test_restore_best_can_be_declined(blobs):
    trainer = make(lr=0.1)
    val = DataLoader(*blobs, batch_size=60)
    history = trainer.fit(Scripted([blobs], nothing, spoil(trainer)), 2, val=val, restore_best=False)
    assert history.best_epoch is None
    assert trainer.evaluate(val)["loss"] == history["val_loss"][1]


def test_best_prefers_accuracy_then_loss_and_never_nan():
    from pynn.train.best import BestWeights

    best = BestWeights(nn.Linear(1, 1))
    rows = [(0.5, math.nan), (0.5, 1.0), (0.5, 0.9), (0.4, 0.1), (0.6, 5.0), (0.9, math.nan), (0.6, 5.0)]
    epochs = []
    for epoch, (accuracy, loss) in enumerate(rows, 1):
        best.offer({"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss})
        epochs.append(best.restore())
    assert epochs == [None, 2, 3, 3, 5, 5, 5]


def test_ctrl_c_returns_the_history_and_keeps_the_weights(blobs):
    trainer = make()
    after_first = []
    loader = Scripted([blobs], nothing, lambda: (after_first.append(weights(trainer)), interrupt()))
    history = trainer.fit(loader, 5)
    assert history.interrupted
    assert len(history) == 1
    assert_same(weights(trainer), after_first[0])


def test_ctrl_c_within_an_epoch_restores_the_best(blobs):
    trainer = make()
    val = DataLoader(*blobs, batch_size=60)

    class Loader:
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            yield blobs
            if self.epoch == 2:
                interrupt()

    history = trainer.fit(Loader(), 5, val=val)
    assert history.interrupted
    assert history.best_epoch == 1
    assert trainer.evaluate(val)["loss"] == history["val_loss"][0]


def test_ctrl_c_in_the_first_step_and_in_the_validation(blobs):
    lines = []
    trainer = make(verbose=True, log=lines.append, prefix="[x] ")
    before = weights(trainer)
    history = trainer.fit(Scripted([blobs], interrupt), 3, val=[blobs])
    assert (history.interrupted, len(history), history.best_epoch) == (True, 0, None)
    assert_same(weights(trainer), before)
    assert lines == ["[x] interrupted in epoch 1/3"]
    history = trainer.fit([blobs], 3, val=Scripted([blobs], interrupt))
    assert (history.interrupted, len(history)) == (True, 0)
    assert trainer.model.training
    assert is_grad_enabled()
