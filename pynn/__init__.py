"""pynn: a small, fast, CPU-first neural-network training library.

>>> import pynn
>>> x = pynn.tensor([1.0, 2.0, 3.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
array([2., 4., 6.], dtype=float32)
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any

try:
    if importlib.util.find_spec("pynn._core") is None:
        raise ImportError(
            f"pynn: {__path__[0]} holds sources without a compiled core, and hides an installed pynn; run Python from "
            "another folder or as `python -P`, or compile in place with `pip install -e .`"
        )
    from pynn import _core
except ImportError as error:  # also of PYNN_ISA and PYNN_NUM_THREADS
    program = "".join(sys.argv[:1])
    as_module = program == "-m" and ("-m", "pynn") in itertools.pairwise(sys.orig_argv)
    if as_module or os.path.basename(program) == "pynn":
        print(f"pynn: error: {str(error).removeprefix('pynn: ')}", file=sys.stderr)
        sys.exit(2)  # the command, as with other bad input
    raise

from pynn import functional, tape
from pynn._core import num_threads, set_num_threads
from pynn._version import __version__
from pynn.creation import arange, ones, randn, tensor, zeros
from pynn.dlpack import from_dlpack
from pynn.random import seed
from pynn.sampling import categorical, multinomial
from pynn.tape import grad, no_grad
from pynn.tensor import Tensor

if TYPE_CHECKING:
    from pynn import data, debug, graph, nn, onnx, optim, serialize, sklearn, train, viz
    from pynn.guarded import CaptureError
    from pynn.replay import capture

__all__ = [
    "CaptureError",
    "Tensor",
    "__version__",
    "arange",
    "capture",
    "categorical",
    "data",
    "debug",
    "from_dlpack",
    "functional",
    "grad",
    "graph",
    "info",
    "multinomial",
    "nn",
    "no_grad",
    "num_threads",
    "ones",
    "onnx",
    "optim",
    "randn",
    "seed",
    "serialize",
    "set_num_threads",
    "sklearn",
    "tape",
    "tensor",
    "train",
    "viz",
    "zeros",
]

# Imported on first use: `import pynn` stays quick.
_LAZY = ("data", "debug", "graph", "nn", "onnx", "optim", "serialize", "sklearn", "train", "viz")
_LAZY_NAMES = {"capture": "pynn.replay", "CaptureError": "pynn.guarded"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"pynn.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(f"module 'pynn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def info() -> dict[str, Any]:
    """Return versions, instruction set, compiler and threads, for bug reports.

    >>> import pynn
    >>> pynn.info()["pynn"] == pynn.__version__
    True
    """
    import platform

    import numpy

    return {
        "pynn": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        **_core.info(),
    }
