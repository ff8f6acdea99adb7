"""A loss with parameters and buffers of its own: it is trained, saved, restored and put back as the model is."""

import copy
import json

import numpy as np
import pytest
from callback_tools import CAPTURE, Scores

import pynn
from pynn import nn, optim
from pynn.functional import cross_entropy
from pynn.serialize import load, save
from pynn.train import EarlyStopping, Trainer, lr_find


class Scaled(nn.Module):
    """Cross entropy at a temperature that is learned."""

    def __init__(self, name="scale"):
        self.name = name
        self.add_module("inner", nn.Module())
        setattr(self, name, nn.Parameter([1.0]))
        self.register_buffer("constant", np.ones(1, np.float32))

    def forward(self, outputs, targets):
        return cross_entropy(outputs * getattr(self, self.name), targets)


def make(loss=None, frozen=False, **options):
    pynn.seed(0)
    model = nn.Linear(3, 2)
    loss = loss or Scaled()
    own = [] if frozen else loss.parameters()
    optimizer = optim.SGD([*model.parameters(), *own], lr=0.3, momentum=0.9)
    return Trainer(model, loss, optimizer, verbose=False, **options)


def state(trainer):
    both = (trainer.model, trainer.loss)
    return (
        [{name: array.tobytes() for name, array in module.state_dict().items()} for module in both],
        [None if p.grad is None else p.grad.tobytes() for module in both for p in module.parameters()],
        [part.training for module in both for part in module.modules()],
        copy.deepcopy([trainer.optimizer.param_groups[0]["lr"], trainer.history.epochs, pynn.random.get_rng_state()]),
    )


@CAPTURE
def test_resume_goes_on_bit_for_bit(blobs, tmp_path, capture):
    pytest.importorskip("safetensors")
    whole, stopped, resumed = (make(capture=capture) for _ in range(3))
    whole.fit([blobs], 5)
    stopped.fit([blobs], 3, checkpoint=tmp_path)
    resumed.fit([blobs], 5, resume=tmp_path)
    assert state(resumed)[0] == state(whole)[0]
    assert whole.loss.scale.item() != 1
    assert resumed.capture == capture


@CAPTURE
def test_the_best_weights_are_with_those_of_the_loss(blobs, tmp_path, capture):
    pytest.importorskip("safetensors")
    callbacks = [Scores([3, 1, 2, 2]), EarlyStopping("score")]
    best, trainer, resumed = (make(capture=capture) for _ in range(3))
    best.fit([blobs], 2)
    assert trainer.fit([blobs], 4, callbacks=callbacks, checkpoint=tmp_path).best_epoch == 2
    assert state(trainer)[0] == state(best)[0]
    assert resumed.fit([blobs], 4, callbacks=callbacks, resume=tmp_path).best_epoch == 2
    assert state(resumed)[0] == state(best)[0]


@CAPTURE
def test_lr_find_puts_it_back(blobs, capture):
    trainer = make(capture=capture)
    trainer.fit([blobs], 1)
    trainer.loss.inner.eval()
    before = state(trainer)
    lr_find(trainer, [blobs], num_steps=10, max_lr=1.0)
    assert state(trainer) == before


def test_a_checkpoint_of_another_loss_changes_nothing(blobs, tmp_path):
    pytest.importorskip("safetensors")
    plain, scaled, older = tmp_path / "plain", tmp_path / "scaled", tmp_path / "older.safetensors"
    make(nn.CrossEntropyLoss()).fit([blobs], 2, checkpoint=plain)
    make(frozen=True).fit([blobs], 2, checkpoint=scaled)
    arrays, metadata = load(scaled / "last.safetensors")
    assert json.loads(metadata["training"])["history"]
    save(older, {name: array for name, array in arrays.items() if not name.startswith("loss.")}, metadata)
    has = r"was written with a loss of these parameters and buffers: {}; this training's loss has: {}$"
    for path, loss, then, now in (
        (plain, Scaled(), "none", "scale, constant"),
        (older, Scaled(), "none", "scale, constant"),
        (scaled, Scaled("factor"), "(scale, constant|constant, scale)", "factor, constant"),
        (scaled, nn.CrossEntropyLoss(), "(scale, constant|constant, scale)", "none"),
    ):
        trainer = make(loss, frozen=True)
        trainer.fit([blobs], 1)
        before = state(trainer)
        with pytest.raises(ValueError, match=f"^fit: resume: .*{path.name} {has.format(then, now)}"):
            trainer.fit([blobs], 3, resume=path)
        assert state(trainer) == before
    trainer = make(frozen=True)
    trainer.loss.constant = np.ones(2, np.float32)
    before = state(trainer)
    with pytest.raises(ValueError, match=r"Scaled is unchanged: constant has shape \[1\], the model needs \[2\]"):
        trainer.fit([blobs], 3, resume=scaled)
    assert state(trainer) == before
    # A loss that has nothing to keep needs nothing of the file, whether it is a module or a function.
    assert len(make(nn.CrossEntropyLoss()).fit([blobs], 3, resume=plain)) == 3
    trainer = make(nn.CrossEntropyLoss())
    trainer.loss = cross_entropy
    assert len(trainer.fit([blobs], 3, resume=plain)) == 3
