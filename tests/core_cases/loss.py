"""Softmax and losses."""

from typing import Any

import numpy as np
import oracle
from closeness import sum_ulps

from core_cases.case import SHAPES, case, f32, family, integers, normal, signs, uniform


@family
def softmax_and_losses() -> None:
    def softmax_scale(x: np.ndarray) -> np.ndarray:
        y = oracle.softmax(x)
        return y * (1 + np.abs(np.log(np.maximum(y, 1e-300))))  # the exponent's own rounding, times the exponent

    def log_softmax_scale(x: np.ndarray) -> np.ndarray:
        return 1 + np.abs(x) + np.max(np.abs(x), axis=-1, keepdims=True, initial=0)

    for shape in ((1, 1), (7,), (3, 10), (5, 1), (0, 4), (2, 3, 17), (65, 100), (3, 1031), (4000, 10)):
        for std in (1, 30):
            x = normal(*shape, std=std)
            classes = shape[-1]
            dy, ulps = normal(*shape), 2 + sum_ulps(classes)
            case("softmax", x, ulps=ulps, scale=softmax_scale)
            case("log_softmax", x, ulps=ulps, scale=log_softmax_scale)
            case(
                "softmax_backward",
                dy,
                f32(oracle.softmax(x)),
                ulps=ulps,
                scale=lambda dy, y: y * (np.abs(dy) + np.sum(np.abs(dy * y), -1, keepdims=True)),
            )
            case(
                "log_softmax_backward",
                dy,
                f32(oracle.log_softmax(x)),
                ulps=ulps,
                scale=lambda dy, y: np.abs(dy) + np.exp(y) * (1 + np.abs(y)) * np.sum(np.abs(dy), -1, keepdims=True),
            )
    case("softmax", np.array([[1000.0, -1000.0, 1000.0], [0.0, -np.inf, 1.0]]), ulps=4)

    def loss_scale(name: str, row_scale: Any) -> Any:
        """The reduced loss adds rows of size `row_scale`; its gradient is of the size of 1 / count per element."""

        def scale(x: np.ndarray, target: np.ndarray, *rest: Any) -> tuple[Any, Any]:
            reduction = rest[-2]
            rows, grad = row_scale(x, target)
            if reduction == "none":
                return rows, grad
            count = max(1, rows.size if name != "cross_entropy" else int(np.sum(target != rest[0])))
            return (np.sum(rows) / count, grad / count) if reduction == "mean" else (np.sum(rows), grad)

        return scale

    def rows_of_logits(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
        return 1 + 2 * np.max(np.abs(x), axis=1, initial=0), 1.0

    for rows, classes in ((1, 1), (7, 5), (64, 10), (33, 1000), (3000, 10)):
        x, target = normal(rows, classes, std=4), integers(classes, rows)
        target[1::3] = -100
        for smoothing in (0.0, 0.125):
            for reduction in ("mean", "sum", "none"):
                for need_grad in (True, False) if smoothing == 0 else (True,):
                    case(
                        "cross_entropy",
                        x,
                        target,
                        -100,
                        smoothing,
                        reduction,
                        need_grad,
                        ulps=4 + sum_ulps(classes) + (0 if reduction == "none" else sum_ulps(rows)),
                        scale=loss_scale("cross_entropy", rows_of_logits),
                    )
    every = np.array([0, 1, 2])
    case(
        "cross_entropy",
        normal(3, 4),
        every,
        1,
        0.0,
        "mean",
        True,
        ulps=16,
        scale=loss_scale("cross_entropy", rows_of_logits),
    )
    case("cross_entropy", np.array([[1e4, 0.0], [-1e4, 0.0]]), every[:2], -100, 0.0, "mean", True, ulps=8)
    for reduction in ("sum", "none"):
        case("cross_entropy", normal(0, 4), np.zeros(0, np.int64), -100, 0.0, reduction, True)
        case("cross_entropy", normal(2, 4), np.array([-100, -100]), -100, 0.0, reduction, True)

    for rows, classes in ((1, 1), (7, 5), (3000, 10)):
        x, target = normal(rows, classes, std=4), integers(classes, rows)
        target[1::3] = -100
        for reduction in ("mean", "sum", "none"):
            case(
                "nll_loss",
                x,
                target,
                -100,
                reduction,
                True,
                ulps=0 if reduction == "none" else sum_ulps(rows),
                scale=lambda x, target, ignore_index, reduction, _: [
                    np.abs(oracle.nll_loss(np.abs(x), target, ignore_index, reduction, False)[0]),
                    1 / (np.sum(target != ignore_index) if reduction == "mean" else 1),
                ],
            )
    for reduction in ("sum", "none"):
        case("nll_loss", normal(0, 4), np.zeros(0, np.int64), -100, reduction, False)
        case("nll_loss", normal(2, 4), np.array([-100, -100]), -100, reduction, True)

    for rows, classes in ((1, 1), (7, 5), (300, 33)):
        x, target, weight = normal(rows, classes, std=4), integers(classes, rows), f32(uniform(classes))
        target[1::3] = -100
        counted = max(1e-3, float(np.sum(weight[target[target != -100]])))
        for reduction in ("mean", "sum", "none"):
            parts = 1 if reduction == "none" else rows / (counted if reduction == "mean" else 1)
            sizes = parts * (1 + 2 * np.max(np.abs(x))), 2 / (counted if reduction == "mean" else 1)
            ulps = 4 + sum_ulps(classes) + sum_ulps(rows)
            for smoothing in (0.0, 0.125):
                options = (-100, smoothing, reduction, True, weight)
                case("cross_entropy", x, target, *options, ulps=ulps, scale=lambda *_, sizes=sizes: sizes)
            options = (-100, reduction, True, weight)
            case("nll_loss", x, target, *options, ulps=ulps, scale=lambda *_, sizes=sizes: sizes)

    def elementwise_scale(oracle_loss: Any) -> Any:
        """The sum of the absolute losses, and the gradient."""

        def scale(*args: Any) -> tuple[Any, Any]:
            *first, reduction, _ = args
            loss, gradient = oracle_loss(*first, "none", True)
            x, target = first[:2]
            size = np.abs(loss) + 2**-20 * (np.abs(x) + np.abs(target))
            count = max(1, x.size) if reduction == "mean" else 1
            return size if reduction == "none" else np.sum(size) / count, np.abs(gradient) / count

        return scale

    def kl_scale(x: np.ndarray, t: np.ndarray, log_target: bool, reduction: str, _: bool) -> tuple[Any, Any]:
        p = np.exp(t) if log_target else t
        size = p * (1 + np.abs(np.log(np.where(p == 0, 1, p))) + np.abs(x))
        count = max(1, x.size) if reduction == "mean" else 1
        return size if reduction == "none" else np.sum(size) / count, p * (1 + np.abs(t)) / count

    for shape in SHAPES:
        for reduction in ("mean", "sum", "none"):
            ulps = 8 + (0 if reduction == "none" else sum_ulps(int(np.prod(shape))))
            for beta in (0.0, 1.0, 0.25):
                case(
                    "smooth_l1_loss",
                    normal(*shape, std=2),
                    normal(*shape),
                    beta,
                    reduction,
                    True,
                    ulps=ulps,
                    scale=elementwise_scale(oracle.smooth_l1_loss),
                )
            case(
                "l1_loss",
                normal(*shape, std=2),
                normal(*shape),
                reduction,
                True,
                ulps=ulps,
                scale=elementwise_scale(oracle.l1_loss),
            )
            for log_target in (False, True):
                target = normal(*shape) if log_target else f32(np.maximum(uniform(*shape) - 0.25, 0))
                case(
                    "kl_div",
                    normal(*shape, mean=-4),
                    target,
                    log_target,
                    reduction,
                    True,
                    ulps=ulps + 8,
                    scale=kl_scale,
                )
    case("smooth_l1_loss", f32([3.0, np.nan, np.inf]), f32([3.0, 0.0, 0.0]), 1.0, "none", True)

    scales = {
        "mse_loss": lambda x, t: ((x - t) ** 2, 2 * np.abs(x - t)),
        "binary_cross_entropy_with_logits": lambda x, t: (1 + np.abs(x) + np.abs(x * t), 1 + np.abs(t)),
        "hinge_loss": lambda x, t: (1 + np.abs(x * t), np.abs(t)),
    }
    targets = {"mse_loss": normal, "binary_cross_entropy_with_logits": uniform, "hinge_loss": signs}
    for name, row_scale in scales.items():
        for shape in SHAPES:
            x = normal(*shape, std=3)
            target = targets[name](*shape)
            for reduction in ("mean", "sum", "none"):
                case(
                    name,
                    x,
                    np.asarray(target),
                    reduction,
                    x.size % 2 == 1,
                    ulps=4 + (0 if reduction == "none" else sum_ulps(x.size)),
                    scale=loss_scale(name, row_scale),
                )
                case(
                    name,
                    x,
                    np.asarray(target),
                    reduction,
                    True,
                    ulps=4 + (0 if reduction == "none" else sum_ulps(x.size)),
                    scale=loss_scale(name, row_scale),
                )
    confident = np.array([500.0, -500.0, 0.0])
    case("binary_cross_entropy_with_logits", confident, np.array([0.0, 1.0, 0.5]), "none", True, ulps=4)
