"""Training: the loop with its progress line, history, and clean ends on Ctrl-C and NaN."""

from pynn.train.history import History
from pynn.train.trainer import Trainer

__all__ = ["History", "Trainer"]
