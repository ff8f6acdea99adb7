"""Dropout, embedding and the optimisers."""

from collections.abc import Callable

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


def _lists(make: Callable[..., np.ndarray], n: int) -> list[list[np.ndarray]]:
    return [[make(*shape) for shape in SHAPES] for _ in range(n)]


def _adaptive() -> None:
    for eps, weight_decay, momentum, centered in (
        (1e-8, 0.0, 0.0, False),
        (1e-3, 0.125, 0.9, False),
        (1e-3, 0.125, 0.0, True),
        (1e-2, 0.0, 0.5, True),
    ):
        params, grads, buffers = _lists(normal, 3)
        means = [f32(np.clip(m, -0.25, 0.25)) for m in _lists(normal, 1)[0]]
        squares = [f32(v + 1) for v in _lists(positive, 1)[0]]  # the variance keeps most of their digits
        case(
            "rmsprop_",
            params,
            grads,
            squares,
            means if centered else [],
            buffers if momentum else [],
            0.1,
            0.75,
            eps,
            weight_decay,
            momentum,
            ulps=16,
            scale=_rmsprop_scale,
        )
    for step, lr_decay, weight_decay in ((1, 0.0, 0.0), (7, 0.25, 0.125)):
        case(
            "adagrad_",
            *_lists(normal, 2),
            *_lists(positive, 1),
            step,
            0.1,
            lr_decay,
            1e-10,
            weight_decay,
            ulps=16,
            scale=lambda params, grads, sums, *_: [
                *(
                    np.abs(p) + (np.abs(p) + np.abs(g)) / np.sqrt(s)
                    for p, g, s in zip(params, grads, sums, strict=True)
                ),
                *(s + (np.abs(g) + np.abs(p)) ** 2 for p, g, s in zip(params, grads, sums, strict=True)),
            ],
        )
    for eps, weight_decay in ((1e-6, 0.0), (1e-2, 0.125)):
        case(
            "adadelta_",
            *_lists(normal, 2),
            *_lists(positive, 2),
            0.5,
            0.75,
            eps,
            weight_decay,
            ulps=32,
            scale=lambda params, grads, squares, deltas, *_: [
                *(
                    np.abs(p) + np.sqrt((d + 1) / v) * (np.abs(g) + np.abs(p))
                    for p, g, v, d in zip(params, grads, squares, deltas, strict=True)
                ),
                *(v + (np.abs(g) + np.abs(p)) ** 2 for p, g, v in zip(params, grads, squares, strict=True)),
                *(
                    d + (d + 1) / v * (np.abs(g) + np.abs(p)) ** 2
                    for p, g, v, d in zip(params, grads, squares, deltas, strict=True)
                ),
            ],
        )


def _rmsprop_scale(params, grads, squares, means, buffers, *_):  # type: ignore[no-untyped-def]
    sizes = [np.abs(p) + np.abs(g) for p, g in zip(params, grads, strict=True)]
    steps = [s + (np.abs(buffers[i]) if buffers else 0) for i, s in enumerate(sizes)]  # the divisor is at least 0.8
    return [
        *(np.abs(p) + s for p, s in zip(params, steps, strict=True)),
        *(v + s**2 for v, s in zip(squares, sizes, strict=True)),
        *(np.abs(m) + s for m, s in zip(means, sizes, strict=False)),
        *(steps if buffers else []),
    ]


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
    _adaptive()
    case("l2_norm", arrays(), ulps=sum_ulps(sum(int(np.prod(shape)) for shape in SHAPES)))
    case("l2_norm", [], ulps=2)
    case("l2_norm", [f32([3e30, 4e30])], ulps=2)
    for max_norm in (0.5, 1e9):
        case("clip_norm_", arrays(), max_norm, ulps=sum_ulps(sum(int(np.prod(shape)) for shape in SHAPES)) + 1)
    case("clip_norm_", [f32([np.inf, 1.0])], 1.0)
    case("scale_", arrays(), 0.3, ulps=1)
    case("require_finite", arrays(), "a sum")
    case("require_finite", [], "nothing")
