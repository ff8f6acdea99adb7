"""The training loop: what it computes, what it reports, and how it ends."""

import math

import numpy as np
import pytest
from training_tools import Scripted, make

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.functional import cross_entropy
from pynn.tape import is_grad_enabled
from pynn.train import Trainer


def weights(trainer):
    return trainer.model.state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


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


# -- NaN ---------------------------------------------------------------------------------------------------------------


def poisoned(model, name):
    state = model.state_dict()
    state[name].flat[0] = np.nan
    model.load_state_dict(state)
    return model


def test_nan_names_the_layer_behind_a_fused_pair(blobs):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    trainer = make(model=poisoned(model, "1.bias"))
    before = weights(trainer)
    with pytest.raises(
        FloatingPointError,
        match=r"^fit: the loss is nan in epoch 1, step 1: "
        r"layer '1' \(Linear\) is the first whose output is not finite, since its bias is not finite$",
    ):
        trainer.fit([blobs], 1)
    assert_same(weights(trainer), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_nan_in_a_nested_module_and_a_later_step(blobs):
    class Inner(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x)

    model = nn.Sequential(nn.Linear(3, 4), Inner())
    trainer = make(model=model)

    def loader():
        yield blobs
        yield blobs
        poisoned(model, "1.fc.weight")
        yield blobs

    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 3: layer '1\.fc' \(Linear\).*its weight is not finite"
    ):
        trainer.fit(loader(), 1)


def test_nan_after_a_divergence_blames_the_gradient(blobs):
    x, y = blobs
    trainer = make(lr=1e30)
    with pytest.raises(FloatingPointError, match=r"layer '\d' \(\w+\) is the first whose output is not finite"):
        trainer.fit(DataLoader(x * 1e10, y, batch_size=10), 3)


def test_nan_of_the_inputs_and_of_the_loss(blobs):
    x, y = blobs
    with pytest.raises(FloatingPointError, match="step 1: the inputs of the batch are not finite"):
        make().fit([(x * np.float32(np.nan), y)], 1)
    trainer = make(loss=lambda outputs, targets: cross_entropy(outputs, targets) * math.inf)
    with pytest.raises(FloatingPointError, match=r"loss is inf .*it comes from the loss function or the targets"):
        trainer.fit([blobs], 1)


# -- bad arguments -----------------------------------------------------------------------------------------------------


def test_bad_arguments(blobs):
    trainer = make()
    with pytest.raises(ValueError, match="fit: epochs is 0, needs at least 1"):
        trainer.fit([blobs], 0)
    with pytest.raises(TypeError, match=r"fit: epochs is 1\.5, needs an integer"):
        trainer.fit([blobs], 1.5)
    with pytest.raises(ValueError, match="fit: the loader has no batches in epoch 1"):
        trainer.fit([], 1)
    with pytest.raises(ValueError, match="fit: the loader has no batches in epoch 2"):
        trainer.fit(iter([blobs]), 2)
    with pytest.raises(ValueError, match="evaluate: the loader has no batches"):
        trainer.fit([blobs], 1, val=[])
    with pytest.raises(ValueError, match="fit: restore_best needs validation data"):
        trainer.fit([blobs], 1, restore_best=True)
    with pytest.raises(TypeError, match="fit: a batch has 3 entries"):
        trainer.fit([(*blobs, None)], 1)
    with pytest.raises(TypeError, match="evaluate: a batch is a ndarray"):
        trainer.evaluate([blobs[0]])
    with pytest.raises(ValueError, match="predict: there are no samples"):
        trainer.predict(blobs[0][:0])
    with pytest.raises(ValueError, match="predict: batch_size is 0"):
        trainer.predict(blobs[0], batch_size=0)
    with pytest.raises(ValueError, match="predict: got an array of shape"):
        trainer.predict(np.array(1, np.float32))
    with pytest.raises(TypeError, match=r"predict: batch_size is 1\.5, needs an integer"):
        trainer.predict(blobs[0], batch_size=1.5)
    with pytest.raises(TypeError, match=r"^predict: the inputs of a batch are a float, need an array \[N, ...\]"):
        trainer.predict(blobs[0].tolist())
    with pytest.raises(TypeError, match="fit: checkpoint is 3, needs a path"):
        trainer.fit([blobs], 1, checkpoint=3)
    with pytest.raises(TypeError, match="Trainer: the loss is a float, needs a scalar Tensor"):
        make(loss=lambda outputs, targets: 1.0).fit([blobs], 1)
    for what, call in {
        "fit: loader": lambda: trainer.fit(None, 1),
        "fit: val": lambda: trainer.fit([blobs], 1, val=3),
        "evaluate: loader": lambda: trainer.evaluate(None),
        "predict: data": lambda: trainer.predict(None),
    }.items():
        with pytest.raises(TypeError, match=f"^{what} is a (NoneType|int), needs an iterable of batches$"):
            call()


@pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])
def test_a_model_that_returns_several_things_is_refused_before_a_step(blobs, capture):
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(x), 0

    trainer = make(
        model=Twice(nn.Linear(3, 2)), loss=lambda outputs, targets: cross_entropy(outputs[0], targets), capture=capture
    )
    before = weights(trainer)
    for call in (lambda: trainer.fit([blobs], 1), lambda: trainer.evaluate([blobs]), lambda: trainer.predict(blobs[0])):
        with pytest.raises(TypeError, match=r"^Trainer: the model returns a tuple, needs a Tensor$"):
            call()
    assert_same(weights(trainer), before)


def test_plateau_of_an_accuracy_that_there_is_not(blobs):
    x, _ = blobs
    trainer = make(loss=nn.MSELoss(), scheduler=lambda o: optim.ReduceLROnPlateau(o, mode="max"))
    batches = [(x, x[:, :2])]
    for val, name in ((None, "accuracy"), (batches, "val_accuracy")):
        message = rf"^fit: ReduceLROnPlateau in mode 'max' needs class labels: epoch 1 has no '{name}'$"
        with pytest.raises(ValueError, match=message):
            trainer.fit(batches, 2, val=val)


def test_an_optimizer_of_another_model_is_refused():
    model, another = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(ValueError, match="Trainer: the optimizer has no parameter of the model"):
        Trainer(model, nn.MSELoss(), optim.SGD(another.parameters()))
    Trainer(model, nn.MSELoss(), optim.SGD([model.bias]))

    class Weighted(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter([1.0])

    loss = Weighted()
    Trainer(model, loss, optim.SGD(loss.parameters()))


def test_trainer_refuses_other_kinds_of_arguments():
    model, loss = nn.Linear(3, 2), nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for arguments, message in (
        ((model, nn.CrossEntropyLoss, optimizer), r"loss is the class CrossEntropyLoss, needs .*: CrossEntropyLoss\("),
        ((model, loss, optim.Adam), r"optimizer is the class Adam, needs an Optimizer: Adam\(...\)$"),
        ((nn.Linear, loss, optimizer), "model is the class Linear, needs a Module"),
        ((model, optimizer, loss), "loss is a SGD, needs a loss module or a function$"),
        ((optimizer, loss, model), "model is a SGD, needs a Module$"),
        ((model, loss, None), "optimizer is a NoneType, needs an Optimizer$"),
        ((model, loss, optimizer, 0.9), "scheduler is a float, needs an LRScheduler or None$"),
    ):
        with pytest.raises(TypeError, match=f"^Trainer: {message}"):
            Trainer(*arguments)
