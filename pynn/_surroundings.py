"""What a function takes from around it: variables of enclosing functions and of its module, attributes of its owner."""

from __future__ import annotations

import dis
import functools
import sys
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

SIMPLE = (bool, int, float, str)

# From 3.12 on `dis` also has numbers above 255, of instructions that only the compiler uses.
_ATTRIBUTES = [name for name in ("LOAD_ATTR", "LOAD_METHOD") if dis.opmap.get(name, 256) < 256]
_EXTENDED_ARG = dis.opmap["EXTENDED_ARG"]
_FLAGGED = {"LOAD_GLOBAL", "LOAD_ATTR"} if sys.version_info >= (3, 12) else {"LOAD_GLOBAL"}  # the lowest bit is a flag


def surroundings(
    function: FunctionType, owner: Any
) -> tuple[list[tuple[Any, str, Any]], list[tuple[dict[str, Any], str, Any]], list[MethodType]]:
    """Return what a function, or one inside of it, refers to.

    Returns
    -------
    tuple
        Attributes, as (thing, name, value); entries of the module's globals, as (globals, name, value); and the
        methods of `owner`, to which the function is bound if it is not None.
    """
    code, around = function.__code__, function.__globals__
    values: list[tuple[Any, str, Any]] = [
        (cell, "cell_contents", cell.cell_contents) for cell in function.__closure__ or () if _is_set(cell)
    ]
    methods = []
    if owner is not None:
        for name in set().union(*(names(code, operation) for operation in _ATTRIBUTES)):
            if _is_plain(owner, name):
                values.append((owner, name, getattr(owner, name)))
            elif isinstance(getattr(type(owner), name, None), FunctionType):
                methods.append(getattr(owner, name))
    variables = [(around, name, around[name]) for name in names(code, "LOAD_GLOBAL") if name in around]
    return values, [entry for entry in variables if not isinstance(entry[2], ModuleType)], methods


@functools.lru_cache(1024)  # functions are captured again, and share others
def names(code: CodeType, operation: str) -> frozenset[str]:
    """Return the names that a function, or one inside of it, looks up in this way.

    They are those of `dis.get_instructions`, which takes as long as a step of a small network.
    """
    instructions, wanted = code.co_code, dis.opmap[operation]
    found = set()
    at = instructions.find(wanted)
    while at >= 0:
        if at % 2 == 0:  # else it is an argument
            before, arg = at - 2, instructions[at + 1]
            while before >= 0 and instructions[before] == _EXTENDED_ARG:
                arg |= instructions[before + 1] << 4 * (at - before)
                before -= 2
            found.add(code.co_names[arg >> (operation in _FLAGGED)])
        at = instructions.find(wanted, at + 1)
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return frozenset(found).union(*(names(constant, operation) for constant in inside))


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_plain(owner: Any, name: str) -> bool:
    """Whether this is an attribute that is the same object every time, no property or method."""
    return name in getattr(owner, "__dict__", ()) or isinstance(getattr(type(owner), name, None), SIMPLE)
