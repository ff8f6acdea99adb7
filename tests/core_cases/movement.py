"""Functions that move elements without changing them."""

import numpy as np

from core_cases.case import case, family, normal


@family
def shapes() -> None:
    for shape, axes in (
        ((), ()),
        ((5,), (0,)),
        ((3, 5), (1, 0)),
        ((33, 65), (1, 0)),
        ((2, 3, 4), (2, 0, 1)),
        ((2, 3, 4), (0, 1, 2)),
        ((4, 7, 9, 5), (0, 2, 3, 1)),
        ((4, 7, 9, 5), (3, 1, 2, 0)),
        ((0, 3), (1, 0)),
        ((300, 170), (1, 0)),
        ((2, 2, 2, 2, 3), (4, 2, 0, 1, 3)),
    ):
        case("transpose", normal(*shape), axes)
    for pieces, axis in (
        ([(3,)], 0),
        ([(3,), (0,), (5,)], 0),
        ([(2, 3), (2, 1), (2, 4)], 1),
        ([(2, 3), (5, 3)], 0),
        ([(2, 3, 4)] * 3, 1),
        ([(0, 2), (0, 3)], 1),
        ([(100, 150), (100, 151)], 1),
    ):
        case("concatenate", [normal(*piece) for piece in pieces], axis)
    for shape, widths, value in (
        ((), (), 0.0),
        ((3,), ((1, 2),), 0.5),
        ((2, 3), ((0, 0), (1, 0)), 0.0),
        ((2, 3, 4), ((1, 0), (0, 2), (3, 3)), -1.0),
        ((0, 2), ((1, 1), (0, 0)), 2.0),
        ((3,), ((0, 0),), 0.0),
        ((100, 200), ((3, 4), (5, 6)), np.inf),
    ):
        case("pad", normal(*shape), widths, value)
    for shape, starts, steps, sizes in (
        ((), (), (), ()),
        ((7,), (2,), (1,), (3,)),
        ((7,), (6,), (-2,), (4,)),
        ((7,), (0,), (3,), (3,)),
        ((7,), (3,), (1,), (0,)),
        ((5, 6), (4, 1), (-1, 2), (5, 3)),
        ((4, 5, 6), (1, 0, 2), (1, 1, 1), (2, 5, 4)),
        ((0, 3), (0, 0), (1, 1), (0, 3)),
        ((200, 150), (1, 0), (1, 1), (150, 150)),
        ((200, 150), (0, 149), (2, -1), (100, 150)),
    ):
        case("slice", normal(*shape), starts, steps, sizes)
        case("slice_backward", normal(*sizes), shape, starts, steps)
