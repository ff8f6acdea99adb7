"""The functions of the core while a captured function is recorded: what they are, and what stands in their place."""

from __future__ import annotations

import functools
import threading
from typing import Any

from pynn import _core
from pynn.grad_mode import mode

__all__ = ["CHECKS", "IN_PLACE", "OPERATIONS", "READS", "UPDATES", "start", "stop"]

# What the core offers that is no computation.
_NOT_CALLS = {
    "info",
    "num_threads",
    "set_num_threads",
    "keep_awake",
    "kernel_counts",
    "reset_kernel_counts",
    "arena_stats",
    "empty",
    "peak_flops",
    "copy_rate",
}
OPERATIONS = [
    name
    for name, value in vars(_core).items()
    if callable(value) and name not in _NOT_CALLS and name[0] in "abcdefghijklmnopqrstuvwxyz"
]
IN_PLACE = {
    "sgd_": (0, 2),
    "adam_": (0, 2, 3),
    "rmsprop_": (0, 2, 3, 4),
    "adagrad_": (0, 2),
    "adadelta_": (0, 2, 3),
    "scale_": (0,),
    "clip_norm_": (0,),
    "batch_norm": (3, 4),
}  # which arguments these write
UPDATES = {"sgd_", "adam_", "rmsprop_", "adagrad_", "adadelta_"}  # of lists: parameters, gradients, states; no result
READS = {"l2_norm": "clip_grad_norm_"}
CHECKS = {"require_finite"}  # raise, and have no result


def _intercepted(name: str, *args: Any) -> Any:
    recorder, original = mode.recorder, _originals[name]
    return original(*args) if recorder is None else recorder.call(name, original, args)  # None in other threads


_INTERCEPTORS = {name: functools.partial(_intercepted, name) for name in OPERATIONS}
_intercepting = threading.Lock()  # one function is captured at a time
_originals: dict[str, Any] = {}


def start() -> dict[str, Any]:
    """Let `mode.recorder` of a thread have what it asks of the core, until `stop`; return the core's functions."""
    global _originals
    _intercepting.acquire()
    try:
        _originals = vars(_core).copy()
        vars(_core).update(_INTERCEPTORS)
    except BaseException:  # Ctrl-C
        stop()
        raise
    return _originals


def stop() -> None:
    """Put the core's functions back."""
    try:
        vars(_core).update(_originals)
    finally:
        _intercepting.release()
