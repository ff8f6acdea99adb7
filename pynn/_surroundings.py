"""What a function takes from around it: variables of enclosing functions and of its module, attributes of its owner."""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from pynn.guarded import CaptureError, Guarded, where
from pynn.nn.module import Module
from pynn.optim.optimizer import Optimizer
from pynn.tensor import Tensor

SIMPLE = (bool, int, float, str)

_PLAIN = {*SIMPLE, type(None), np.ndarray}  # have nothing that a function could name and a replay would not see
_MISSING = object()
_NOT_OURS = __file__.rpartition("_surroundings")[0], dis.__file__.rpartition("dis")[0], "<frozen "

# From 3.12 on `dis` also has numbers above 255, of instructions that only the compiler uses.
_ATTRIBUTES = [name for name in ("LOAD_ATTR", "LOAD_METHOD") if dis.opmap.get(name, 256) < 256]
_EXTENDED_ARG = dis.opmap["EXTENDED_ARG"]
_FLAGGED = {"LOAD_GLOBAL", "LOAD_ATTR"} if sys.version_info >= (3, 12) else {"LOAD_GLOBAL"}  # the lowest bit is a flag


class Around:
    """What functions take from around them while they are captured, which must be the same objects in each replay."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, str, Any]] = []  # thing, attribute, value
        self.modes: dict[tuple[int, str], tuple[Any, str, Any]] = {}  # that the functions may set, as they were before
        self.entries: list[tuple[dict[Any, Any], Any, Any]] = []  # globals and other dicts, key, value
        self._stored: list[tuple[Any, str, Any]] = []  # attributes that functions set: thing, name, value before
        # Functions, with the id of what they are bound to: ids of what was looked at for them.
        self._functions: dict[tuple[FunctionType, int], set[int]] = {}
        self._optimizers: dict[int, tuple[Optimizer, list[Any]]] = {}  # and their options

    def note(self, function: Any, is_forward: bool = False, arguments: Iterable[Any] = ()) -> None:
        """Note what the function has from around it, and the functions among that, which it must not change.

        So is what it names of that and of its arguments: `args.beta`, `config["beta"]`. Of a module that is called
        (`is_forward`) all attributes are compared as it is.
        """
        if isinstance(function, functools.partial):
            arguments = (*arguments, *function.args, *function.keywords.values())
            function = function.func
        owner = None
        if isinstance(function, MethodType):
            function, owner = function.__func__, function.__self__
        if not isinstance(function, FunctionType):
            calls = [] if type(function) in _PLAIN else _named(Names(), function)[2]
            for method in calls:
                self.note(method, arguments=arguments)
            return
        if (function.__module__ or "").partition(".")[0] == "pynn":
            return
        named = names(function.__code__)
        sets = named.stored or named.switches
        seen, found = self._functions.get((function, id(owner))), list(arguments)
        if seen is None:
            seen = self._functions[function, id(owner)] = set()
            values, variables, methods = surroundings(function, owner)
            self.values += [entry for entry in values if entry[0] is not owner] if is_forward else values
            self.entries += [entry for entry in variables if not isinstance(entry[2], ModuleType)]
            found += [entry[2] for entry in values]
            found += [entry[2] for entry in variables]
            found += [*methods, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            if sets:
                self._note_stored(named, owner)
        things, functions = [], []
        for thing in found:  # grows while we walk it
            kind = type(thing)
            if kind in _PLAIN:
                continue
            if kind in (FunctionType, MethodType) or isinstance(thing, functools.partial):
                functions.append(thing)
            elif id(thing) not in seen:
                seen.add(id(thing))
                things.append(thing)
                if sets:
                    self._note_stored(named, thing)
                if isinstance(thing, Optimizer):
                    if id(thing) not in self._optimizers:
                        self._optimizers[id(thing)] = thing, _options(thing)
                    continue
                attributes, entries, methods = _named(named, thing)
                self.values += attributes
                self.entries += entries
                found += [value for _, _, value in (*attributes, *entries)]
                found += methods
        for each in functions:
            self.note(each, arguments=things)  # which it may be given

    def known(self, things: Iterable[Any]) -> list[Any]:
        """Return those of the things that functions have from around them."""
        return [thing for thing in things if any(id(thing) in seen for seen in self._functions.values())]

    def switches(self, thing: Any, name: str) -> None:
        """A mode, `training` or `requires_grad`, is relied on or may be set: each replay begins with what it is now."""
        self.modes.setdefault((id(thing), name), (thing, name, getattr(thing, name)))

    def modes_left(self) -> list[Callable[[], None]]:
        """Return what gives things the modes that the function leaves them in, where these are others than before."""
        return [
            functools.partial(setattr, thing, name, getattr(thing, name))
            for thing, name, before in self.modes.values()
            if getattr(thing, name) is not before
        ]

    def _note_stored(self, named: Names, thing: Any) -> None:
        """Note attributes of a thing that a function sets, to see it and to undo it, and a module's parameters."""
        stored = named.stored
        is_searched = isinstance(thing, Module) and (named.switches or "data" in stored)
        for parameter in thing.parameters() if is_searched else ():
            if named.switches:
                self.switches(parameter, "requires_grad")
            if "data" in stored:
                self._stored.append((parameter, "data", parameter.data))
        if isinstance(thing, Tensor):
            stored &= {"data"}
        elif not isinstance(getattr(thing, "__dict__", None), dict):
            return
        self._stored += [(thing, name, _held(thing, name)) for name in stored]

    def check(self) -> None:
        """Refuse what a function did to it."""
        for thing, name, before in self._stored:
            self._same((thing, name, before), _held(thing, name))
        for optimizer, _ in self._optimizers.values():
            self._same_options(optimizer)
        for entries, find in ((self.values, getattr), (self.entries, dict.get)):
            for i, entry in enumerate(entries):
                thing, name, before = entry
                now = find(thing, name)
                if now is not before or type(now) in (list, dict):
                    entries[i] = self._same(entry, now)

    def forget(self, optimizer: Optimizer) -> None:
        """From now on a schedule changes the options of this one."""
        self._same_options(optimizer)
        self._optimizers.pop(id(optimizer), None)

    def restore(self) -> None:
        """Give optimisers their options back, and things their attributes: the function failed."""
        for thing, name, before in self._stored:
            if isinstance(thing, Tensor):
                thing.data = before
            elif before is not _MISSING:
                vars(thing)[name] = before
            else:
                vars(thing).pop(name, None)
        for thing, name, before in self.modes.values():
            setattr(thing, name, before)
        for optimizer, options in self._optimizers.values():
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
        known = self._optimizers.get(id(optimizer))
        if known is not None and known[1] != _options(optimizer):
            raise CaptureError(
                f"capture: options of {type(optimizer).__name__} are changed inside of the captured function, "
                f"{where()}, which a replay does not repeat; let a scheduler do it, or change them outside"
            )


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
    named, around = names(function.__code__), function.__globals__
    values: list[tuple[Any, str, Any]] = [
        (cell, "cell_contents", cell.cell_contents) for cell in function.__closure__ or () if _is_set(cell)
    ]
    methods: list[MethodType] = []
    if owner is not None:
        own = {} if isinstance(owner, type) else getattr(owner, "__dict__", {})
        constants, methods = _of_class(named, own, owner)
        values += [(owner, name, getattr(owner, name)) for name in (*(named.attributes & own.keys()), *constants)]
    variables = [(around, name, around[name]) for name in named.globals if name in around]
    return values, variables, methods


