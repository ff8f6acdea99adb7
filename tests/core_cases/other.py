"""Dropout, embedding and the optimisers."""

import numpy as np
from closeness import sum_ulps

from core_cases.case import SHAPES, absolute, case, f32, family, integers, normal, positive


@family
def random_and_gather() -> None:
    for shape in SHAPES:
        for p, seed, offset in ((0.5, 0, 0), (0.25, 2**63 + 12345, 2**40 + 3)):
            case("dropout", normal(*shape), p, seed, offset, ulps=1)
    case("dropout", normal(9), 0.0, 1, 0)
    case("dropout", normal(9), 1.0, 1, 0)
    for vocabulary, width, shape in (
        (1, 1, (1,)),
        (5, 3, (4,)),
        (7, 17, (2, 3)),
        (7, 17, ()),
        (5, 3, (0,)),
        (50, 33, (40, 30)),
    ):
        indices = integers(vocabulary, *shape)
        case("embedding", normal(vocabulary, width), indices)
        dy = normal(*shape, width)
        case(
            "embedding_backward",
            dy,
            indices,
            vocabulary,
            ulps=sum_ulps(max(1, indices.size)),
            scale=absolute("embedding_backward"),
        )


@family
def optimisers() -> None:
    def arrays() -> list[np.ndarray]:
        return [normal(*shape) for shape in SHAPES]

    # A step adds a handful of products to the parameter: each rounds once, relative to the largest of them.
    for momentum, dampening, weight_decay, nesterov, first in (
        (0.0, 0.0, 0.0, False, True),
        (0.0, 0.0, 0.125, False, False),
        (0.9, 0.0, 0.0, False, True),
        (0.9, 0.0, 0.0, False, False),
        (0.9, 0.25, 0.125, False, False),
        (0.9, 0.0, 0.125, True, False),
    ):
        params, grads = arrays(), arrays()
        buffers = arrays() if momentum else []
        case(
            "sgd_",
            params,
            grads,
            buffers,
            0.1,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            first,
            ulps=8,
            scale=lambda params, grads, buffers, *_: [
                *(
                    np.abs(p) + np.abs(g) + sum(np.abs(b) for b in buffers[i : i + 1])
                    for i, (p, g) in enumerate(zip(params, grads, strict=True))
                ),
                *(np.abs(b) + np.abs(g) + np.abs(p) for p, g, b in zip(params, grads, buffers, strict=False)),
            ],
        )
    for step, weight_decay, decoupled in ((1, 0.0, False), (1000, 0.125, False), (7, 0.125, True)):
        params, grads, m = arrays(), arrays(), arrays()
        v = [positive(*shape) for shape in SHAPES]
        case(
            "adam_",
            params,
            grads,
            m,
            v,
            step,
            0.1,
            0.9,
            0.999,
            1e-8,
            weight_decay,
            decoupled,
            ulps=16,
            scale=lambda params, grads, m, v, *_: [
                *(
                    np.abs(p) + (np.abs(p) + np.abs(g) + np.abs(a)) / np.sqrt(b)
                    for p, g, a, b in zip(params, grads, m, v, strict=True)
                ),
                *(np.abs(a) + np.abs(g) + np.abs(p) for p, g, a in zip(params, grads, m, strict=True)),
                *(b + (np.abs(g) + np.abs(p)) ** 2 for p, g, b in zip(params, grads, v, strict=True)),
            ],
        )
    case("l2_norm", arrays(), ulps=sum_ulps(sum(int(np.prod(shape)) for shape in SHAPES)))
    case("l2_norm", [], ulps=2)
    case("l2_norm", [f32([3e30, 4e30])], ulps=2)
    case("scale_", arrays(), 0.3, ulps=1)
    case("all_finite", arrays())
    case("all_finite", [])
    for bad in (np.nan, np.inf, -np.inf):
        for at in (0, 17, 1030):
            poisoned = normal(1031)
            poisoned[at] = bad
            case("all_finite", [normal(3), poisoned])
