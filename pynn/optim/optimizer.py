"""The base of the optimisers: parameter groups, per-parameter state, checkpoints."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn import _core
from pynn._checks import flag, real
from pynn.grad_mode import catch_up, mode, observers
from pynn.plan import Call, memory
from pynn.tensor import Tensor, bump_versions

Array = npt.NDArray[Any]
Group = dict[str, Any]  # "params": the tensors; the other keys are the options, such as "lr"
State = dict[str, Any]  # of one parameter: arrays, and Adam's step count


class Optimizer:
    """Base class, also of an optimiser of your own: give it the defaults of the options, and define `step`.

    One of the options is `lr`, if schedules are to set it, and for `Trainer`, which notes it.

    `param_groups` is a list of dicts with the key `params` and the options, which may be changed between steps.
    `state` maps a parameter to its arrays and step count; it appears with the first step that has a gradient. A `step`
    of your own keeps there a dict for each parameter, of arrays and numbers, and a checkpoint has it.

    Examples
    --------
    >>> import numpy as np
    >>> import pynn
    >>> class SignSGD(Optimizer):
    ...     def __init__(self, params, lr=0.01):
    ...         super().__init__(params, {"lr": lr})
    ...
    ...     def step(self):
    ...         with pynn.no_grad():
    ...             for group in self.param_groups:
    ...                 for p in group["params"]:
    ...                     if p.grad is not None:
    ...                         p -= group["lr"] * np.sign(p.grad)
    >>> p = pynn.tensor([1.0, -2.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> SignSGD([p], lr=0.5).step()
    >>> p.detach()
    Tensor([ 0.5, -1.5], dtype=float32)
    """

    _arrays: tuple[str, ...] = ()  # names of the state arrays, which have the parameter's shape and dtype
    _optional_arrays: tuple[str, ...] = ()  # such that some options need; they appear with the first step that does
    _scalars: tuple[str, ...] = ()  # names of the state numbers

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, State] = {}
        if isinstance(params, Tensor):
            raise TypeError(f"{self._name}: params is one tensor, needs an iterable of tensors or of groups")
        if not isinstance(params, Iterable):
            raise TypeError(
                f"{self._name}: params is a {type(params).__name__}, needs an iterable of tensors or of groups, "
                "such as model.parameters()"
            )
        self._check_order(params)
        entries: list[Any] = list(params)
        if not entries:
            raise ValueError(
                f"{self._name}: params is empty, needs at least one parameter (of modules in a list, a ModuleList's)"
            )
        groups = entries if any(isinstance(entry, Mapping) for entry in entries) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)

    def _check_order(self, params: object) -> None:
        """Raise TypeError for a set: state_dict numbers parameters by an order that must be the next process's, too."""
        if isinstance(params, set | frozenset):
            raise TypeError(f"{self._name}: params is a {type(params).__name__}, needs an order, such as a list has")

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own; options left out have the optimiser's defaults.

        Raises
        ------
        TypeError
            If a parameter is not a floating-point tensor.
        ValueError
            If there is none, one is there already or is the result of an operation, or an option is unknown or invalid.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"{self._name}: a parameter group needs to be a dict with the key 'params'")
        params = group["params"]
        if not isinstance(params, Iterable):
            raise TypeError(
                f"{self._name}: params of a group is a {type(params).__name__}, needs a tensor or an iterable of "
                "tensors, such as model.parameters()"
            )
        self._check_order(params)
        params = [params] if isinstance(params, Tensor) else list(params)
        if not params:
            raise ValueError(f"{self._name}: a parameter group is empty")
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for p in params:
            if not isinstance(p, Tensor) or p.dtype not in (np.float32, np.float64):
                got = f"{p.dtype} tensor" if isinstance(p, Tensor) else type(p).__name__
                raise TypeError(f"{self._name}: got a {got}, needs float32 or float64 tensors")
            if p._node is not None:
                raise ValueError(f"{self._name}: tensor {list(p.shape)} is the result of an operation, needs a leaf")
            if id(p) in seen:
                raise ValueError(f"{self._name}: parameter {list(p.shape)} appears twice")
            seen.add(id(p))
        unknown = group.keys() - self.defaults.keys() - {"params"}
        if unknown:
            raise ValueError(f"{self._name}: unknown options {sorted(unknown)}, needs some of {sorted(self.defaults)}")
        options = {**self.defaults, **group, "params": params}
        self._check(options)
        self.param_groups.append(options)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        recorder = mode.recorder if observers else None
        set_to_none = flag("zero_grad", "set_to_none", set_to_none)
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p._grad is None:
                    if recorder is not None:
                        recorder.drops_gradient(p)
                    p._grad = None
                else:
                    if recorder is not None:
                        recorder.fills_gradient()
                    p._grad.fill(0)

    def step(self) -> None:
        """Update, in place, every parameter that has a gradient."""
        if observers and mode.recorder is not None:
            self._while_recording(mode.recorder)
        find = self.state.get
        for group in self.param_groups:
            params: list[Tensor] = []
            weights: list[Array] = []
            grads: list[Array] = []
            states: list[State] = []
            for p in group["params"]:
                if p._grad is not None:
                    params.append(p)
                    weights.append(p.data)
                    grads.append(p._grad)
                    states.append(find(p) or {})
            # The core takes one dtype and one step count (0 while the state is empty) per call; as a rule that is one
            # call for the whole group.
            if _are_alike(weights, states):
                self._step(group, params, weights, grads, states)
            else:
                kinds = [(w.dtype, state.get("step", len(state))) for w, state in zip(weights, states, strict=True)]
                for kind in dict.fromkeys(kinds):
                    at = [i for i, other in enumerate(kinds) if other == kind]
                    lists = [weights[i] for i in at], [grads[i] for i in at], [states[i] for i in at]
                    self._step(group, [params[i] for i in at], *lists)

    def _step(
        self, group: Group, params: list[Tensor], weights: list[Array], grads: list[Array], states: list[State]
    ) -> None:
        is_first = not states[0]
        try:
            self._update(group, weights, grads, states)
        except TypeError:
            self._check(group)  # names an option that was set to what it cannot be
            raise
        bump_versions(params)
        if is_first and states[0]:
            self.state.update(zip(params, states, strict=True))  # only now: a failed first step leaves none behind
        if observers and mode.recorder is not None:
            mode.recorder.done(functools.partial(bump_versions, params))
            if states[0]:
                mode.recorder.same_entry(self.state, params[0])

    def _while_recording(self, recorder: Any) -> None:
        state = {p: dict(values) for p, values in self.state.items()}
        recorder.undo(lambda: setattr(self, "state", state))
        recorder.fixed(self, "state")
        recorder.fixed(self, "param_groups")
        recorder.same_items(self.param_groups)
        for group in self.param_groups:
            recorder.same_entry(group, "params")
            recorder.same_items(group["params"])
        for p in self._params():
            recorder.uses_gradient(p)

    def _call(
        self,
        update: Callable[..., None],
        states: Sequence[State],
        *lists: list[Array],
        numbers: Callable[[int], tuple[Any, ...]],
        present: Callable[[], object] | None = None,
    ) -> None:
        """Call an update of the core with lists of arrays and the numbers of this step, which is counted from 1.

        `present` says which of the lists are not empty: a captured step is captured anew when that changes.
        """
        update(*lists, *numbers(states[0].get("step", 0) + 1))
        if observers and mode.recorder is not None:
            self._note_call(mode.recorder, states, lists[-1], len(lists), numbers, present)
        if "step" in self._scalars:
            _count(states)

    def _note_call(
        self,
        recorder: Any,
        states: Sequence[State],
        written: list[Array],
        first: int,
        numbers: Callable[[int], tuple[Any, ...]],
        present: Callable[[], object] | None,
    ) -> None:
        """Tell a recorder how each replay finds the numbers of `_call`, the arguments from `first` on."""
        # Updates of these states earlier in a captured function: a replay counts behind all calls.
        ahead = sum(_writes(call, written) for call in recorder.calls[:-1] if call.written)

        def at_this_step() -> tuple[Any, ...]:
            return numbers(states[0].get("step", 0) + 1 + ahead)

        now = at_this_step if "step" in self._scalars else functools.partial(numbers, 0)

        def in_step() -> bool:  # a parameter that was frozen for a while has fewer
            steps = [state["step"] for state in states]
            return steps.count(steps[0]) == len(steps)

        counted = "step" in self._scalars
        recorder.repeat(first, now, *([functools.partial(_count, states)] if counted else []))
        if present is not None:
            recorder.holds(present, present())
        if counted and len(states) > 1:
            recorder.holds(in_step)

    # -- what an algorithm defines -------------------------------------------------------------------------------------

    def _check(self, options: Group) -> None:
        """Raise ValueError if an option is out of range."""

    def _update(self, group: Group, weights: list[Array], grads: list[Array], states: Sequence[State]) -> None:
        """Update the values of parameters of one dtype and one step count; fill in states that are empty."""
        raise NotImplementedError(f"{self._name}: defines no step")

    def _params(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the state and the options; parameters are numbered in the order of the groups.

        Returns
        -------
        dict
            `state`: {number: {name: array or int}}; `param_groups`: the options, with numbers as `params`.
        """
        catch_up()
        numbers = {id(p): i for i, p in enumerate(self._params())}
        return {
            "state": {numbers[id(p)]: copy.deepcopy(self.state[p]) for p in self._params() if p in self.state},
            "param_groups": [
                {
                    **copy.deepcopy({k: v for k, v in group.items() if k != "params"}),
                    "params": [numbers[id(p)] for p in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, all or nothing.

        Raises
        ------
        TypeError, ValueError
            If it is no such state, or groups, options, names or shapes differ from this optimiser's; it is then
            unchanged.
        """
        catch_up()
        what = f"{self._name}.load_state_dict"
        if not isinstance(state, Mapping):
            raise TypeError(f"{what}: got {type(state).__name__}, needs what state_dict returned")
        if not {"state", "param_groups"} <= state.keys():
            raise ValueError(f"{what}: needs a dict with the keys 'state' and 'param_groups'")
        if not isinstance(state["state"], Mapping) or not _are_groups(state["param_groups"]):
            raise TypeError(f"{what}: 'state' needs to be a dict, 'param_groups' a list of dicts with a list 'params'")
        if [len(g["params"]) for g in state["param_groups"]] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(f"{what}: the numbers of parameters in the groups differ from this optimiser's")
        groups = []
        for own, saved in zip(self.param_groups, state["param_groups"], strict=True):
            if saved.keys() != own.keys():
                raise ValueError(f"{what}: group has options {sorted(saved)}, needs {sorted(own)}")
            options = {**copy.deepcopy({**saved, "params": None}), "params": own["params"]}
            self._check(options)
            groups.append(options)
        numbers = [i for g in state["param_groups"] for i in g["params"]]
        params = dict(zip(numbers, self._params(), strict=True))
        if len(params) != len(numbers):
            raise ValueError(f"{what}: param_groups have a number twice in {numbers}")
        states: dict[Tensor, State] = {}
        for number, saved in state["state"].items():
            if number not in params:
                raise ValueError(f"{what}: state of parameter {number}, which no group has")
            states[params[number]] = self._checked_state(f"{what}: parameter {number}", params[number], saved)
        self.param_groups, self.state = groups, states

    def _checked_state(self, what: str, p: Tensor, saved: Mapping[str, Any]) -> State:
        """Return a copy of one parameter's saved state."""
        if not isinstance(saved, Mapping):
            raise TypeError(f"{what} has a {type(saved).__name__} as state, needs a dict")
        if not (self._arrays or self._optional_arrays or self._scalars):  # one's own, whose `step` knows what it needs
            return copy.deepcopy(dict(saved))
        if saved.keys() - set(self._optional_arrays) != {*self._arrays, *self._scalars}:
            raise ValueError(f"{what} has state {sorted(saved)}, needs {sorted((*self._arrays, *self._scalars))}")
        state: State = {}
        for name in self._scalars:
            try:
                count = int(saved[name])
            except (TypeError, ValueError, OverflowError):  # OverflowError: of an infinity
                count = 0
            # Beyond 2^53 float64 has no room for the powers of betas that it counts.
            if not 0 < count < 2**53 or count != saved[name]:
                raise ValueError(f"{what}: {name} is {saved[name]!r}, needs the number of steps taken")
            state[name] = count
        for name in saved.keys() - set(self._scalars):
            try:
                array = np.asarray(saved[name])
            except ValueError as error:  # unequal lists
                raise ValueError(f"{what}: {name} is not an array: {error}") from None
            if array.dtype.kind not in "biuf":
                raise TypeError(f"{what}: {name} has dtype {array.dtype}, needs numbers")
            if array.shape != p.shape:
                raise ValueError(f"{what}: {name} has shape {list(array.shape)}, needs {list(p.shape)}")
            state[name] = _core.empty(p.shape, p.dtype)
            state[name][...] = array
        return state

    def __repr__(self) -> str:
        """Return the options of every group."""
        lines = [
            ", ".join(f"{k}={v}" for k, v in group.items() if k != "params") + f" ({len(group['params'])} parameters)"
            for group in self.param_groups
        ]
        return f"{self._name}(\n  " + "\n  ".join(lines) + "\n)"


def _are_groups(saved: object) -> bool:
    return isinstance(saved, list | tuple) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple) for group in saved
    )


