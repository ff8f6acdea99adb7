"""What the tests of checkpoints share: to read one, to change one, and to go on from one in a new process."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import pynn
from pynn.serialize import load, save

SCRIPT = Path(__file__).with_name("checkpointed_run.py")


def contents(path):
    """Return all of a checkpoint that does not depend on the clock: bytes of the arrays, and the rest."""
    arrays, metadata = load(path)
    rest = json.loads(metadata["training"])
    for row in rest["history"]:
        del row["seconds"], row["images_per_s"]
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}, rest


def epochs_of(path):
    return len(contents(path)[1]["history"])


def position_of(path):
    """Return the number of finished epochs, and of the steps of the one after."""
    rest = contents(path)[1]
    return len(rest["history"]), rest["epoch"]["totals"]["batches"] if rest["epoch"] else 0


def child(folder, epochs, how, every=None):
    """Go on with a training in a new process."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(folder), str(epochs), how, *([] if every is None else [str(every)])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(pynn.__file__).parents[1])},
    )


def state_of(trainer, *loaders):
    """Return everything that a checkpoint could change."""
    optimizer = trainer.optimizer.state_dict()
    return copy.deepcopy(
        (
            {name: array.tobytes() for name, array in trainer.model.state_dict().items()},
            {
                (number, name): np.asarray(value).tobytes()
                for number, state in optimizer["state"].items()
                for name, value in state.items()
            },
            optimizer["param_groups"],
            trainer.scheduler.state_dict(),
            [loader.state_dict() for loader in loaders],
            pynn.random.get_rng_state(),
            trainer.history.epochs,
        )
    )


def edited(path, to, arrays=None, **entries):
    """Write a copy of a checkpoint with other arrays or entries."""
    stored, metadata = load(path)
    rest = {**json.loads(metadata["training"]), **entries}
    save(to, {**stored, **(arrays or {})}, {**metadata, "training": json.dumps(rest)})
    return to
