"""Convolution and pooling."""

import numpy as np
import oracle

from ops.row import Op, apart, normal


def _pair(n):
    return n if isinstance(n, tuple | list) else (n, n)


def _conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation="none"):
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]
        pads = tuple(n for span in spans for n in (span // 2, span - span // 2))
    else:
        vertical, horizontal = _pair(0 if padding == "valid" else padding)
        pads = (vertical, vertical, horizontal, horizontal)
    return oracle.conv2d(x, weight, bias, _pair(stride), pads, _pair(dilation), groups, activation)


def _conv2d_max_pool2d(*args, **options):
    return oracle.max_pool2d(_conv2d(*args, **options), (2, 2), (2, 2), (0, 0), (1, 1), False)[0]


def _terms(x, weight, *rest, **options):
    return weight[0].size


conv2d = Op("conv2d", _conv2d, cancels=True, terms=_terms)
conv2d_max_pool2d = Op("conv2d_max_pool2d", _conv2d_max_pool2d, cancels=True, terms=_terms)
for op in (conv2d, conv2d_max_pool2d):
    op.sample(normal(2, 3, 6, 5), normal(2, 3, 3, 2), normal(2), activation="relu")
    op.sample(normal(1, 2, 5, 6), normal(2, 2, 3, 3), padding=1, activation="relu")
    op.sample(normal(2, 2, 4, 5), normal(3, 2, 2, 3), normal(3), padding="same")
    op.sample(normal(2, 4, 9, 7), normal(4, 2, 3, 3), normal(4), stride=(2, 1), padding=(1, 2), groups=2)
    op.sample(normal(0, 3, 5, 5), normal(2, 3, 2, 2), normal(2), activation="relu")
    # Few outputs: each has a kink, which central differences must not step over.
    op.sample(normal(1, 16, 6, 7), normal(20, 16, 3, 3), normal(20), padding=1, activation="relu")
    op.sample(normal(1, 1, 12, 12), normal(6, 1, 5, 5), normal(6), padding=2, activation="relu")
    op.sample(normal(1, 6, 10, 9), normal(16, 6, 5, 5), normal(16), activation="relu")
    op.refuses(
        ValueError, rf"^{op.name}: activation .*'tanh'", normal(1, 1, 4, 4), normal(1, 1, 3, 3), activation="tanh"
    )
    op.refuses(ValueError, rf"^{op.name}: .*3 channels.*expects 1", normal(2, 3, 8, 8), normal(4, 1, 3, 3))
    op.refuses(TypeError, rf"^{op.name}: stride", normal(2, 3, 8, 8), normal(4, 3, 3, 3), stride=1.5)
    op.refuses(
        ValueError, rf"^{op.name}: padding='same'", normal(2, 3, 8, 8), normal(4, 3, 3, 3), padding="same", stride=2
    )
conv2d_max_pool2d.refuses(
    ValueError, r"^conv2d_max_pool2d: .*\[2, 4, 1, 6\] has no window", normal(2, 3, 3, 8), normal(4, 3, 3, 3)
)
conv2d.sample(normal(1, 1, 1, 1), normal(1, 1, 1, 1))
conv2d.sample(normal(2, 3, 5, 4), normal(2, 3, 3, 2), normal(2))
conv2d.sample(normal(1, 2, 5, 6), normal(2, 2, 3, 3), padding=1)
conv2d.sample(normal(2, 2, 4, 5), normal(3, 2, 2, 3), normal(3), padding="same")
conv2d.sample(normal(2, 2, 6, 5), normal(3, 2, 2, 3), padding="same", dilation=(2, 1))
conv2d.sample(normal(2, 2, 4, 5), normal(3, 2, 2, 3), padding="valid")
conv2d.sample(
    normal(1, 4, 7, 6), normal(6, 2, 3, 3), normal(6), stride=(2, 3), padding=(1, 2), dilation=(2, 1), groups=2
)
conv2d.sample(normal(2, 3, 5, 5), normal(3, 1, 3, 3), groups=3)
conv2d.sample(normal(2, 3, 4, 4), normal(6, 1, 2, 2), stride=2, groups=3)
conv2d.sample(normal(2, 5, 3, 3), normal(4, 5, 1, 1), stride=2)
conv2d.sample(normal(1, 1, 3, 3), normal(1, 1, 3, 3), normal(1))
conv2d.sample(normal(1, 1, 2, 2), normal(1, 1, 5, 5), padding=2)
conv2d.sample(normal(0, 3, 5, 5), normal(2, 3, 2, 2), normal(2))
conv2d.sample(normal(5, 16, 14, 13), normal(20, 16, 3, 3), normal(20), padding=1)
conv2d.sample(normal(9, 1, 28, 28), normal(8, 1, 5, 5), normal(8))
_x, _w = normal(2, 3, 8, 8), normal(4, 3, 3, 3)
conv2d.refuses(
    ValueError, r"^conv2d: .*\[2, 3, 8, 8\] has 3 channels, weight \[4, 1, 3, 3\] expects 1", _x, normal(4, 1, 3, 3)
)
conv2d.refuses(ValueError, r"^conv2d: .*\[3, 8, 8\]", normal(3, 8, 8), _w)
conv2d.refuses(ValueError, r"^conv2d: .*\[4, 3, 3\]", _x, normal(4, 3, 3))
conv2d.refuses(ValueError, r"^conv2d: .*\[3\]", _x, _w, normal(3))
conv2d.refuses(ValueError, r"^conv2d: .*\[2, 3, 2, 8\]", normal(2, 3, 2, 8), _w)
conv2d.refuses(ValueError, r"^conv2d: .*\[4, 3, 0, 3\]", _x, normal(4, 3, 0, 3))
conv2d.refuses(ValueError, r"^conv2d: .*stride", _x, _w, stride=0)
conv2d.refuses(ValueError, r"^conv2d: .*stride", _x, _w, stride=(1, -1))
conv2d.refuses(TypeError, r"^conv2d: stride", _x, _w, stride=1.5)
conv2d.refuses(TypeError, r"^conv2d: stride", _x, _w, stride=(1, 2, 3))
conv2d.refuses(ValueError, r"^conv2d: .*padding", _x, _w, padding=-1)
conv2d.refuses(ValueError, r"^conv2d: padding must be .*'full'", _x, _w, padding="full")
conv2d.refuses(ValueError, r"^conv2d: padding='same' needs stride 1", _x, _w, padding="same", stride=2)
conv2d.refuses(ValueError, r"^conv2d: .*dilation", _x, _w, dilation=0)
conv2d.refuses(ValueError, r"^conv2d: ", _x, _w, dilation=2**40)
conv2d.refuses((ValueError, MemoryError, OverflowError), r"^conv2d: ", _x, _w, padding=2**40)
conv2d.refuses(ValueError, r"^conv2d: .*groups", _x, _w, groups=0)
conv2d.refuses(ValueError, r"^conv2d: .*groups", normal(1, 4, 8, 8), normal(3, 2, 3, 3), groups=2)


def _conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation="none"):
    pads = padding if isinstance(padding, str) else (0, padding)
    y = _conv2d(x[:, :, None], weight[:, :, None], bias, (1, stride), pads, (1, dilation), groups, activation)
    return y[:, :, 0]


conv1d = Op("conv1d", _conv1d, cancels=True, terms=_terms)
conv1d.sample(normal(1, 1, 1), normal(1, 1, 1))
conv1d.sample(normal(2, 3, 7), normal(4, 3, 3), normal(4))
conv1d.sample(normal(2, 4, 12), normal(6, 2, 3), normal(6), stride=2, padding=2, dilation=2, groups=2)
conv1d.sample(normal(2, 3, 8), normal(2, 3, 4), normal(2), padding="same")
conv1d.sample(normal(2, 3, 8), normal(2, 3, 2), padding="valid", activation="relu")
conv1d.sample(normal(0, 3, 8), normal(2, 3, 2), normal(2))
conv1d.sample(normal(3, 16, 50), normal(20, 16, 5), normal(20), padding=2)
conv1d.refuses(
    ValueError, r"^conv1d: input \[2, 3, 8\] has 3 .* weight \[4, 1, 3\] expects 1", normal(2, 3, 8), normal(4, 1, 3)
)
conv1d.refuses(ValueError, r"^conv1d: input \[2, 3, 8, 8\] needs 3 axes", normal(2, 3, 8, 8), normal(4, 3, 3))
conv1d.refuses(ValueError, r"^conv1d: weight \[4, 3\] needs 3 axes", normal(2, 3, 8), normal(4, 3))
conv1d.refuses(
    ValueError,
    r"^conv1d: kernel 3 with dilation 1 is larger than input \[2, 3, 2\] with padding \[0, 0\]",
    normal(2, 3, 2),
    normal(4, 3, 3),
)
conv1d.refuses(ValueError, r"^conv1d: padding is \[-1, -1\], needs", normal(2, 3, 8), normal(4, 3, 3), padding=-1)
conv1d.refuses(ValueError, r"^conv1d: stride is 0, needs", normal(2, 3, 8), normal(4, 3, 3), stride=0)
conv1d.refuses(ValueError, r"^conv1d: bias is \[1, 4\], needs \[4\]", normal(2, 3, 8), normal(4, 3, 3), normal(1, 4))
conv1d.refuses(ValueError, r"^conv1d: .*'same' .*got 2", normal(2, 3, 8), normal(4, 3, 3), padding="same", stride=2)
conv1d.refuses(ValueError, r"^conv1d: padding must be .*'full'", normal(2, 3, 8), normal(4, 3, 3), padding="full")
conv1d.refuses(ValueError, r"^conv1d: activation .*'tanh'", normal(2, 3, 8), normal(4, 3, 3), activation="tanh")
conv1d.refuses(TypeError, r"^conv1d: stride", normal(2, 3, 8), normal(4, 3, 3), stride=(2,))
conv1d.refuses(TypeError, r"^conv1d: padding", normal(2, 3, 8), normal(4, 3, 3), padding=1.5)


def _max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    stride = kernel_size if stride is None else stride
    return oracle.max_pool2d(x, _pair(kernel_size), _pair(stride), _pair(padding), _pair(dilation), ceil_mode)[0]


def _avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    stride = kernel_size if stride is None else stride
    return oracle.avg_pool2d(x, _pair(kernel_size), _pair(stride), _pair(padding), ceil_mode, count_include_pad)


max_pool2d = Op("max_pool2d", _max_pool2d)
avg_pool2d = Op(
    "avg_pool2d", _avg_pool2d, cancels=True, terms=lambda x, kernel, *rest, **options: int(np.prod(_pair(kernel)))
)
for op in (max_pool2d, avg_pool2d):
    for ceil_mode in (False, True):
        op.sample(apart(1, 1, 1, 1), 1, ceil_mode=ceil_mode)
        op.sample(apart(2, 3, 4, 4), 2, ceil_mode=ceil_mode)
        op.sample(apart(1, 2, 5, 4), 2, ceil_mode=ceil_mode)
        op.sample(apart(1, 2, 5, 4), (3, 2), (2, 1), 1, ceil_mode=ceil_mode)
        op.sample(apart(1, 2, 7, 6), (2, 3), stride=(3, 4), padding=(1, 1), ceil_mode=ceil_mode)
        op.sample(apart(1, 1, 5, 5), 2, 5, 1, ceil_mode=ceil_mode)
        op.sample(apart(0, 2, 4, 4), 2, ceil_mode=ceil_mode)
        op.sample(apart(3, 4, 24, 23), 3, 2, 1, ceil_mode=ceil_mode)
        op.sample(apart(1, 1, 20, 20), 17, 1, ceil_mode=ceil_mode)
    for n, pattern in ((0, "kernel"), (-1, "kernel")):
        op.refuses(ValueError, rf"^{op.name}: .*{pattern}", normal(1, 1, 4, 4), n)
    op.refuses(ValueError, rf"^{op.name}: .*stride", normal(1, 1, 4, 4), 2, 0)
    op.refuses(ValueError, rf"^{op.name}: .*padding", normal(1, 1, 4, 4), 2, 2, -1)
    op.refuses(ValueError, rf"^{op.name}: .*padding", normal(1, 1, 4, 4), 2, 2, 2)
    op.refuses(ValueError, rf"^{op.name}: .*\[1, 1, 4, 4\]", normal(1, 1, 4, 4), 5)
    op.refuses(ValueError, rf"^{op.name}: .*\[4, 4\]", normal(4, 4), 2)
    op.refuses(TypeError, rf"^{op.name}: kernel_size", normal(1, 1, 4, 4), "2")
    op.refuses(TypeError, rf"^{op.name}: kernel_size", normal(1, 1, 4, 4), (2, 2, 2))
    op.refuses(TypeError, rf"^{op.name}: stride", normal(1, 1, 4, 4), 2, 2.0)
for ceil_mode in (False, True):
    max_pool2d.sample(apart(1, 2, 7, 6), 2, 1, 1, (2, 3), ceil_mode)
    avg_pool2d.sample(apart(1, 2, 7, 6), 3, 2, 1, ceil_mode, False)
max_pool2d.refuses(ValueError, "^max_pool2d: .*dilation", normal(1, 1, 4, 4), 2, dilation=0)

global_avg_pool2d = Op(
    "global_avg_pool2d", lambda x: np.mean(x, (2, 3)), cancels=True, terms=lambda x: x.shape[2] * x.shape[3]
)
for shape in ((1, 1, 1, 1), (2, 3, 4, 5), (0, 3, 2, 2), (5, 17, 7, 7)):
    global_avg_pool2d.sample(normal(*shape))
global_avg_pool2d.refuses(ValueError, r"^global_avg_pool2d: input \[3, 4, 4\] needs 4 axes", normal(3, 4, 4))
global_avg_pool2d.refuses(TypeError, r"^global_avg_pool2d: input is int64, needs float32", np.ones((1, 1, 2, 2), int))
