"""Recurrent layers over whole sequences."""

from typing import Any

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import case, f32, family, integers, normal

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@family
def recurrent() -> None:
    def forward_scale(name: str) -> Any:
        def scale(x: Any, h0: Any, *rest: Any) -> list[Any]:
            """Return the size of the sums, whose errors add up over the steps; no activation stretches them."""
            weight_ih, weight_hh, bias, *_, reverse = rest[1:] if name == "lstm" else rest
            numbers = np.eye(weight_ih.shape[1])[x] if x.ndim == 2 else np.abs(x)
            if name == "rnn" and rest[-2]:
                sizes = [None if a is None else np.abs(a) for a in (h0, weight_ih, weight_hh, bias, bias)]
                return list(oracle.rnn(numbers, *sizes, True, reverse))
            weights_of_states = np.abs(weight_hh).sum(axis=1) * max(
                1, 0 if h0 is None else np.max(np.abs(h0), initial=0)
            )
            sums = numbers @ np.abs(weight_ih).T + weights_of_states + (0 if bias is None else 2 * np.abs(bias))
            return [len(x) * np.max(sums, initial=1)] * 5

        return scale

    def backward_scale(name: str) -> Any:
        def scale(*args: Any) -> Any:
            sizes = [np.abs(a) if isinstance(a, np.ndarray) and a.dtype == np.float64 else a for a in args]
            if name == "gru":  # h - n is a difference
                sizes[2][..., -sizes[2].shape[-1] // 3 :] *= -1
            return getattr(oracle, f"{name}_backward")(*sizes)

        return scale

    for steps, batch, inputs, hidden in (
        (1, 1, 1, 1),
        (3, 2, 3, 5),
        (5, 7, 4, 17),
        (2, 67, 5, 33),  # rows for several tasks
        (3, 6, 300, 40),
        (0, 3, 4, 2),
        (3, 0, 4, 2),
        (2, 3, 0, 4),
        (2, 3, 4, 0),
        (1, 2, 9, 130),  # nothing packed
    ):
        for name, gates in GATES.items():
            for reverse, with_states, with_bias, one_hot in (
                (False, True, True, False),
                (True, False, True, False),
                (True, True, False, inputs > 0),
                (False, False, False, inputs > 0),
            ):
                x = integers(inputs, steps, batch) if one_hot else normal(steps, batch, inputs)
                states: list[Any] = [normal(batch, hidden) for _ in range(1 + (name == "lstm"))]
                states = states if with_states else [None] * len(states)
                weight_ih = normal(gates * hidden, inputs, std=(inputs + 1) ** -0.5)
                weight_hh = normal(gates * hidden, hidden, std=(hidden + 1) ** -0.5)
                biases = [normal(gates * hidden) if with_bias else None] * 2
                relu = [with_bias == reverse] if name == "rnn" else []
                terms = inputs + hidden
                args = [x, *states, weight_ih, weight_hh, *biases, *relu, reverse]
                case(name, *args, ulps=16 + sum_ulps(terms), scale=forward_scale(name))

                y, _, *kept = [f32(a) for a in getattr(oracle, name)(*args)]
                kept = kept[1:] if name == "lstm" else kept
                gradients: list[Any] = [normal(steps, batch, hidden), *[normal(batch, hidden) for _ in states]]
                if not with_states:
                    gradients[with_bias] = None
                needs = [True] * (2 + len(states)) if with_bias else [reverse, *[not reverse] * len(states), True]
                case(
                    f"{name}_backward",
                    *gradients,
                    *kept,
                    y,
                    *(x, *states, weight_ih, weight_hh, *relu, reverse, *needs),
                    ulps=16 + steps * sum_ulps(max(gates * hidden, steps * batch)),
                    scale=backward_scale(name),
                )
