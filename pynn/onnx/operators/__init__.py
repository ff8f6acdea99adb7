"""What each ONNX operator computes: differentiable ones by `pynn.functional`, those of shapes and integers by NumPy."""

from pynn.onnx.operators import elementwise, indexing, network, recurrent, reduction, resize, shape
from pynn.onnx.operators.registry import OPERATORS, Array, Node, Operator, Value

__all__ = [
    "OPERATORS",
    "Array",
    "Node",
    "Operator",
    "Value",
    "elementwise",
    "indexing",
    "network",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
