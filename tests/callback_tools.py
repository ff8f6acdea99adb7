"""What the tests of callbacks share: a small training, and callbacks that note, score and fail."""

import csv
import json
import math

import pytest

import pynn
from pynn import nn, optim
from pynn.train import Callback, Trainer

CAPTURE = pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])


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


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
