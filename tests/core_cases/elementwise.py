"""Elementwise functions of one and of two arrays."""

from typing import Any

import numpy as np
import oracle

from core_cases.case import EXACT, SHAPES, SPECIAL, case, chosen, f32, family, normal, positive, ties_of, uniform


@family
def elementwise_one() -> None:
    def unary(name: str, *args: Any, ulps: float = EXACT, make: Any = normal, scale: Any = None) -> None:
        for shape in SHAPES:
            case(name, make(*shape), *args, ulps=ulps, scale=scale)

    def backward(name: str, *args: Any, ulps: float = 2, make: Any = normal, scale: Any = None) -> None:
        for shape in SHAPES:
            case(name, normal(*shape), make(*shape), *args, ulps=ulps, scale=scale)

    def wide(*shape: int) -> np.ndarray:
        return normal(*shape, std=20)

    def dy_scale(dy: np.ndarray, *rest: Any) -> np.ndarray:
        return np.abs(dy)

    def softplus_scale(x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
        return oracle.softplus(x, beta, threshold) * (1 + np.abs(beta * x))

    def softplus_slope_scale(x: np.ndarray, beta: float) -> np.ndarray:
        return np.asarray(oracle.sigmoid(beta * x) * (1 + np.abs(beta * x)))

    for name in ("neg", "abs", "relu"):
        unary(name)
        case(name, SPECIAL)
    unary("leaky_relu", 0.125, ulps=1)
    unary("clip", -0.5, 0.75)
    case("clip", SPECIAL, -1.0, np.inf)
    # Vector versions of the exponential and logarithm are good to 2 ulps; what divides their results adds one or two.
    # From exp(-88) on, float32 is subnormal.
    unary("exp", ulps=2, make=wide)
    case("exp", f32([np.nan, np.inf, -np.inf, 0, -0.0, 88, 89, -86, -87, -103, -200, 708, 710, -746, 1e30]), ulps=2)
    unary("log", ulps=2, make=positive)
    near_one = normal(999, mean=1, std=1e-3)
    case("log", near_one, ulps=2)
    case("log", np.append(np.abs(SPECIAL), [-1.0, -np.inf]), ulps=2)
    unary("sqrt", ulps=1, make=positive)
    case("sqrt", SPECIAL, ulps=1)
    unary("sigmoid", ulps=4, make=wide)
    unary("tanh", ulps=4)
    tiny = normal(999, std=1e-4)  # tanh must keep the digits of a small x
    case("tanh", tiny, ulps=4)
    for name in ("sigmoid", "tanh"):
        case(name, SPECIAL, ulps=4)
    for approximate in (False, True):
        # The tails are a difference of nearly equal numbers: the error is relative to x, not to gelu(x).
        unary("gelu", approximate, ulps=4, scale=lambda x, _: np.abs(x))
        unary("gelu", approximate, ulps=4, make=wide, scale=lambda x, _: np.abs(x))
        case(
            "gelu",
            np.array([np.nan, np.inf, 0.0, -0.0, 100.0, -100.0, 9.0, -9.0]),
            approximate,
            ulps=4,
            scale=lambda x, _: np.abs(x),
        )
        backward("gelu_backward", approximate, ulps=6, scale=lambda dy, x, _: np.abs(dy) * (1 + np.abs(x)))
        backward("gelu_backward", approximate, ulps=6, make=wide, scale=lambda dy, x, _: np.abs(dy) * (1 + np.abs(x)))

    for make in (normal, wide):
        unary("silu", ulps=5, make=make)
        # s (1 + x (1 - s)) cancels where the slope is 0, at x = -1.28
        backward("silu_backward", ulps=6, make=make, scale=lambda dy, x: np.abs(dy) * (1 + np.abs(x)))
        for alpha in (1.0, 0.25):
            unary("elu", alpha, ulps=6, make=make)
            backward("elu_backward", alpha, ulps=4, make=make)
        for beta in (1.0, 3.0):
            # The exponential multiplies the rounding of its argument by the argument.
            unary("softplus", beta, 20.0, ulps=6, make=make, scale=softplus_scale)
            backward(
                "softplus_backward",
                beta,
                20.0,
                ulps=6,
                make=make,
                scale=lambda dy, x, beta, _: np.abs(dy) * softplus_slope_scale(x, beta),
            )
    case("elu", tiny, 1.0, ulps=6)
    for name in ("elu", "silu"):
        case(name, SPECIAL, *[1.0] * (name == "elu"), ulps=6)
    case("softplus", SPECIAL, 1.0, 20.0, ulps=8)
    backward("relu_backward", ulps=EXACT)
    backward("leaky_relu_backward", 0.125, ulps=1)
    backward("abs_backward", ulps=EXACT)
    backward("clip_backward", -0.5, 0.75, ulps=EXACT)
    backward("sqrt_backward", make=positive)
    backward("sigmoid_backward", ulps=3, make=uniform)
    backward("tanh_backward", make=uniform, scale=dy_scale)
    zeros = np.array([0.0, -0.0, 0.0, 1.0, -1.0, 0.75, -0.5])
    case("relu_backward", normal(7), zeros)
    case("abs_backward", normal(7), zeros)
    case("clip_backward", normal(7), zeros, -0.5, 0.75)
    case("leaky_relu_backward", normal(7), zeros, 0.125, ulps=1)


# pairs of shapes that broadcast: equal, scalar on either side, rows, columns, both, lead axes, empty, several axes
BROADCAST = [
    *((shape, shape) for shape in SHAPES),
    ((), (37,)),
    ((37,), ()),
    ((1,), (5, 33)),
    ((65, 70), (70,)),
    ((65, 70), (65, 1)),
    ((65, 1), (1, 70)),
    ((2, 3, 4, 17), (3, 1, 17)),
    ((2, 1, 4, 1), (3, 1, 17)),
    ((0, 3), (1, 3)),
    ((1, 3), (0, 1)),
    ((4, 1, 3, 1, 5), (1, 2, 1, 6, 5)),
    ((300, 151), (1, 151)),
    ((300, 151), (300, 1)),
]


@family
def elementwise_two() -> None:
    def binary(name: str, ulps: float = EXACT, make_a: Any = normal, make_b: Any = normal, scale: Any = None) -> None:
        for a, b in BROADCAST:
            case(name, make_a(*a), make_b(*b), ulps=ulps, scale=scale)

    def pow_scale(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # a^b = exp(b log a) multiplies the relative error of its exponent by the exponent.
        return np.abs(np.power(a, b)) * (1 + np.abs(b * np.log(np.abs(a))))

    def pow_backward_scale(dy: np.ndarray, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        amplified = np.abs(dy * y) * (1 + np.abs(b * np.log(a)))
        return amplified * (np.abs(b) + 1) / a, np.abs(dy * y) * (1 + np.abs(np.log(a)))

    for name in ("add", "sub", "mul", "div"):
        binary(name, ulps=0.5)  # correctly rounded
        case(name, SPECIAL[:, None], SPECIAL[None, :], ulps=0.5)
    for name in ("maximum", "minimum"):
        binary(name)
        binary(name, make_a=ties_of, make_b=ties_of)
        case(name, SPECIAL[:, None], SPECIAL[None, :])
    binary("pow", ulps=4, make_a=positive, scale=pow_scale)
    for exponent in (0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5):
        case("pow", normal(77), np.array(exponent), ulps=4, scale=pow_scale)
    base = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 2.0, -2.0])
    case("pow", base[:, None], np.array([0.0, 1.0, 2.0, -1.0, 0.5, np.inf, -np.inf, np.nan]), ulps=4)

    for shape in SHAPES:
        a, b, dy = positive(*shape), normal(*shape), normal(*shape)
        case("pow_backward", dy, a, b, f32(a**b), ulps=8, scale=pow_backward_scale)
        for name in ("maximum_backward", "minimum_backward"):
            case(name, dy, b, normal(*shape))
            case(name, dy, ties_of(*shape), ties_of(*shape))
        condition = chosen(*shape)
        case("where", condition, a, b)
        case("where_backward", dy, condition)
    a, b = np.array([0.0, 0.0, 2.0, 3.0, 0.0]), np.array([0.0, 2.0, 0.0, 1.0, 1.0])
    case("pow_backward", normal(5), a, b, a**b, ulps=4)
    for a_shape, b_shape in BROADCAST[len(SHAPES) :]:
        a, b = positive(*a_shape), normal(*b_shape)
        full = np.broadcast_shapes(a_shape, b_shape)
        dy = normal(*full)
        case("pow_backward", dy, a, b, f32(a**b), ulps=8, scale=pow_backward_scale)
        case("maximum_backward", dy, a, b)
        case("minimum_backward", dy, a, b)
        condition = chosen(*a_shape)
        case("where", condition, normal(*b_shape), normal(*full))
        case("where", np.ones(full, bool), a, b)
        case("where_backward", dy, condition)
