"""Reductions, sum_to and broadcast_to."""

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import SPECIAL, absolute, case, family, normal, ties_of

REDUCTIONS = [
    ((), ()),
    ((5,), ()),
    ((1,), (0,)),
    ((7,), (0,)),
    ((1031,), (0,)),
    ((70_001,), (0,)),
    ((3, 5), (0,)),
    ((3, 5), (1,)),
    ((3, 5), (0, 1)),
    ((65, 130), (0,)),
    ((65, 130), (1,)),
    ((4, 1, 17), (1,)),
    ((2, 3, 4, 5), (0, 2, 3)),
    ((2, 3, 4, 5), (1,)),
    ((2, 3, 4, 5), (1, 3)),
    ((6, 33, 7), (0, 2)),
    ((0, 3), (1,)),
    ((3, 0, 2), (2,)),
    ((64, 1000), (0,)),
    ((64, 1000), (1,)),
]


def terms_of(x: np.ndarray, axes: tuple[int, ...]) -> int:
    return max(1, int(np.prod([x.shape[axis] for axis in axes])))


@family
def reductions() -> None:
    for shape, axes in REDUCTIONS:
        x, ties = normal(*shape), ties_of(*shape)
        terms = terms_of(x, axes)
        for keepdims in (False, True):
            for name in ("sum", "mean"):
                case(name, x, axes, keepdims, ulps=sum_ulps(terms), scale=absolute(name))
            for name in ("max", "min"):
                case(name, x, axes, keepdims)
            case("var", x, axes, 0, keepdims, ulps=2 * sum_ulps(terms))
            if terms > 1:
                case("var", x, axes, 1, keepdims, ulps=2 * sum_ulps(terms))
        if axes:
            case("argmax", ties, axes[0])
        dy = normal(*oracle.sum(x, axes, True).shape)
        for y in (oracle.max(ties, axes, True), oracle.min(ties, axes, True)):
            case("extremum_backward", dy, ties, y, axes, ulps=1)
        for correction in (0, 1) if terms > 1 else (0,):
            case(
                "var_backward",
                dy,
                x,
                axes,
                correction,
                ulps=sum_ulps(terms),
                scale=lambda dy, x, axes, c: (
                    np.abs(dy)
                    * 2
                    * (np.abs(x) + np.mean(np.abs(x), tuple(axes), keepdims=True))
                    / (terms_of(x, axes) - c)
                ),
            )
    for name in ("sum", "mean"):
        case(name, np.zeros((0, 3)), (0,), False, ulps=1)  # 0, and NaN
        case(name, SPECIAL.reshape(7, 2), (1,), False, ulps=1)
    # An offset of 1000 deviations: E[x^2] - E[x]^2 would lose every digit in float32.
    offset = normal(64, 33, mean=1000.0)
    case("var", offset, (0,), 1, False, ulps=2 * sum_ulps(64))
    case("var", np.zeros((0, 3)), (0,), 0, False, ulps=1)
    case("var", np.ones((1, 3)), (0,), 1, False, ulps=1)
    for name in ("max", "min"):
        case(name, SPECIAL, (0,), False)
        case(name, SPECIAL.reshape(2, 7), (0,), True)
        case(name, SPECIAL[1:].reshape(13, 1), (0,), False)
        case(name, np.full(5, -np.inf), (0,), False)
    case("argmax", SPECIAL, 0)
    case("argmax", SPECIAL[1:], 0)
    case("argmax", np.full((3, 40), -np.inf), 1)
    case("argmax", np.full((3, 40), 2.0), 1)
    case("argmax", np.append(np.zeros(40), np.nan), 0)
    for shape in (
        ((5, 33), (33,)),
        ((5, 33), (5, 1)),
        ((5, 33), ()),
        ((2, 3, 4, 17), (3, 1, 17)),
        ((7,), (7,)),
        ((2, 3, 4, 5), (1, 1, 4, 1)),
        ((0, 3), (1, 3)),
        ((300, 151), (151,)),
        ((300, 151), (300, 1)),
        ((40_013,), ()),
        ((), ()),
    ):
        wide, narrow = shape
        terms = max(1, int(np.prod(wide) / max(1, np.prod(narrow))))
        case("sum_to", normal(*wide), narrow, ulps=sum_ulps(terms), scale=absolute("sum_to"))
        case("broadcast_to", normal(*narrow), wide)
    case("broadcast_to", normal(1, 3), (0, 3))
