"""Single numbers and flags among the arguments: one wording of what is refused, of an array its ends."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

import numpy as np


def whole(what: str, value: Any, least: int | None = None) -> int:
    """Return `value` as an int: TypeError for what is none, and for bool, ValueError below `least`.

    >>> whole("make_moons: n", 0, 1)
    Traceback (most recent call last):
    ValueError: make_moons: n is 0, needs at least 1
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{what} is {reprlib.repr(value)}, needs an integer")
    if least is not None and number < least:
        raise ValueError(f"{what} is {number}, needs at least {least}")
    return number


def real(what: str, value: Any, least: float = -math.inf, below: float = math.inf) -> float:
    """Return `value`: TypeError for what is no number, and for bool, ValueError unless finite and in [least, below).

    >>> real("make_moons: noise", "a")
    Traceback (most recent call last):
    TypeError: make_moons: noise is 'a', needs a number
    """
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"{what} is {reprlib.repr(value)}, needs a number")
    try:
        number = float(value)
    except OverflowError:  # of an integer
        number = math.inf
    if not (-math.inf < number < below and number >= least):
        needs = "a finite number" + (f" of at least {least}" if least > -math.inf else "")
        raise ValueError(f"{what} is {value}, needs {needs}" + (f" and less than {below}" if below < math.inf else ""))
    return number


def flag(name: str, argument: str, value: bool) -> bool:
    """Return `value` as a bool; TypeError for what is neither that nor 0 or 1."""
    if type(value) is bool:
        return value
    if isinstance(value, (np.bool_, int, np.integer)) and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name}: {argument} must be True or False, got {reprlib.repr(value)}")
