"""The `onnx` package, which is an extra."""

from __future__ import annotations

import importlib
from typing import Any


def import_onnx(operation: str) -> Any:
    """Return the package `onnx` with the modules used here; ImportError names the extra that brings it."""
    try:
        for module in ("checker", "defs", "external_data_helper", "helper", "inliner", "numpy_helper"):
            importlib.import_module(f"onnx.{module}")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(f"{operation}: needs the onnx package: pip install 'pynn-cpu[onnx]'") from error


def decode_error() -> type[Exception]:
    """Return what protobuf raises for bytes that are no message."""
    error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    return error
