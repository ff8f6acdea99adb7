"""Batch and layer normalisation."""

from typing import Any

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import case, f32, family, normal, positive


@family
def normalisation() -> None:
    def channels(v: Any, x: np.ndarray) -> Any:
        return np.abs(v).reshape(-1, *[1] * (x.ndim - 2))

    def forward_scale(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any) -> Any:
        y = (np.abs(x) + np.abs(mean)) * rstd
        return y if weight is None else y * np.abs(weight) + np.abs(bias)

    def batch_scale(
        x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, m: Any, eps: Any
    ) -> Any:
        run = [None if r is None else r.copy() for r in (running_mean, running_var)]
        _, mean, rstd = oracle.batch_norm(x, None, None, *run, training, m, eps)
        axes = (0, *range(2, x.ndim))
        y = forward_scale(
            x,
            channels(mean, x),
            channels(rstd, x),
            None if weight is None else channels(weight, x),
            None if weight is None else channels(bias, x),
        )
        if not training or running_mean is None:
            return y, np.mean(np.abs(x), axis=axes) if training else np.abs(mean), rstd
        moved = [np.abs(running_mean) + np.mean(np.abs(x), axis=axes), run[1] + running_var]
        return y, np.mean(np.abs(x), axis=axes), rstd, *moved

    def backward_scale(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, axes: Any, param_axes: Any) -> Any:
        xhat = (np.abs(x) + np.abs(mean)) * rstd
        dxhat = np.abs(dy) if weight is None else np.abs(dy) * np.abs(weight)
        dx = rstd * (dxhat + np.mean(dxhat, axes, keepdims=True) + xhat * np.mean(dxhat * xhat, axes, keepdims=True))
        return dx, np.sum(np.abs(dy) * xhat, param_axes), np.sum(np.abs(dy), param_axes)

    def batch_backward_scale(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, training: bool) -> Any:
        axes = (0, *range(2, x.ndim))
        weight = None if weight is None else channels(weight, x)
        return backward_scale(dy, x, channels(mean, x), channels(rstd, x), weight, axes, axes)

    def layer_scale(x: Any, weight: Any, bias: Any, eps: Any) -> Any:
        rstd = oracle.layer_norm(x, None, None, eps)[2]
        terms = np.mean(np.abs(x), axis=-1)  # what a mean near 0 may be off by comes from its terms
        return forward_scale(x, terms[..., None], rstd[..., None], weight, bias), terms, rstd

    def layer_backward_scale(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any) -> Any:
        return backward_scale(dy, x, mean[..., None], rstd[..., None], weight, (-1,), tuple(range(x.ndim - 1)))

    for shape, mean in (
        ((4, 3), 0),
        ((2, 1), 0),
        ((2, 3, 4, 5), 0),
        ((64, 3), 100.0),
        ((8, 5, 13, 11), 0),
        ((3, 17, 9), 0),
        ((40, 33, 6, 6), 3.0),
    ):
        x, c = normal(*shape, mean=mean), shape[1]
        terms = x.size // c
        for weight, bias in ((normal(c), normal(c)), (None, None)):
            for running in ((normal(c), positive(c)), (None, None)):
                case(
                    "batch_norm",
                    x,
                    weight,
                    bias,
                    *running,
                    True,
                    0.25,
                    1e-5,
                    ulps=4 * sum_ulps(terms),
                    scale=batch_scale,
                )
            case("batch_norm", x, weight, bias, normal(c), positive(c), False, 0.25, 1e-3, ulps=6, scale=batch_scale)
            for training in (True, False):
                _, m, rstd = oracle.batch_norm(x, None, None, None, None, True, 0.1, 1e-5)
                case(
                    "batch_norm_backward",
                    normal(*shape),
                    x,
                    weight,
                    f32(m),
                    f32(rstd),
                    training,
                    ulps=4 + sum_ulps(terms),
                    scale=batch_backward_scale,
                )
    for shape, mean in (
        ((5,), 0),
        ((3, 7), 0),
        ((2, 3, 33), 0),
        ((0, 4), 0),
        ((65, 128), 0),
        ((9, 1), 0),
        ((4, 1031), 10.0),
        ((500, 100), 0),
    ):
        x, d = normal(*shape, mean=mean), shape[-1]
        rows = x.size // d
        for weight, bias in ((normal(d), normal(d)), (None, None)):
            case("layer_norm", x, weight, bias, 1e-5, ulps=4 * sum_ulps(d), scale=layer_scale)
            _, m, rstd = oracle.layer_norm(x, None, None, 1e-5)
            case(
                "layer_norm_backward",
                normal(*shape),
                x,
                weight,
                f32(m),
                f32(rstd),
                ulps=4 + sum_ulps(max(d, rows)),
                scale=layer_backward_scale,
            )
