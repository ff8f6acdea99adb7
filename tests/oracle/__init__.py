"""The NumPy twin of `pynn._core`: every function of `_core.pyi`, written to be read, not to be fast.

Each function computes in the dtype of its arguments; tests call it with float64 to get the value a kernel should
approximate. Shapes and rules are stated once, in `_core.pyi`. It trusts its arguments: bad input is the core's affair.
"""
# ruff: noqa: F403

from oracle.attention import *
from oracle.elementwise import *
from oracle.gemm import *
from oracle.losses import *
from oracle.norm import *
from oracle.optim import *
from oracle.packed import *
from oracle.philox import *
from oracle.recurrent import *
from oracle.reduce import *
from oracle.runtime import *
from oracle.shape import *
from oracle.spatial import *
