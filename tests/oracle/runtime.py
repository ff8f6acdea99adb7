"""Runtime questions, answered as a single-threaded core without an arena would."""

import numpy as np

_threads = 1


def info():
    return {
        "isa": "numpy",
        "isas": ["numpy"],
        "compiler": "",
        "num_threads": _threads,
        "max_threads": 1,
    }


def num_threads():
    return _threads


def set_num_threads(n):
    global _threads
    if n < 1:
        raise ValueError(f"set_num_threads: got {n}, needs at least 1")
    _threads = n


def kernel_counts():
    return {}


def keep_awake():
    pass


def reset_kernel_counts():
    pass


def arena_stats():
    return {"bytes_reserved": 0, "bytes_in_use": 0, "blocks_in_use": 0}


def peak_flops():
    return 1.0


def copy_rate(nbytes):
    if nbytes < 1:
        raise ValueError(f"copy_rate: nbytes is {nbytes}, needs at least 1")
    return 1.0


def empty(shape, dtype):
    return np.empty(shape, dtype)
