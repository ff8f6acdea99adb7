"""What a function takes from around it: variables of enclosing functions and of its module, attributes of its owner."""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from collections.abc import Iterable
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from pynn._snapshot import pairs
from pynn.guarded import CaptureError, Guarded, where
from pynn.nn.containers import ModuleList, Sequential
from pynn.nn.module import Module
from pynn.optim.optimizer import Optimizer
from pynn.tensor import Tensor

SIMPLE = (bool, int, float, str)

_MISSING = object()

# What is compared in another way, or names nothing.
_WITHOUT_NAMES = (FunctionType, MethodType, Tensor, Optimizer, np.ndarray)

# From 3.12 on `dis` also has numbers above 255, of instructions that only the compiler uses.
_ATTRIBUTES = [name for name in ("LOAD_ATTR", "LOAD_METHOD") if dis.opmap.get(name, 256) < 256]
_EXTENDED_ARG = dis.opmap["EXTENDED_ARG"]
_FLAGGED = {"LOAD_GLOBAL", "LOAD_ATTR"} if sys.version_info >= (3, 12) else {"LOAD_GLOBAL"}  # the lowest bit is a flag


class Around:
    """What functions take from around them while they are captured, which must be the same objects in each replay."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, str, Any]] = []  # thing, attribute, value
        self.entries: list[tuple[dict[Any, Any], Any, Any]] = []  # globals and other dicts, key, value
        self.modules: dict[int, tuple[Module, tuple[Any, ...]]] = {}  # of containers, whose items have no names
        self._before: list[tuple[Module, dict[str, Any]]] = []  # their attributes before the function ran
        self._stored: list[tuple[Any, str, Any]] = []  # attributes that functions set: thing, name, value before
        self._functions: set[tuple[FunctionType, int]] = set()  # and the id of what it is bound to
        self._optimizers: list[tuple[Optimizer, list[Any]]] = []  # and their options

    def note(self, function: Any, is_forward: bool = False, arguments: Iterable[Any] = ()) -> None:
        """Note what the function has from around it, and the functions among that, which it must not change.

        So is what it names of that and of its arguments: `args.beta`, `config["beta"]`. Of a module that is called
        (`is_forward`) all attributes are compared as it is.
        """
        while isinstance(function, functools.partial):
            arguments = (*arguments, *function.args, *function.keywords.values())
            function = function.func
        owner = None
        if not isinstance(function, (FunctionType, MethodType)):
            _, methods = _attributes_of(function, ("__call__",))  # of an object that is called as a function
            function = methods[0] if methods else function
        if isinstance(function, MethodType):
            function, owner = function.__func__, function.__self__
        if not isinstance(function, FunctionType) or (function, id(owner)) in self._functions:
            return
        if (function.__module__ or "").partition(".")[0] == "pynn":
            return
        self._functions.add((function, id(owner)))
        values, variables, methods = surroundings(function, owner)
        found = [value for _, _, value in (*values, *variables)]
        arguments = (*arguments, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        self.values += [entry for entry in values if not is_forward or entry[0] is not owner]
        self.entries += [entry for entry in variables if not isinstance(entry[2], ModuleType)]
        code = function.__code__  # whose hash, as a key, takes a microsecond each time
        if stored := names(code, "STORE_ATTR"):
            for thing in (owner, *found, *arguments):
                self._note_stored(stored, thing)
        named = _attributes(code)
        for thing in (*found, *arguments):
            attributes, entries, called = _named(code, named, thing)
            self.values += attributes
            self.entries += entries
            found += [value for _, _, value in (*attributes, *entries)]
            methods += called
        if "data" in named:
            self.values += [(thing, "data", thing.data) for thing in found if isinstance(thing, Tensor)]
        for value in (*found, *arguments, *methods):
            if isinstance(value, Optimizer):
                self._optimizers.append((value, _options(value)))
            elif isinstance(value, (Sequential, ModuleList)):
                self._before += [(module, dict(vars(module))) for module in value.modules()]
            elif callable(value):
                self.note(value)

    def _note_stored(self, stored: frozenset[str], thing: Any) -> None:
        """Note attributes of a thing that the function sets, to see it and to undo it; the array of a tensor, too."""
        if isinstance(thing, Tensor):
            stored &= {"data"}
        elif not isinstance(getattr(thing, "__dict__", None), dict):
            return
        self._stored += [(thing, name, _held(thing, name)) for name in stored]

    def check(self) -> None:
        """Refuse what a function did to it."""
        for thing, name, before in self._stored:
            self._same((thing, name, before), _held(thing, name))
        for optimizer, _ in self._optimizers:
            self._same_options(optimizer)
        for module, before in self._before:
            if [*module.children()] != [value for value in before.values() if isinstance(value, Module)]:
                raise CaptureError(
                    f"capture: the function replaces modules of {type(module).__name__}, which it has from around it, "
                    f"{where()}, and a replay would not; replace them outside"
                )
            self.modules[id(module)] = module, pairs(vars(module))
        for entries, find in ((self.values, getattr), (self.entries, dict.get)):
            for i, entry in enumerate(entries):
                thing, name, before = entry
                now = find(thing, name)
                if now is not before or type(now) in (list, dict):
                    entries[i] = self._same(entry, now)

    def forget(self, optimizer: Optimizer) -> None:
        """From now on a schedule changes the options of this one."""
        self._same_options(optimizer)
        self._optimizers = [entry for entry in self._optimizers if entry[0] is not optimizer]

    def restore(self) -> None:
        """Give optimisers their options back, and things their attributes: the function failed."""
        for thing, name, before in self._stored:
            if isinstance(thing, Tensor):
                thing.data = before
            elif before is not _MISSING:
                vars(thing)[name] = before
            else:
                vars(thing).pop(name, None)
        for module, attributes in self._before:
            vars(module).clear()
            vars(module).update(attributes)
        for optimizer, options in self._optimizers:
            for group, before in zip(optimizer.param_groups, options, strict=False):
                params = group["params"]
                group.clear()
                group.update(before, params=params)

    def _same(self, entry: tuple[Any, str, Any], now: Any) -> tuple[Any, str, Any]:
        """Return the entry; refuse that its value is another one now, or a list or dict to which a result was added."""
        thing, name, before = entry
        same = now is before or (type(before) in SIMPLE and type(now) is type(before) and now == before)
        items = now if type(now) is list else now.values() if type(now) is dict else ()
        if same and not any(isinstance(x.data if isinstance(x, Tensor) else x, Guarded) for x in items):
            return thing, name, now
        if name == "cell_contents":
            variables = [zip(f.__code__.co_freevars, f.__closure__ or (), strict=True) for f, _ in self._functions]
            name = next(name for name, cell in itertools.chain(*variables) if cell is thing)
        raise CaptureError(
            f"capture: the function {'puts a result into' if same else 'changes'} {name}, which it has from around it, "
            f"{where()}, and a replay would not; return the value, and keep it outside"
        )

    def _same_options(self, optimizer: Optimizer) -> None:
        """Refuse that the function changes options of the optimiser."""
        for known, options in self._optimizers:
            if known is optimizer and options != _options(optimizer):
                raise CaptureError(
                    f"capture: options of {type(optimizer).__name__} are changed inside of the captured function, "
                    f"{where()}, which a replay does not repeat; let a scheduler do it, or change them outside"
                )


def surroundings(
    function: FunctionType, owner: Any
) -> tuple[list[tuple[Any, str, Any]], list[tuple[dict[str, Any], str, Any]], list[Any]]:
    """Return what a function, or one inside of it, refers to.

    Returns
    -------
    tuple
        Attributes, as (thing, name, value); entries of the module's globals, as (globals, name, value); and the
        functions that are methods or properties of `owner`, to which the function is bound if it is not None.
    """
    code, around = function.__code__, function.__globals__
    values: list[tuple[Any, str, Any]] = [
        (cell, "cell_contents", cell.cell_contents) for cell in function.__closure__ or () if _is_set(cell)
    ]
    methods: list[Any] = []
    if owner is not None:
        attributes, methods = _attributes_of(owner, _attributes(code))
        values += attributes
    variables = [(around, name, around[name]) for name in names(code, "LOAD_GLOBAL") if name in around]
    return values, variables, methods


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


@functools.lru_cache(1024)
def _attributes(code: CodeType) -> frozenset[str]:
    return frozenset().union(*(names(code, operation) for operation in _ATTRIBUTES))


@functools.lru_cache(1024)
def _constants(code: CodeType) -> frozenset[Any]:
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = [constant for constant in code.co_consts if type(constant) in SIMPLE]
    return frozenset(own).union(*map(_constants, inside))


def _named(
    code: CodeType, attributes: frozenset[str], thing: Any
) -> tuple[list[tuple[Any, str, Any]], list[tuple[Any, Any, Any]], list[Any]]:
    """Return the attributes of a thing, or the entries of a dict, that a function names; and methods, properties."""
    if isinstance(thing, _WITHOUT_NAMES):
        return [], [], []
    if type(thing) is dict:
        return [], [(thing, key, thing[key]) for key in _constants(code) if key in thing], []
    values, functions = _attributes_of(thing, attributes)
    return values, [], functions


def _attributes_of(thing: Any, names: Iterable[str]) -> tuple[list[tuple[Any, str, Any]], list[Any]]:
    """Return attributes with these names that are the same object every time, and functions; no property is asked."""
    own, kind = getattr(thing, "__dict__", {}), type(thing)
    has_values = isinstance(own, dict) and kind is not ModuleType  # a class makes methods anew each time
    values, functions = [], []
    for name in names:
        if isinstance(thing, type):
            found = next((vars(base)[name] for base in thing.__mro__ if name in vars(base)), None)
        else:
            found = own[name] if kind is ModuleType and name in own else getattr(kind, name, None)
        if has_values and name in own and not hasattr(found, "__set__"):
            values.append((thing, name, own[name]))
        elif (isinstance(found, SIMPLE) or _is_slot(found)) and hasattr(thing, name):
            values.append((thing, name, getattr(thing, name)))
        elif isinstance(found, property) and isinstance(found.fget, FunctionType):
            functions.append(MethodType(found.fget, thing))
        elif isinstance(found, (FunctionType, MethodType, staticmethod, classmethod)):
            functions.append(getattr(thing, name))
    return values, functions


def _is_slot(found: Any) -> bool:
    """Whether this is what a class has for one of its `__slots__`; a member of C's is made anew each time."""
    return isinstance(found, MemberDescriptorType) and "__slots__" in vars(found.__objclass__)


def _held(thing: Any, name: str) -> Any:
    """Return what a thing itself has as an attribute, no property's value."""
    return thing.data if isinstance(thing, Tensor) else vars(thing).get(name, _MISSING)


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _options(optimizer: Optimizer) -> list[Any]:
    return [{**group, "params": None} for group in optimizer.param_groups]
