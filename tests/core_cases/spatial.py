"""conv2d and pooling."""

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import absolute, case, family, normal, ties_of

CONVOLUTIONS = [
    # x, out, kernel, stride, pads, dilation, groups
    ((1, 1, 1, 1), 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 3, 7, 6), 4, (3, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 3, 7, 7), 5, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((2, 4, 9, 8), 6, (3, 3), (2, 3), (1, 1, 2, 2), (2, 1), 2),
    ((1, 3, 5, 5), 3, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 3),
    ((3, 4, 6, 5), 8, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    ((2, 3, 6, 7), 4, (2, 2), (1, 1), (0, 1, 0, 1), (1, 1), 1),
    ((2, 3, 6, 7), 4, (2, 3), (2, 2), (3, 0, 1, 4), (1, 1), 1),
    ((2, 5, 8, 9), 7, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 5, 8, 9), 7, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    ((1, 2, 3, 40), 3, (1, 9), (1, 2), (0, 0, 4, 4), (1, 3), 1),
    ((1, 1, 4, 4), 2, (4, 4), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((0, 3, 5, 5), 2, (2, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 1, 28, 28), 8, (5, 5), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((5, 16, 14, 14), 20, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((17, 3, 12, 12), 33, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    ((2, 2, 3, 3), 2, (3, 3), (5, 5), (4, 4, 4, 4), (1, 1), 1),
]


def _backward(*args, ulps):
    case("conv2d_backward", *args, ulps=ulps, scale=absolute("conv2d_backward"))


def _pool_backward(*args, ulps):
    case("conv2d_max_pool2d_backward", *args, ulps=ulps, scale=absolute("conv2d_max_pool2d_backward"))


def _largest(x, weight, bias, *how):
    """Scale of conv2d_max_pool2d: what was rounded where the window's largest value may have come from."""
    return oracle.conv2d_max_pool2d(np.abs(x), np.abs(weight), None if bias is None else np.abs(bias), *how)[0]


@family
def convolutions() -> None:
    for shape, out, kernel, stride, pads, dilation, groups in CONVOLUTIONS:
        x, weight = normal(*shape), normal(out, shape[1] // groups, *kernel)
        how = (stride, pads, dilation, groups)
        ulps = sum_ulps(weight[0].size)
        for bias, activation in ((normal(out), "none"), (None, "none"), (normal(out), "relu")):
            case("conv2d", x, weight, bias, *how, activation, ulps=ulps, scale=absolute("conv2d"))
        y = oracle.conv2d(x, weight, None, *how)
        ulps = sum_ulps(max(y.size // out, out // groups * kernel[0] * kernel[1]))
        _backward(normal(*y.shape), None, x, weight, *how, "none", True, True, True, ulps=ulps)
        _backward(normal(*y.shape), y, x, weight, *how, "relu", True, True, True, ulps=ulps)
    dy, x, weight = normal(2, 4, 5, 5), normal(2, 3, 5, 5), normal(4, 3, 3, 3)
    for need in ((False, True, True), (True, False, False), (False, False, True), (False, True, False)):
        _backward(dy, None, x, weight, (1, 1), (1, 1, 1, 1), (1, 1), 1, "none", *need, ulps=sum_ulps(50))


@family
def pooled_convolutions() -> None:
    for shape, out, kernel, stride, pads, dilation, groups in CONVOLUTIONS:
        x, weight, bias = normal(*shape), normal(out, shape[1] // groups, *kernel), normal(out)
        how = (stride, pads, dilation, groups)
        before = oracle.conv2d(x, weight, bias, *how)
        if min(before.shape[2:]) < 2:
            continue
        for activation, b in (("none", None), ("relu", bias)):
            y, indices = oracle.conv2d_max_pool2d(x, weight, b, *how, activation)
            for need in ((), (False,)):
                case(
                    *("conv2d_max_pool2d", x, weight, b, *how, activation, *need),
                    ulps=sum_ulps(weight[0].size),
                    scale=lambda *args: (_largest(*args), None),
                )
            ulps = sum_ulps(max(before.size // out, out // groups * kernel[0] * kernel[1]))
            args = (normal(*y.shape), y, indices, x, weight, *how, activation)
            for need in ((True, True, True), (False, True, True), (True, False, False)):
                _pool_backward(*args, *need, ulps=ulps)


POOLS = [
    # x, kernel, stride, padding
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)),
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0)),
    ((2, 3, 7, 8), (2, 2), (2, 2), (0, 0)),
    ((2, 3, 7, 8), (3, 2), (2, 1), (1, 1)),
    ((1, 2, 9, 6), (2, 3), (3, 4), (1, 1)),
    ((1, 1, 5, 5), (2, 2), (5, 5), (1, 1)),
    ((1, 1, 4, 4), (3, 3), (1, 1), (1, 0)),
    ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0)),
    ((1, 1, 20, 20), (17, 17), (2, 2), (3, 3)),
    ((5, 7, 24, 26), (2, 2), (2, 2), (0, 0)),
    ((3, 4, 33, 35), (3, 3), (2, 2), (1, 1)),
    ((1, 2, 1, 70), (1, 4), (1, 3), (0, 2)),
]


@family
def pools() -> None:
    for shape, kernel, stride, padding in POOLS:
        x, ties = normal(*shape), ties_of(*shape)
        ties.reshape(-1)[::7] = np.nan
        terms = kernel[0] * kernel[1]
        for ceil_mode in (False, True):
            for dilation in ((1, 1), (2, 1)) if shape[2] > 2 * kernel[0] else ((1, 1),):
                for data in (x, ties, np.full(shape, -np.inf)):
                    case("max_pool2d", data, kernel, stride, padding, dilation, ceil_mode)
                y, indices = oracle.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
                case(
                    "max_pool2d_backward",
                    normal(*y.shape),
                    indices,
                    shape,
                    kernel,
                    stride,
                    padding,
                    dilation,
                    ulps=sum_ulps(terms),
                    scale=lambda dy, *rest: oracle.max_pool2d_backward(np.abs(dy), *rest),
                )
            for count_include_pad in (False, True):
                case(
                    "avg_pool2d",
                    x,
                    kernel,
                    stride,
                    padding,
                    ceil_mode,
                    count_include_pad,
                    ulps=sum_ulps(terms),
                    scale=absolute("avg_pool2d"),
                )
                dy = normal(*oracle.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad).shape)
                case(
                    "avg_pool2d_backward",
                    dy,
                    shape,
                    kernel,
                    stride,
                    padding,
                    count_include_pad,
                    ulps=sum_ulps(terms),
                    scale=absolute("avg_pool2d_backward"),
                )
    # A dilated window whose taps all fall on padding.
    case("max_pool2d", normal(1, 1, 2, 2), (2, 2), (1, 1), (1, 1), (3, 3), False)
