"""Arguments for every function of `_core`, each with the accuracy its arithmetic allows.

Float arrays are float64 whose values float32 holds exactly, so that both dtypes compute on the same numbers.
"""

from core_cases import attention, elementwise, gemm, loss, movement, norm, other, recurrent, reduction, spatial
from core_cases.case import CASES, Case, cast

__all__ = [
    "CASES",
    "RUNTIME",
    "Case",
    "attention",
    "cast",
    "elementwise",
    "gemm",
    "loss",
    "movement",
    "norm",
    "other",
    "recurrent",
    "reduction",
    "spatial",
]

# Functions without array arguments, with arrays of any dtype, or that take an object have tests of their own.
RUNTIME = {
    *("packed_linear", "packed_linear_backward"),
    *("take_rows", "as_int64", "equal", "count", "share"),
    *("info", "num_threads", "set_num_threads", "keep_awake", "kernel_counts", "reset_kernel_counts", "arena_stats"),
    *("peak_flops", "copy_rate", "empty"),
}
