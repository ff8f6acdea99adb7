"""What the training loop refuses: numbers that are not finite, and arguments that do not fit."""

import math

import numpy as np
import pytest
from training_tools import assert_same, make, weights

from pynn import nn, optim
from pynn.data import DataLoader
from pynn.functional import cross_entropy
from pynn.train import Trainer

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
    with pytest.raises(TypeError, match=r"^fit: epochs is array\(.{,24}\), needs an integer$"):
        trainer.fit(blobs[0], np.arange(500))  # as in scikit-learn: not 500 numbers in the message
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
    with pytest.raises(TypeError, match=r"fit: checkpoint is a int, needs a str or an os\.PathLike"):
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


def test_an_optimizer_without_a_learning_rate_is_refused():
    class Unrated(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"^Trainer: Unrated has no option 'lr', which goes into the history$"):
        Trainer(model, nn.MSELoss(), Unrated(model.parameters()))


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