class Names(NamedTuple):
    """What a function, with those inside of it, names."""

    globals: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    stored: frozenset[str] = frozenset()  # attributes that it sets
    constants: frozenset[Any] = frozenset()
    switches: bool = False  # it may set `requires_grad`


@functools.lru_cache(1024)  # functions are captured again, and share others
def names(code: CodeType) -> Names:
    """Return what a function, or one inside of it, names."""
    attributes = frozenset().union(*(_looked_up(code, operation) for operation in _ATTRIBUTES))
    stored = _looked_up(code, "STORE_ATTR")
    switches = "requires_grad" in stored or "requires_grad_" in attributes
    return Names(_looked_up(code, "LOAD_GLOBAL"), attributes, stored, _constants(code), switches)


def _looked_up(code: CodeType, operation: str) -> frozenset[str]:
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
    return frozenset(found).union(*(_looked_up(constant, operation) for constant in inside))


def _constants(code: CodeType) -> frozenset[Any]:
    inside = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    own = [constant for constant in code.co_consts if type(constant) in SIMPLE]
    return frozenset(own).union(*map(_constants, inside))


def _named(
    named: Names, thing: Any
) -> tuple[list[tuple[Any, str, Any]], list[tuple[dict[Any, Any], Any, Any]], list[Any]]:
    """Return what a function names of a thing: its attributes, the entries of a dict, and its methods.

    No property is asked; it counts as a method, and so does the call.
    """
    if isinstance(thing, Tensor):
        return [(thing, "data", thing.data)] if "data" in named.attributes else [], [], []
    entries: list[tuple[dict[Any, Any], Any, Any]] = []
    if isinstance(thing, dict):  # whose entries may be attributes, too, if it is of a kind of its own
        keys = named.constants if type(thing) is dict else named.constants | named.attributes
        entries = [(thing, key, dict.get(thing, key)) for key in keys if dict.__contains__(thing, key)]
        if type(thing) is dict:
            return [], entries, []
    own = {} if isinstance(thing, type) else getattr(thing, "__dict__", {})  # a class makes methods anew each time
    held = named.attributes & own.keys()
    if type(thing) is ModuleType:
        found = [name for name in held if type(own[name]) in SIMPLE]
        functions = [own[name] for name in held if isinstance(own[name], FunctionType)]
        return [(thing, name, own[name]) for name in found], [], [f for f in functions if not _is_installed(f)]
    found, methods = _of_class(named, own, thing)
    for name in held:
        if type(own[name]) in SIMPLE or not hasattr(getattr(type(thing), name, None), "__set__"):
            found.append(name)
    return [(thing, name, getattr(thing, name)) for name in found], entries, methods


