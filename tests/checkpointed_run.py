"""A training with everything that must come back from a checkpoint; as a program, it goes on with one.

`python checkpointed_run.py FOLDER EPOCHS captured|eager [EVERY]` writes the checkpoints into FOLDER, also after EVERY
steps, and the weights that the training ends with into FOLDER/final.safetensors.
"""

import sys
from pathlib import Path

import numpy as np

import pynn
from pynn import nn, optim
from pynn.data import DataLoader
from pynn.serialize import save
from pynn.train import Trainer

TOTAL_EPOCHS = 5000  # of the schedule


def noisy(x, y):
    return x + pynn.random.generator().normal(size=x.shape).astype(np.float32), y


def make(capture=True, seed=0, width=8):
    pynn.seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    loader = DataLoader(x, y, batch_size=16, shuffle=True, transform=noisy)
    optimizer = optim.Adam(model.parameters())
    scheduler = optim.OneCycleLR(optimizer, 0.01, total_steps=TOTAL_EPOCHS * len(loader))
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, scheduler, verbose=False, capture=capture)
    return trainer, loader, DataLoader(x[:20], y[:20], batch_size=20)


def go_on(folder, epochs, capture, seed=0, every=None, callbacks=()):
    trainer, loader, val = make(capture, seed)
    resume = folder if (folder / "last.safetensors").exists() else None
    trainer.fit(loader, epochs, val=val, callbacks=callbacks, checkpoint=folder, checkpoint_every=every, resume=resume)
    return trainer


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print("ready", flush=True)
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else None
    result = go_on(place, int(sys.argv[2]), sys.argv[3] == "captured", seed=99, every=steps)  # nothing from the seed
    save(place / "final.safetensors", result.model.state_dict())
