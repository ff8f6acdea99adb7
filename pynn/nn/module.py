"""The base of every layer and model: a tree of modules whose leaves hold parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pynn._array import FLOATS, as_dtype
from pynn._checks import flag
from pynn.grad_mode import catch_up, mode, observers, switches
from pynn.nn.hooks import BackwardHook, Hook, HookHandle, call_with_backward_hooks, check_hook
from pynn.tensor import Tensor

if TYPE_CHECKING:
    from pynn.nn._summary import Summary

Array = npt.NDArray[Any]


class Parameter(Tensor):
    """A tensor that a `Module` trains: assigned as an attribute of a module, it is one of its parameters.

    Parameters
    ----------
    data : Tensor or array_like
        Initial values, float32 or float64; floats of Python, also in lists, become float32.
    requires_grad : bool
        False freezes the parameter.

    Examples
    --------
    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    def __init__(self, data: Tensor | npt.ArrayLike, requires_grad: bool = True) -> None:
        super().__init__(data, flag("Parameter", "requires_grad", requires_grad))


class LoadResult(NamedTuple):
    """Keys that `load_state_dict` did not find, and keys that it did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers and models; a subclass assigns its parts as attributes and defines `forward`.

    There is no registry: the attributes that are a `Parameter` or a `Module` are the parameters and children, in the
    order of assignment. Arrays that belong to the state but are not trained are named with `register_buffer`.
    To replace a parameter or child by something that is neither, nor None, raises TypeError.
    Keys and layouts of `state_dict` are PyTorch's.

    Examples
    --------
    >>> from pynn import nn
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         self.layer = nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return self.layer(self.layer(x))
    >>> [name for name, _ in Twice().named_parameters()]
    ['layer.weight', 'layer.bias']
    """

    # Class attributes, so that a subclass need not call super().__init__().
    training: bool = True
    _buffer_names: tuple[str, ...] = ()
    _forward_hooks: tuple[Hook, ...] = ()
    _backward_hooks: tuple[BackwardHook, ...] = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute `forward`; NumPy arrays among the positional arguments are wrapped as tensors."""
        for arg in args:
            if isinstance(arg, np.ndarray):
                one = len(args) == 1  # as a rule
                args = (Tensor(arg),) if one else tuple([Tensor(a) if isinstance(a, np.ndarray) else a for a in args])
                break
        if observers and mode.recorder is not None:
            return mode.recorder.module(self, args, kwargs)
        if self._backward_hooks:
            y = call_with_backward_hooks(self, args, kwargs)
        elif len(args) == 1 and not kwargs:  # as a rule, and quicker than the general call
            y = self.forward(args[0])
        else:
            y = self.forward(*args, **kwargs)
        for hook in self._forward_hooks:
            hook(self, args, y)
        return y

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; TypeError if a parameter or child would silently be one no longer (None takes it away).

        A number that is assigned to a buffer becomes an array.
        """
        old = self.__dict__.get(name)
        if isinstance(old, (Parameter, Module)) and not isinstance(value, (type(None), Parameter, Module)):
            kind, needs = "child", "a Module or None"
            if isinstance(old, Parameter):
                kind = "parameter"
                needs = f"nn.Parameter(x) or None; {name}.data[...] = x keeps the parameter and changes its values"
            got = type(value).__name__
            raise TypeError(f"{type(self).__name__}: cannot assign {got} as {kind} {name!r}, needs {needs}")
        if name in self._buffer_names and not isinstance(value, (np.ndarray, Tensor, type(None))):
            value = _numbers(type(self).__name__, name, value)  # NumPy's `array + 1` is a number where there is no axis
        super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass defines it.

        Raises
        ------
        NotImplementedError
            If the subclass does not.
        """
        raise NotImplementedError(f"{type(self).__name__}: forward is not defined")

    def register_forward_hook(self, hook: Hook) -> HookHandle:
        """Call `hook(module, args, output)` after each forward; a hook observes and returns nothing.

        Examples
        --------
        >>> from pynn import nn
        >>> handle = nn.Identity().register_forward_hook(lambda module, args, output: print(output.shape))
        >>> handle.remove()
        """
        check_hook("register_forward_hook", hook)
        return HookHandle(self, "_forward_hooks", hook)

    def register_full_backward_hook(self, hook: BackwardHook) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` in each backward that passes the module; it returns nothing.

        `grad_output` has a gradient for each tensor that the module returned, `grad_input` one for each tensor among
        its positional arguments: copies, or None where no gradient flows.

        Examples
        --------
        >>> from pynn import nn, ones
        >>> layer = nn.Linear(3, 1)
        >>> handle = layer.register_full_backward_hook(lambda module, dx, dy: print(dx[0].shape, dy[0]))
        >>> layer(ones(1, 3, requires_grad=True)).sum().backward()
        (1, 3) [[1.]]
        >>> handle.remove()
        """
        check_hook("register_full_backward_hook", hook)
        return HookHandle(self, "_backward_hooks", hook)

    # -- the tree ------------------------------------------------------------------------------------------------------

    def register_buffer(self, name: str, array: npt.ArrayLike) -> None:
        """Make `self.<name>` an array that `state_dict` contains and no optimiser trains.

        Raises
        ------
        ValueError
            If the name is taken, or is not an identifier.
        TypeError
            If the array does not hold numbers.
        """
        array = _numbers("register_buffer", name, array)
        if not isinstance(name, str) or not name.isidentifier() or hasattr(self, name):
            raise ValueError(f"register_buffer: name {name!r} is not a free identifier of {type(self).__name__}")
        setattr(self, name, array)
        self._buffer_names = (*self._buffer_names, name)

    def add_module(self, name: str, module: Module) -> None:
        """Make `module` the child `name`, as assigning the attribute does.

        Raises
        ------
        TypeError
            If `module` is not a Module, or the name not a str.
        ValueError
            If the name is empty, has a dot, or hides an attribute of the class.
        """
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: child {name!r} is a {type(module).__name__}, needs a Module")
        if not isinstance(name, str):
            raise TypeError(f"{type(self).__name__}: {name!r} cannot name a child, needs a str")
        if not name or "." in name or hasattr(type(self), name):
            raise ValueError(f"{type(self).__name__}: {name!r} cannot name a child (empty, dotted, or taken)")
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that are attributes of this one, with their names."""
        yield from [(name, value) for name, value in vars(self).items() if isinstance(value, Module)]

    def children(self) -> Iterator[Module]:
        """Yield the modules that are attributes of this one."""
        yield from [value for value in vars(self).values() if isinstance(value, Module)]

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, parents first, each once, with their dotted names."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, parents first, each once."""
        yield from (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield the parameters of the tree with their dotted names; one shared by two modules comes once."""
        seen: set[int] = set()
        for name, value in self._named_state(prefix):
            if isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters of the tree, each once."""
        yield from (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Yield the buffers of the tree with their dotted names."""
        seen: set[int] = set()
        for name, value in self._named_state(prefix):
            if not isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def buffers(self) -> Iterator[Array]:
        """Yield the buffers of the tree."""
        yield from (buffer for _, buffer in self.named_buffers())

    def _walk(self, prefix: str = "", above: tuple[Module, ...] = ()) -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it under every name that they have."""
        yield prefix, self
        for name, child in self.named_children():
            if child is self or child in above:
                raise ValueError(f"{type(self).__name__}: child {name!r} contains itself")
            yield from child._walk(f"{prefix}.{name}" if prefix else name, (*above, self))

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Parameter | Array]]:
        """Yield parameters and buffers under every name that they have, in PyTorch's order."""
        for path, module in self._walk(prefix):
            for name, value in module._own_state().items():
                yield f"{path}.{name}" if path else name, value

    def _own_state(self) -> dict[str, Parameter | Array]:
        """Return the parameters, then the buffers, of this module without its children."""
        own: dict[str, Parameter | Array] = {k: v for k, v in vars(self).items() if isinstance(v, Parameter)}
        return own | {k: v for k in self._buffer_names if (v := getattr(self, k, None)) is not None}

    # -- mode and dtype ------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set training mode (dropout drops, batch norm uses the batch) for the whole tree; returns the module."""
        mode = flag("train", "mode", mode)
        for module in self.modules():
            switches(module, "training")
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode for the whole tree; returns the module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze all parameters; returns the module."""
        requires_grad = flag("requires_grad_", "requires_grad", requires_grad)
        for parameter in self.parameters():
            switches(parameter, "requires_grad")
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        set_to_none = flag("zero_grad", "set_to_none", set_to_none)
        for parameter in self.parameters():
            if set_to_none or parameter._grad is None:
                if mode.recorder is not None:
                    mode.recorder.drops_gradient(parameter)
                parameter._grad = None
            else:
                if mode.recorder is not None:
                    mode.recorder.fills_gradient()
                parameter._grad.fill(0)

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` with each module of the tree, children first; returns the module.

        Examples
        --------
        >>> from pynn import nn
        >>> _ = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).apply(lambda module: print(type(module).__name__))
        Linear
        ReLU
        Sequential
        """
        for child in dict.fromkeys(self.children()):  # one that has two names here comes once, as in PyTorch
            child.apply(fn)
        fn(self)
        return self

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters and floating-point buffers to float32 or float64, in place; gradients are dropped.

        Convert before the optimiser has taken a step: its state keeps the old dtype.

        Raises
        ------
        TypeError
            If `dtype` is neither float32 nor float64.
        """
        dtype = as_dtype("astype", dtype, "float32 or float64")
        if dtype not in FLOATS:
            raise TypeError(f"astype: got {dtype}, needs float32 or float64")
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
            parameter.grad = None
        for module in self.modules():
            for name in module._buffer_names:
                buffer = getattr(module, name, None)
                if buffer is not None and buffer.dtype.kind == "f":
                    setattr(module, name, buffer.astype(dtype))
        return self

    # -- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by dotted name, with PyTorch's keys and layouts.

        Examples
        --------
        >>> from pynn import nn
        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        catch_up()
        return {name: np.array(_array(value)) for name, value in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy a state into the parameters and buffers, all or nothing.

        Parameters
        ----------
        state : Mapping of str to array or Tensor
            As `state_dict` returns it; floats and integers are converted to the dtype of the model.
        strict : bool
            False permits missing and unexpected keys and only reports them.

        Returns
        -------
        LoadResult
            `missing_keys` and `unexpected_keys`.

        Raises
        ------
        ValueError
            Lists every missing and unexpected key (if strict), every shape or kind of dtype that differs, and integers
            that do not fit; the model is unchanged.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: got {type(state).__name__}, needs a mapping of names to arrays")
        strict = flag("load_state_dict", "strict", strict)
        catch_up()
        own = dict(self._named_state())
        result = LoadResult([name for name in own if name not in state], [name for name in state if name not in own])
        problems = [f"missing {name}" for name in result.missing_keys if strict]
        problems += [f"unexpected {name}" for name in result.unexpected_keys if strict]
        arrays: dict[str, Array] = {}
        for name in (name for name in own if name in state):
            try:
                target, array = _array(own[name]), np.asarray(_array(state[name]))
            # Unequal lists, a dtype that NumPy lacks; RuntimeError: a tensor of PyTorch that asks for a gradient.
            except (TypeError, ValueError, RuntimeError) as error:
                problems.append(f"{name} is not an array: {error}")
                continue
            if array.shape != target.shape:
                problems.append(f"{name} has shape {list(array.shape)}, the model needs {list(target.shape)}")
            elif array.dtype.kind != target.dtype.kind:
                problems.append(f"{name} has dtype {array.dtype}, the model needs {target.dtype}")
            elif not target.flags.writeable:
                problems.append(f"{name} is read-only")
            else:
                arrays[name] = array.astype(target.dtype)  # Whatever can fail does so here, before the first write.
                if array.dtype.kind in "iu" and not np.array_equal(arrays[name], array):
                    problems.append(f"{name} has numbers that {target.dtype} does not hold")
        if problems:
            raise ValueError(f"load_state_dict: {type(self).__name__} is unchanged: " + "; ".join(problems))
        for name, array in arrays.items():
            value = own[name]
            np.copyto(_array(value), array)
            if isinstance(value, Parameter):
                value._bump_version()
        return result

    # -- text ----------------------------------------------------------------------------------------------------------

    def summary(self, input_shape: int | tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Summary:
        """Return a table of layers, output shapes, parameters and multiply-adds; see `nn.summary`."""
        from pynn.nn._summary import summary

        return summary(self, input_shape, dtype)

    def extra_repr(self) -> str:
        """Return what `repr` shows between the parentheses, such as sizes."""
        return ""

    def __repr__(self) -> str:
        """Return the tree of modules, one line each."""
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *children]) + "\n)"


def _numbers(what: str, name: str, values: npt.ArrayLike) -> Array:
    array = np.array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}: {name} has dtype {array.dtype}, needs numbers")
    return array


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value
