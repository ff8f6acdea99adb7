"""matmul and linear."""

from typing import Any

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import absolute, case, f32, family, normal


@family
def gemm() -> None:
    for m, k, n in (
        (1, 1, 1),
        (3, 5, 7),
        (17, 33, 9),
        (64, 64, 64),
        (1, 100, 50),
        (50, 100, 1),
        (0, 3, 4),
        (3, 0, 4),
        (3, 4, 0),
        (129, 300, 131),
        (2, 1000, 2),
    ):
        for transpose_a in (False, True):
            for transpose_b in (False, True):
                a, b = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
                case(
                    "matmul",
                    normal(*a),
                    normal(*b),
                    transpose_a,
                    transpose_b,
                    ulps=sum_ulps(k),
                    scale=absolute("matmul"),
                )
    for a, b in (
        ((5, 3, 4), (5, 4, 6)),
        ((5, 3, 4), (4, 6)),
        ((3, 4), (5, 4, 6)),
        ((2, 1, 3, 4), (1, 5, 4, 6)),
        ((0, 3, 4), (4, 6)),
        ((2, 0, 3, 4), (2, 1, 4, 6)),
    ):
        case("matmul", normal(*a), normal(*b), False, False, ulps=sum_ulps(a[-1]), scale=absolute("matmul"))
    case("matmul", normal(6, 4, 3), normal(6, 5, 4), True, True, ulps=sum_ulps(4), scale=absolute("matmul"))

    def linear_scale(x: Any, weight: Any, bias: Any, activation: str, trained: bool = True) -> Any:
        # No activation stretches an error; its own is of the size of y, below 1 where it is not below the terms.
        y = absolute("linear")(x, weight, bias, "none")
        return y if activation in ("none", "relu", "leaky_relu") else y + 1

    def backward_scale(dy: Any, y: Any, x: Any, weight: Any, activation: str, *need: bool) -> Any:
        return absolute("linear_backward")(dy, y, x, weight, "none", *need)

    for lead, inputs, outputs in (
        ((3,), 5, 7),
        ((1,), 1, 1),
        ((), 5, 7),
        ((2, 3), 17, 33),
        ((0,), 5, 7),
        ((64,), 300, 100),
        ((4,), 0, 3),
        ((2, 0), 3, 4),
        ((130,), 784, 10),
    ):
        x, weight, bias = normal(*lead, inputs), normal(outputs, inputs), normal(outputs)
        rows = int(np.prod(lead))
        for activation in ("none", "relu", "leaky_relu", "sigmoid", "tanh"):
            for b in (bias, None) if activation in ("none", "relu") else (bias,):
                case("linear", x, weight, b, activation, ulps=4 + sum_ulps(inputs), scale=linear_scale)
            y = f32(oracle.linear(x, weight, bias, activation))
            case(
                "linear_backward",
                normal(*y.shape),
                y,
                x,
                weight,
                activation,
                True,
                True,
                True,
                ulps=4 + sum_ulps(max(rows, outputs)),
                scale=backward_scale,
            )
        case("linear", x, weight, bias, "relu", False, ulps=4 + sum_ulps(inputs), scale=linear_scale)
    for need in ((False, True, True), (True, False, False), (False, False, True)):
        case(
            "linear_backward",
            normal(3, 7),
            normal(3, 7),
            normal(3, 5),
            normal(7, 5),
            "none",
            *need,
            ulps=sum_ulps(7),
            scale=backward_scale,
        )
