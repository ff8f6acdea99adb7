"""Pictures of what a network does, drawn by matplotlib (`pip install 'pynn-cpu[viz]'`).

Functions draw into the matplotlib `axes` that they are given, or into a new figure, and return them; nothing is shown
and no global state is used: `axes.figure.savefig("picture.png")` writes the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pynn.grad_mode import no_grad
from pynn.nn.module import Module
from pynn.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pynn.train import LRFinder

__all__ = [
    "UpdateRatios",
    "activation_histograms",
    "attention_weights",
    "confusion_matrix",
    "decision_boundary",
    "filters",
    "gradient_histograms",
    "image_grid",
    "lr_find",
]

Array = npt.NDArray[Any]


def _figure(name: str, width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"viz.{name}: needs matplotlib: pip install 'pynn-cpu[viz]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _axes(name: str, axes: Axes | None, width: float = 6, height: float = 4) -> Axes:
    return _figure(name, width, height).subplots() if axes is None else axes


def activation_histograms(model: Module, *inputs: Any, bins: int = 50) -> Figure:
    """Draw the distribution of the outputs of every layer of `model` without children, for these inputs.

    Titles give mean and standard deviation, and the share of the outputs that are saturated: beyond 0.97 in size for
    `Tanh`, at 0 for `ReLU`. The method is that of Karpathy's makemore, part 3.

    Examples
    --------
    >>> from pynn import nn, randn, viz
    >>> figure = viz.activation_histograms(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), randn(100, 4))
    >>> [axes.get_title().splitlines()[0] for axes in figure.axes]
    ['0 Linear', '1 Tanh']
    """
    outputs: dict[str, Array] = {}
    handles = []
    for path, module in model.named_modules():
        if next(module.children(), None) is None:
            label = f"{path} {type(module).__name__}".strip()

            def keep(module: Module, args: Any, y: Any, label: str = label) -> None:
                if isinstance(y, Tensor):
                    outputs[label] = y.data

            handles.append(module.register_forward_hook(keep))
    try:
        with no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    panels = []
    for label, y in outputs.items():
        facts = f"mean {y.mean():+.2f}, std {y.std():.2f}"
        if label.endswith("Tanh"):
            facts += f", {100 * np.mean(np.abs(y) > 0.97):.0f} % saturated"
        elif label.endswith(" ReLU") or label == "ReLU":
            facts += f", {100 * np.mean(y == 0):.0f} % at 0"
        panels.append((f"{label}\n{facts}", y))
    return _histograms("activation_histograms", panels, bins)


def gradient_histograms(model: Module, bins: int = 50) -> Figure:
    """Draw the distribution of the gradient of every parameter of two axes or more, after a backward.

    Titles give its standard deviation, and the ratio of that to the parameter's.

    Raises
    ------
    ValueError
        If there is no gradient.

    Examples
    --------
    >>> from pynn import nn, randn, viz
    >>> model = nn.Linear(4, 8)
    >>> (model(randn(10, 4)) ** 2).sum().backward()
    >>> len(viz.gradient_histograms(model).axes)
    1
    """
    gradients = [(name, p, p.grad) for name, p in model.named_parameters() if p.grad is not None and p.ndim > 1]
    if not gradients:
        raise ValueError("viz.gradient_histograms: no parameter of two axes has a gradient; call backward first")
    panels = []
    for name, p, grad in gradients:
        ratio = grad.std() / max(float(p.data.std()), 1e-30)
        panels.append((f"{name} {list(p.shape)}\nstd {grad.std():.1e}, grad / data {ratio:.1e}", grad))
    return _histograms("gradient_histograms", panels, bins)


def _histograms(name: str, panels: Sequence[tuple[str, Array]], bins: int) -> Figure:
    """Draw one histogram for each title and its values, as shares of the values."""
    columns = min(4, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(name, 3.2 * columns, 2.4 * rows)
    for i, (title, values) in enumerate(panels):
        counts, edges = np.histogram(values, bins)
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.stairs(counts / max(1, values.size), edges, fill=True)
        axes.set_title(title, fontsize="small")
        axes.tick_params(labelsize="small")
        axes.ticklabel_format(axis="x", scilimits=(-2, 3))
        axes.locator_params(axis="x", nbins=4)
    return figure


class UpdateRatios:
    """Record how much each step changes the weights: std(update) / std(weight), near 10⁻³ where all is well.

    Parameters
    ----------
    model : Module
        Its parameters of two axes or more are watched.

    Examples
    --------
    >>> import numpy as np
    >>> from pynn import nn, optim, viz
    >>> model = nn.Linear(4, 8)
    >>> optimizer, ratios = optim.SGD(model.parameters(), lr=0.1), viz.UpdateRatios(model)
    >>> for _ in range(3):
    ...     model.weight.grad = np.copy(model.weight.data)
    ...     optimizer.step()
    ...     ratios.record()
    >>> np.log10(ratios.ratios["weight"]).round(3).tolist()
    [-0.954, -0.954, -0.954]
    """

    def __init__(self, model: Module) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.ndim > 1}
        self._before = {name: p.data.copy() for name, p in self._parameters.items()}
        self.ratios: dict[str, list[float]] = {name: [] for name in self._parameters}

    def record(self) -> None:
        """Compare with the last call; call it after `optimizer.step()`."""
        for name, p in self._parameters.items():
            update = p.data - self._before[name]
            self.ratios[name].append(float(update.std() / max(float(p.data.std()), 1e-30)))
            self._before[name] = p.data.copy()

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw log10 of the ratios over the steps, and a line at -3."""
        axes = _axes("UpdateRatios", axes, 8)
        for name, ratios in self.ratios.items():
            axes.plot(np.log10(np.maximum(ratios, 1e-30)), label=f"{name} {list(self._parameters[name].shape)}")
        axes.axhline(-3, color="black", linestyle=":")
        axes.set(title="update to weight", xlabel="step", ylabel="log10 of the ratio")
        axes.legend(fontsize="small")
        return axes