def _of_class(named: Names, own: Any, thing: Any) -> tuple[list[str], list[MethodType]]:
    """Return which constants and slots of its class a thing has, and its methods, of those that a function names.

    Methods that `super()` finds are among them. What the class has itself, such as its `__name__`, things do not have.
    """
    constants, methods, wanted = [], [], {*named.attributes, "__call__"} - own.keys()
    kind = thing if isinstance(thing, type) else type(thing)
    hidden: set[str] = set()  # by methods
    for base in kind.__mro__[:-1]:  # all but `object`
        entries = vars(base)
        for name in wanted & entries.keys():
            value = entries[name]
            function = value.fget if isinstance(value, property) else value
            if isinstance(value, (classmethod, staticmethod)):
                function = value.__func__
            if isinstance(function, FunctionType):
                hidden.add(name)
                if not _is_installed(function):
                    methods.append(MethodType(function, kind if isinstance(value, classmethod) else thing))
                continue
            wanted.discard(name)
            is_slot = type(value) is MemberDescriptorType and "__slots__" in entries and hasattr(thing, name)
            if name not in hidden and (type(value) in SIMPLE or (is_slot and thing is not kind)):
                constants.append(name)
    return constants, methods


def _is_installed(function: FunctionType) -> bool:
    """Whether a function is of pynn, of Python or of another package, whose own state no step is meant to depend on."""
    path = function.__code__.co_filename
    return path.startswith(_NOT_OURS) or "-packages" in path


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
