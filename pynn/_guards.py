"""What a replay of a captured function relies on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Set
from typing import Any

from pynn import _core
from pynn._snapshot import pairs
from pynn._surroundings import SIMPLE, Around
from pynn.guarded import CaptureError, where
from pynn.nn.module import Module, Parameter

_LEAVES = {Parameter, type(None), tuple, *SIMPLE}  # attributes of these types hold neither modules nor containers


class Guards:
    """Attributes, entries and items that must be the same objects in each replay, and conditions that must be met."""

    def __init__(self) -> None:
        self.guards: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.modules: dict[int, tuple[Module, tuple[Any, ...]]] = {}  # called ones, with their attributes
        self._taken: dict[int, tuple[Module, tuple[Any, ...]]] = {}  # those in containers that items are taken of
        self._inside: Set[int] = set()  # modules that are children of those being called
        self.around = Around()
        self.entries: list[tuple[dict[Any, Any], Any, Any]] = []
        self.items: list[tuple[Any, tuple[Any, ...]]] = []
        self.conditions: list[tuple[Callable[[], Any], Any]] = []

    def fixed(self, thing: Any, name: str) -> None:
        """Note an attribute that must be the same object in each replay."""
        self.guards[id(thing), name] = thing, name, getattr(thing, name)

    def same_entry(self, entries: dict[Any, Any], key: Any) -> None:
        """Note an entry that must be the same object in each replay."""
        self.entries.append((entries, key, entries[key]))

    def same_items(self, container: list[Any] | dict[Any, Any]) -> None:
        """Note that all items, or values under equal keys, must be the same objects in each replay."""
        self.items.append((container, pairs(container) if isinstance(container, dict) else tuple(container)))

    def module(self, module: Module, args: Any, kwargs: Any) -> Any:
        """Call a module whose attributes must be the same objects in each replay."""
        if id(module) in self._inside:
            return module.forward(*args, **kwargs)
        before: dict[int, tuple[Module, tuple[Any, ...]]] = {}
        below = [module]
        for m in below:  # grows while we walk it
            if id(m) in before:
                continue
            attributes = vars(m)
            before[id(m)] = m, pairs(attributes)
            # Of pynn's own layers `note` would see that, too, but takes a microsecond for each.
            if not type(m).__module__.startswith("pynn.") or "forward" in attributes:
                given = self.around.known((*args, *kwargs.values())) if m is module else ()
                self.around.note(m.forward, is_forward=True, arguments=given)
            if m._forward_hooks or m._backward_hooks:
                raise CaptureError(f"capture: {type(m).__name__} has a hook, {where()}, which a replay would not call")
            for value in attributes.values():
                if type(value) in _LEAVES:
                    continue
                if isinstance(value, Module):
                    below.append(value)
                elif isinstance(value, (list, dict)):
                    self.same_items(value)
        outside = self._inside
        self._inside = outside | before.keys()
        try:
            y = module.forward(*args, **kwargs)
        finally:
            self._inside = outside
        if not _unchanged(before.values()):
            changed = next(m for m in before.values() if not _unchanged([m]))[0]
            raise CaptureError(
                f"capture: {type(changed).__name__} changes its attributes in forward, {where()}, which a replay does "
                "not repeat"
            )
        self.modules |= before
        return y

    def takes(self, container: Module) -> None:
        """Modules are taken out of a container: all that is in it must be the same objects in each replay."""
        if id(container) in self._inside:
            return
        for m in container.modules():
            if id(m) not in self._taken:
                self._taken[id(m)] = m, pairs(vars(m))

    def check(self) -> None:
        """Refuse what a function did to what it has from around it."""
        for module, values in self._taken.values():
            if [*module.children()] != [value for value in values[1::2] if isinstance(value, Module)]:
                raise CaptureError(
                    f"capture: the function replaces modules of {type(module).__name__}, which it has from around it, "
                    f"{where()}, and a replay would not; replace them outside"
                )
        self.around.check()

    def restore(self) -> None:
        """Undo what it did there: it failed."""
        for module, values in self._taken.values():
            if not _unchanged([(module, values)]):
                vars(module).clear()  # for the order of the children
                vars(module).update(zip(values[::2], values[1::2], strict=True))
        self.around.restore()

    def holds(self, condition: Callable[[], Any], value: Any = True) -> None:
        """Something a replay relies on: where it returns another value, the function is captured anew."""
        self.conditions.append((condition, value))

    def flat(self) -> tuple[tuple[Any, ...], ...]:
        """Return all of it as `Recording.unchanged` takes it."""
        attributes = itertools.chain(*self.guards.values(), *self.around.modes.values(), *self.around.values)
        modules = self._taken | self.modules
        for (key, name), (module, _, training) in self.around.modes.items():
            if name == "training" and key in modules:  # as it was before the function set it
                values = modules[key][1]
                modules[key] = module, pairs({**dict(zip(values[::2], values[1::2], strict=True)), name: training})
        items = itertools.chain(_attributes(modules.values()), *self.items)
        entries = itertools.chain(*self.around.entries, *self.entries)
        return tuple(attributes), tuple(entries), tuple(items), tuple(itertools.chain(*self.conditions))


def _attributes(modules: Iterable[tuple[Module, tuple[Any, ...]]]) -> list[Any]:
    """The attributes of modules and what they are compared with, one after the other, as the core takes them."""
    found: list[Any] = []
    for module, values in modules:
        found += vars(module), values
    return found


def _unchanged(modules: Iterable[tuple[Module, tuple[Any, ...]]]) -> bool:
    return _core.Recording.unchanged((), (), tuple(_attributes(modules)))
