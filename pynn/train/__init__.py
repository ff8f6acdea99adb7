"""Training: the loop with its progress line, history, checkpoints, and clean ends on Ctrl-C and NaN."""

from pynn.train.checkpoint import checkpoint_weights
from pynn.train.history import History
from pynn.train.trainer import Trainer

__all__ = ["History", "Trainer", "checkpoint_weights"]
