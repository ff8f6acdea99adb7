"""What goes into a network and comes out of it: points, images, predictions, losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn.grad_mode import no_grad
from pynn.nn.module import Module
from pynn.tensor import Tensor
from pynn.train.steps import evaluation_mode
from pynn.viz._figure import new_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pynn.train import LRFinder

Array: TypeAlias = npt.NDArray[Any]


def decision_boundary(
    model: Callable[[Array], Tensor | npt.ArrayLike],
    points: npt.ArrayLike,
    labels: npt.ArrayLike,
    steps: int = 200,
    margin: float = 0.5,
    axes: Axes | None = None,
) -> Axes:
    """Colour the plane by the class that `model` gives to it, and draw labelled points on top.

    Parameters
    ----------
    model : callable
        [N, 2] to logits [N, C], or to one score [N, 1] or [N], whose sign tells the class. A `Module` runs in
        evaluation mode and gets arrays of its dtype, any other function those of the dtype of `points`.
    points, labels : array_like
        [N, 2], and [N] of two or more values; of one score, the larger one is the positive class.
    steps, margin : int, float
        Pixels along each axis, and how far the picture reaches beyond the points.

    Raises
    ------
    TypeError
        If `model` cannot be called.
    ValueError
        If shapes do not fit, or a point is not finite.

    Examples
    --------
    >>> from pynn import data, nn, viz
    >>> points, labels = data.make_moons(50)
    >>> axes = viz.decision_boundary(nn.Linear(2, 2), points, labels)
    >>> axes.collections[-1].get_offsets().shape  # the points
    (50, 2)
    """
    if not callable(model):
        raise TypeError(f"viz.decision_boundary: model is a {type(model).__name__}, needs a Module or a function")
    points, labels = np.asarray(points), np.asarray(labels).reshape(-1)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels) or len(points) == 0:
        got = f"points {list(points.shape)} and labels {list(labels.shape)}"
        raise ValueError(f"viz.decision_boundary: {got}, need [N, 2] and [N]")
    low, high = points.min(0) - margin, points.max(0) + margin
    if not np.isfinite([low, high]).all():
        raise ValueError("viz.decision_boundary: points are not all finite")
    x, y = np.linspace(low[0], high[0], steps), np.linspace(low[1], high[1], steps)
    parameters = model.parameters() if isinstance(model, Module) else iter(())
    dtype = next((p.dtype for p in parameters), points.dtype)  # points are float64 where NumPy made them
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(dtype)
    with evaluation_mode(model) if isinstance(model, Module) else no_grad():
        scores = np.asarray(model(plane))
    if scores.ndim not in (1, 2) or len(scores) != len(plane) or scores.size == 0:
        got = f"points {list(plane.shape)} to {list(scores.shape)}"
        raise ValueError(f"viz.decision_boundary: model takes {got}, needs [N, C], [N, 1] or [N]")
    scores = scores.reshape(len(plane), -1)
    classes = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
    values, numbers = np.unique(labels, return_inverse=True)
    count = max(scores.shape[1], 2, len(values))
    axes = new_axes("decision_boundary", axes, 5, 4.5)
    colours: dict[str, Any] = {"cmap": "Spectral", "vmin": 0, "vmax": count - 1}
    axes.pcolormesh(x, y, classes.reshape(steps, steps), alpha=0.5, shading="nearest", **colours)
    axes.scatter(points[:, 0], points[:, 1], c=numbers, s=20, edgecolors="black", linewidths=0.5, **colours)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    return axes


def confusion_matrix(
    labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: Sequence[str] | None = None, axes: Axes | None = None
) -> Axes:
    """Draw how often each class (row) was given each label (column): counts, coloured by their share of the row.

    Parameters
    ----------
    labels, predictions : array_like of int
        [N], from 0 on.
    classes : sequence of str, optional
        Names of the classes; numbers by default.

    Examples
    --------
    >>> from pynn import viz
    >>> axes = viz.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1])
    >>> [text.get_text() for text in axes.texts]
    ['1', '1', '0', '2']
    """
    true, given = np.asarray(labels).reshape(-1), np.asarray(predictions).reshape(-1)
    if true.shape != given.shape or true.size == 0 or true.dtype.kind not in "iu" or given.dtype.kind not in "iu":
        got = f"{true.dtype} {list(true.shape)} and {given.dtype} {list(given.shape)}"
        raise ValueError(f"viz.confusion_matrix: labels and predictions are {got}, need integers, [N] and [N]")
    n = int(max(true.max(), given.max())) + 1 if classes is None else len(classes)
    if min(true.min(), given.min()) < 0 or max(true.max(), given.max()) >= n:
        raise ValueError(f"viz.confusion_matrix: a label is not in 0 to {n - 1}")
    counts = np.bincount(true.astype(int) * n + given, minlength=n * n).reshape(n, n)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes = new_axes("confusion_matrix", axes, 1.5 + 0.5 * n, 1.2 + 0.5 * n)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i in range(n):
        for j in range(n):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize="small")
    names = [str(i) for i in range(n)] if classes is None else list(classes)
    axes.set_xticks(range(n), names)
    axes.set_yticks(range(n), names)
    axes.set(xlabel="predicted", ylabel="true", title=f"{100 * np.trace(counts) / true.size:.2f} % right")
    return axes


def image_grid(
    images: Array | Tensor,
    columns: int | None = None,
    titles: Sequence[object] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw images [N, H, W] or [N, 1, H, W] in grey, or [N, 3, H, W] in colour (0 to 1, or uint8), row by row.

    Parameters
    ----------
    columns : int, optional
        Images in a row; by default the grid is about square.
    titles : sequence, optional
        What to write above each image.
    limits : (float, float), optional
        What is black and what white; by default the least and greatest value of all grey images.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import viz
    >>> figure = viz.image_grid(np.zeros((5, 28, 28)), columns=3, titles="abcde")
    >>> len(figure.axes), figure.axes[4].get_title()
    (5, 'e')
    """
    x = np.asarray(images.data if isinstance(images, Tensor) else images)
    if x.ndim == 4 and x.shape[1] == 1:
        x = x[:, 0]
    elif x.ndim == 4 and x.shape[1] == 3:
        x = x.transpose(0, 2, 3, 1)
    if x.ndim < 3 or x.size == 0 or (x.ndim == 4 and x.shape[-1] != 3) or x.ndim > 4:
        raise ValueError(
            f"viz.image_grid: images {list(np.shape(x))}, need [N, H, W], [N, 1, H, W] or [N, 3, H, W] with N > 0"
        )
    if titles is not None and len(titles) != len(x):
        raise ValueError(f"viz.image_grid: {len(titles)} titles for {len(x)} images")
    if columns is not None and columns < 1:
        raise ValueError(f"viz.image_grid: columns is {columns}, needs 1 or more")
    columns = columns or math.ceil(math.sqrt(len(x)))
    rows = math.ceil(len(x) / columns)
    low, high = limits or (float(x.min()), float(x.max()))
    figure = new_figure("image_grid", 1.1 * columns, (1.1 if titles is None else 1.4) * rows)
    for i, image in enumerate(x):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(image if x.ndim == 3 or x.dtype == np.uint8 else np.clip(image, 0, 1), "gray", vmin=low, vmax=high)
        axes.axis("off")
        if titles is not None:
            axes.set_title(str(titles[i]), fontsize="small")
    return figure


def lr_find(found: LRFinder, axes: Axes | None = None) -> Axes:
    """Draw the losses that `pynn.train.lr_find` found over the learning rate, and its suggestion.

    Raises
    ------
    ValueError
        If it found none, since the first loss was not finite.

    Examples
    --------
    >>> from pynn import viz
    >>> from pynn.train import LRFinder
    >>> axes = viz.lr_find(LRFinder([1e-3, 1e-2, 1e-1], [1.0, 0.8, 0.9], [1.0, 0.9, 0.9], 1e-2))
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['loss', 'smoothed', 'suggestion 0.01']
    """
    if not found.rates:
        raise ValueError("viz.lr_find: there are no losses to draw")
    axes = new_axes("lr_find", axes)
    axes.semilogx(found.rates, found.losses, alpha=0.4, label="loss")
    axes.semilogx(found.rates, found.smoothed, color="C0", label="smoothed")
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="black", linestyle=":", label=f"suggestion {found.suggestion:.2g}")
    # What diverged at the end would leave no room for the rest.
    low, first = min(found.losses), found.losses[0]
    span = (first - low) or (max(found.losses) - low) or 1.0
    axes.set_ylim(low - 0.1 * span, first + 0.5 * span)
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.legend()
    return axes
