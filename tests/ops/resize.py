"""Transposed convolution and resizing."""

import numpy as np

from ops.row import Op, normal


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every input pixel adds its filter to the output."""
    (sh, sw), (ph, pw), (eh, ew), (dh, dw) = map(_pair, (stride, padding, output_padding, dilation))
    n, c, h, w = x.shape
    _, per_group, kh, kw = weight.shape
    y = np.zeros((n, per_group * groups, (h - 1) * sh + dh * (kh - 1) + eh + 1, (w - 1) * sw + dw * (kw - 1) + ew + 1))
    for g in range(groups):
        inputs, outputs = slice(g * c // groups, (g + 1) * c // groups), slice(g * per_group, (g + 1) * per_group)
        for i in range(kh):
            for j in range(kw):
                part = np.einsum("nchw,co->nohw", x[:, inputs], weight[inputs, :, i, j])
                y[:, outputs, dh * i : dh * i + sh * h : sh, dw * j : dw * j + sw * w : sw][:, :, :h, :w] += part
    y = y[:, :, ph : y.shape[2] - ph, pw : y.shape[3] - pw]
    return y if bias is None else y + bias[:, None, None]


conv_transpose2d = Op(
    "conv_transpose2d",
    _conv_transpose2d,
    ulps=1,
    cancels=True,
    terms=lambda x, weight, *rest, **options: x.shape[1] * weight.shape[2] * weight.shape[3],
)
conv_transpose2d.sample(normal(1, 1, 1, 1), normal(1, 1, 1, 1))
conv_transpose2d.sample(normal(2, 3, 4, 5), normal(3, 2, 3, 3), normal(2))
conv_transpose2d.sample(normal(2, 3, 4, 5), normal(3, 2, 4, 2), normal(2), 2, 1)
conv_transpose2d.sample(normal(2, 4, 3, 5), normal(4, 3, 3, 2), None, (2, 3), (1, 0), (1, 2), 2, (2, 1))
conv_transpose2d.sample(normal(2, 4, 3, 3), normal(4, 1, 3, 3), normal(4), stride=2, output_padding=1, groups=4)
conv_transpose2d.sample(normal(1, 2, 9, 7), normal(2, 3, 5, 5), normal(3), padding=4, dilation=(1, 2))
conv_transpose2d.sample(normal(1, 2, 2, 2), normal(2, 1, 2, 2), stride=3)  # gaps that no filter reaches
conv_transpose2d.sample(normal(0, 2, 2, 2), normal(2, 1, 2, 2))
_x, _w = normal(2, 3, 4, 5), normal(3, 2, 3, 3)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: input \[2, 3, 4\] and weight", normal(2, 3, 4), _w)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: .*weight \[2, 2, 3, 3\] do not fit", _x, normal(2, 2, 3, 3))
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: 3 channels do not divide into 2 groups", _x, _w, groups=2)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: 3 channels do not divide into 0 groups", _x, _w, groups=0)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: bias \[3\] needs the shape \[2\]", _x, _w, normal(3))
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: output_padding \[2, 2\]", _x, _w, stride=2, output_padding=2)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: stride \[0, 0\]", _x, _w, stride=0)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: .*padding \[-1, -1\]", _x, _w, padding=-1)
conv_transpose2d.refuses(ValueError, r"^conv_transpose2d: output \[2, 2, 0, 1\]", _x, _w, padding=3)
conv_transpose2d.refuses(TypeError, r"^conv_transpose2d: input is int64, needs float32", np.ones((2, 3, 4, 5), int), _w)
conv_transpose2d.refuses(TypeError, r"^conv_transpose2d: stride is .*, needs an integer", _x, _w, stride=1.5)


def _interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=False):
    """Pixel by pixel."""
    h, w = x.shape[2:]
    if size is not None:
        new = _pair(size)
        factors = new[0] / h, new[1] / w
    else:
        factors = _pair(scale_factor)
        new = int(h * factors[0]), int(w * factors[1])
    y = np.zeros((*x.shape[:2], *new), x.dtype)
    for i in range(new[0]):
        for j in range(new[1]):
            parts = []
            for at, old, count, factor in ((i, h, new[0], factors[0]), (j, w, new[1], factors[1])):
                if mode == "nearest":
                    parts.append([(min(int(at / factor), old - 1), 1.0)])
                    continue
                where = at * (old - 1) / max(1, count - 1) if align_corners else max((at + 0.5) / factor - 0.5, 0)
                left = min(int(where), old - 1)
                parts.append([(left, 1 - (where - left)), (min(left + 1, old - 1), where - left)])
            for row, a in parts[0]:
                for column, b in parts[1]:
                    y[:, :, i, j] += a * b * x[:, :, row, column]
    return y


interpolate = Op("interpolate", _interpolate, ulps=8, cancels=True)
for mode in ("nearest", "bilinear"):
    for shape, size in (((1, 1, 1, 1), 3), ((2, 3, 4, 5), (7, 3)), ((1, 2, 28, 28), 16), ((2, 1, 5, 6), (1, 12))):
        interpolate.sample(normal(*shape), size, mode=mode)
    for factor in (2, 0.5, 1.7, (3.0, 0.4)):
        interpolate.sample(normal(2, 3, 5, 6), None, factor, mode)
for size in ((7, 3), 4, (1, 1)):
    interpolate.sample(normal(2, 3, 4, 5), size, mode="bilinear", align_corners=True)
interpolate.refuses(ValueError, r"^interpolate: input \[4, 5\] needs 4 axes", normal(4, 5), 3)
interpolate.refuses(TypeError, r"^interpolate: input is int64, needs float32 or float64", np.ones((1, 1, 2, 2), int), 3)
interpolate.refuses(ValueError, r"^interpolate: needs either size or scale_factor", _x)
interpolate.refuses(ValueError, r"^interpolate: needs either size or scale_factor", _x, 3, 2.0)
interpolate.refuses(ValueError, r"^interpolate: \[4, 5\] to \[0, 0\] pixels", _x, 0)
interpolate.refuses(ValueError, r"^interpolate: result \[.*\] has more elements than memory can hold", _x, 10**9)
interpolate.refuses(ValueError, r"^interpolate: result \[.*\] has more elements than memory", _x, None, 1e300)
interpolate.refuses(ValueError, r"^interpolate: result \[.*\] has more elements than memory", _x, None, 1e308)
interpolate.refuses(ValueError, r"^interpolate: \[4, 5\] to \[0, 1\] pixels", _x, None, 0.2)
interpolate.refuses(ValueError, r"^interpolate: scale_factor is -1, needs", _x, None, -1)
interpolate.refuses(ValueError, r"^interpolate: scale_factor is \(1, 2, 3\), needs", _x, None, (1, 2, 3))
interpolate.refuses(TypeError, r"^interpolate: scale_factor is .*, needs a number", _x, None, "x")
interpolate.refuses(TypeError, r"^interpolate: size is .*, needs an integer", _x, 1.5)
interpolate.refuses(ValueError, r"^interpolate: mode must be one of .*'cubic'", _x, 3, mode="cubic")
interpolate.refuses(ValueError, r"^interpolate: align_corners needs mode 'bilinear'", _x, 3, align_corners=True)
interpolate.refuses(
    TypeError, r"^interpolate: align_corners must be True or False", _x, 3, mode="bilinear", align_corners="no"
)