def _are_alike(weights: list[Array], states: list[State]) -> bool:
    """Whether there are some, of one dtype and one step count (as a rule: dtypes are compared by identity)."""
    if not weights:
        return False
    dtype, count = weights[0].dtype, states[0].get("step", len(states[0]))
    for weight, state in zip(weights, states):  # noqa: B905 - strict costs as much as the rest of the line
        if weight.dtype is not dtype or state.get("step", len(state)) != count:
            return False
    return True


def _count(states: Sequence[State]) -> None:
    for state in states:
        state["step"] = state.get("step", 0) + 1


def _writes(call: Call, arrays: list[Array]) -> bool:
    return not {*map(memory, arrays)}.isdisjoint(map(memory, call.written))


def buffers(weights: Sequence[Array], states: Sequence[State], name: str, start: float = 0.0) -> list[Array]:
    """Return the state arrays `name` of parameters; new ones are filled with `start`."""
    try:
        return [state[name] for state in states]
    except KeyError:  # the first step, or the first with an option that needs it, which some may have skipped
        for weight, state in zip(weights, states, strict=True):
            if name not in state:
                state[name] = _core.empty(weight.shape, weight.dtype)  # where weights lie: at the start of a cache line
                state[name].fill(start)
        return [state[name] for state in states]


def check_range(optimizer: str, low: float, below: float = math.inf, **options: Any) -> None:
    """Raise TypeError or ValueError unless every option is a number with low <= option < below."""
    for name, value in options.items():
        real(f"{optimizer}: {name}", value, low, below)