def decision_boundary(
    model: Module, points: Array, labels: Array, steps: int = 200, margin: float = 0.5, axes: Axes | None = None
) -> Axes:
    """Colour the plane by the class that `model` gives to it, and draw labelled points on top.

    Parameters
    ----------
    model : Module
        [N, 2] to logits [N, C], or to one score [N, 1] or [N], whose sign tells the class.
    points, labels : ndarray
        [N, 2], and [N] of two or more values; of one score, the larger one is the positive class.
    steps, margin : int, float
        Pixels along each axis, and how far the picture reaches beyond the points.

    Examples
    --------
    >>> from pynn import data, nn, viz
    >>> points, labels = data.make_moons(50)
    >>> axes = viz.decision_boundary(nn.Linear(2, 2), points, labels)
    >>> axes.collections[-1].get_offsets().shape  # the points
    (50, 2)
    """
    points, labels = np.asarray(points), np.asarray(labels).reshape(-1)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels) or len(points) == 0:
        got = f"points {list(points.shape)} and labels {list(labels.shape)}"
        raise ValueError(f"viz.decision_boundary: {got}, need [N, 2] and [N]")
    low, high = points.min(0) - margin, points.max(0) + margin
    x, y = np.linspace(low[0], high[0], steps), np.linspace(low[1], high[1], steps)
    dtype = next((p.dtype for p in model.parameters()), points.dtype)  # points are float64 where NumPy made them
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(dtype)
    with no_grad():
        scores = model(plane).numpy().reshape(len(plane), -1)
    classes = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
    values, numbers = np.unique(labels, return_inverse=True)
    count = max(scores.shape[1], 2, len(values))
    axes = _axes("decision_boundary", axes, 5, 4.5)
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
    axes = _axes("confusion_matrix", axes, 1.5 + 0.5 * n, 1.2 + 0.5 * n)
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


def attention_weights(
    weights: Array | Tensor,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw how much each query (row) sees of each key (column): [L, S] of `MultiheadAttention(need_weights=True)`.

    `queries` and `keys` are the tokens to write beside the axes; numbers by default. ValueError if lengths do not fit.

    Examples
    --------
    >>> from pynn import nn, randn, viz
    >>> _, weights = nn.MultiheadAttention(8, 2)(randn(5, 8), need_weights=True, is_causal=True)
    >>> viz.attention_weights(weights, "these").get_ylabel()
    'query'
    """
    w = weights.data if isinstance(weights, Tensor) else np.asarray(weights)
    if w.ndim != 2 or any(t is not None and len(t) != n for t, n in zip((queries, keys), w.shape, strict=True)):
        got = [None if tokens is None else len(tokens) for tokens in (queries, keys)]
        raise ValueError(f"viz.attention_weights: weights {list(w.shape)} and tokens {got}, need [L, S], L and S")
    axes = _axes("attention_weights", axes, 1.8 + 0.25 * w.shape[1], 1.5 + 0.25 * w.shape[0])
    axes.imshow(w, cmap="Blues", vmin=0, vmax=max(float(w.max(initial=0)), 1e-9))
    if keys is None and queries is not None and w.shape[0] == w.shape[1]:
        keys = queries  # self-attention
    if keys is not None:
        axes.set_xticks(range(w.shape[1]), list(keys))
    if queries is not None:
        axes.set_yticks(range(w.shape[0]), list(queries))
    axes.set(xlabel="key", ylabel="query")
    return axes


def filters(weight: Array | Tensor, columns: int | None = None) -> Figure:
    """Draw the filters of a convolution, `weight` [O, C, KH, KW]: in colour for C = 3, else one for each O and C.

    Grey is 0 and the scale is the same for all; rows of the picture are outputs where there is more than one channel.

    Examples
    --------
    >>> from pynn import nn, viz
    >>> len(viz.filters(nn.Conv2d(1, 6, 5).weight).axes)
    6
    """
    w = np.asarray(weight.data if isinstance(weight, Tensor) else weight)
    if w.ndim != 4 or w.size == 0:
        raise ValueError(f"viz.filters: weight {list(w.shape)}, needs [O, C, KH, KW], such as conv.weight")
    largest = max(float(np.abs(w).max()), 1e-30)
    w = 0.5 + 0.5 * w / largest
    if w.shape[1] == 3:
        return image_grid(w, columns)
    if w.shape[1] > 1 and columns is None:
        columns = w.shape[1]
    return image_grid(w.reshape(-1, *w.shape[2:]), columns, limits=(0, 1))


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
    columns = columns or math.ceil(math.sqrt(len(x)))
    rows = math.ceil(len(x) / columns)
    low, high = limits or (float(x.min()), float(x.max()))
    figure = _figure("image_grid", 1.1 * columns, (1.1 if titles is None else 1.4) * rows)
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
    axes = _axes("lr_find", axes)
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
