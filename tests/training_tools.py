"""A small trainer and its weights, and a loader that does what a test tells it."""

import numpy as np

import pynn
from pynn import nn, optim
from pynn.train import Trainer


def make(lr=0.05, scheduler=None, model=None, loss=None, **options):
    pynn.seed(0)
    model = model or nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = optim.SGD(model.parameters(), lr=lr)
    options.setdefault("verbose", False)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, scheduler and scheduler(optimizer), **options)


def weights(trainer):
    return trainer.model.state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Scripted:
    """A loader that runs a list of actions, one per epoch, before its batches."""

    def __init__(self, batches, *actions):
        self.batches, self.actions = batches, list(actions)

    def __iter__(self):
        if self.actions:
            self.actions.pop(0)()
        yield from self.batches
