"""Models to and from ONNX files; needs the extra `onnx`."""

from pynn.onnx.exporter import export
from pynn.onnx.graph import GraphModule
from pynn.onnx.loader import load

__all__ = ["GraphModule", "export", "load"]
