"""Models to and from ONNX files; needs the extra `onnx`."""

from pynn.onnx.exporter import export

__all__ = ["export"]
