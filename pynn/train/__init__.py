"""Training: the loop with its progress line, history, callbacks, checkpoints, and clean ends on Ctrl-C and NaN."""

from pynn.train.callbacks import Callback, EarlyStopping
from pynn.train.checkpoint import checkpoint_weights
from pynn.train.history import History
from pynn.train.loggers import CSVLogger, JSONLinesLogger, TensorBoardLogger
from pynn.train.lr_finder import LRFinder, lr_find
from pynn.train.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLinesLogger",
    "LRFinder",
    "TensorBoardLogger",
    "Trainer",
    "checkpoint_weights",
    "lr_find",
]
