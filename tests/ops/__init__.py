"""The table of operations: for each public one its oracle, its accuracy, sample inputs, and inputs it must refuse."""

from ops import attention, conv, elementwise, linear, loss, norm, recurrent, reduction, resize, shape
from ops.row import OPS, Bad, Call, Op

__all__ = [
    "OPS",
    "Bad",
    "Call",
    "Op",
    "attention",
    "conv",
    "elementwise",
    "linear",
    "loss",
    "norm",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
