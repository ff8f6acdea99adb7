"""Hooks of modules. Backward ones are nodes on the tape that tell when gradients pass a module's inputs and outputs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pynn.tape import Node
from pynn.tape import _record as record
from pynn.tensor import Tensor

if TYPE_CHECKING:
    from pynn.nn.module import Module

Array = npt.NDArray[Any]
Gradients = tuple[Array | None, ...]
Hook = Callable[["Module", tuple[Any, ...], Any], None]
BackwardHook = Callable[["Module", Gradients, Gradients], None]


class HookHandle:
    """What `register_forward_hook` and `register_full_backward_hook` return; `remove()` takes the hook away again."""

    def __init__(self, module: Module, hooks: str, hook: Hook | BackwardHook) -> None:
        self._module, self._hooks = module, hooks
        self._hook = functools.partial(hook)  # another object each time: a function may be registered twice
        setattr(module, hooks, (*getattr(module, hooks), self._hook))

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        setattr(self._module, self._hooks, tuple(h for h in getattr(self._module, self._hooks) if h is not self._hook))


def check_hook(operation: str, hook: object) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(hook):
        raise TypeError(f"{operation}: hook is a {type(hook).__name__}, needs a function")


def call_with_backward_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return `module.forward(*args)`, with nodes around it that call the module's backward hooks."""
    watch = _Watch(module)
    args = tuple([watch.input(arg) for arg in args])
    return watch.outputs(module.forward(*args, **kwargs))


class _Watch:
    """Gathers the gradients of one call; calls the hooks when all that will come have come."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.grad_input: list[Array | None] = []
        self.grad_output: list[Array | None] = []
        self.inputs: dict[Node, int] = {}
        self.waiting: set[int] = set()

    def input(self, x: Any) -> Any:
        """Mark a positional argument of the module."""
        if not isinstance(x, Tensor):
            return x
        position = len(self.grad_input)
        self.grad_input.append(None)
        if not x.requires_grad:
            return x

        def backward(dx: Array) -> tuple[Array]:
            self.grad_input[position] = np.array(dx)
            self.waiting.discard(position)
            if not self.waiting:
                self.call()
            return (dx,)

        return self._marked("module input", x, backward, position)

    def outputs(self, y: Any) -> Any:
        """Mark the tensors that the module returned: one, or those of a tuple."""
        returned = y if type(y) is tuple else (y,)
        self.grad_output = [None] * sum(isinstance(t, Tensor) for t in returned)
        position = itertools.count()  # one that is returned twice has a gradient for each
        marked = tuple([self._output(t, next(position)) if isinstance(t, Tensor) else t for t in returned])
        return marked if type(y) is tuple else marked[0]

    def _output(self, y: Tensor, position: int) -> Tensor:
        if not y.requires_grad:
            return y
        reached = self._reached(y)

        def backward(dy: Array) -> tuple[Array]:
            self.grad_output[position] = np.array(dy)
            self.waiting |= reached
            if not self.waiting:  # no input asks for a gradient
                self.call()
            return (dy,)

        return self._marked("module output", y, backward)

    def _marked(self, name: str, x: Tensor, backward: Callable[[Array], Any], position: int | None = None) -> Tensor:
        backward.forget = self.forget  # type: ignore[attr-defined]  # for a walk that ends before the hooks are called
        marked = record(name, x.data, (x,), backward)
        marked._version = x._version  # the same memory
        if position is not None and marked._node is not None:
            self.inputs[marked._node] = position
        return marked

    def _reached(self, y: Tensor) -> set[int]:
        """Which inputs an output depends on."""
        nodes = [] if y._node is None else [y._node]
        oldest = min((node.order for node in self.inputs), default=0)
        seen = set(nodes)
        for node in nodes:  # grows while we walk it
            for parent in node.parents:
                if isinstance(parent, Node) and parent.order >= oldest and parent not in seen:
                    seen.add(parent)
                    nodes.append(parent)
        return {position for node, position in self.inputs.items() if node in seen}

    def call(self) -> None:
        """Forget the gradients, also if a hook raises, and call the hooks with them."""
        grad_input, grad_output = tuple(self.grad_input), tuple(self.grad_output)
        self.forget()
        for hook in self.module._backward_hooks:
            hook(self.module, grad_input, grad_output)

    def forget(self) -> None:
        """Drop the gradients that were gathered so far."""
        self.grad_input = [None] * len(self.grad_input)
        self.grad_output = [None] * len(self.grad_output)
        self.waiting.clear()
