"""What a network has inside: activations, gradients, updates, filters, attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pynn.grad_mode import no_grad
from pynn.nn.module import Module
from pynn.tensor import Tensor
from pynn.viz._figure import new_axes, new_figure
from pynn.viz.results import image_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = npt.NDArray[Any]


def activation_histograms(model: Module, *inputs: Any, bins: int = 50) -> Figure:
    """Draw the distribution of the outputs of every layer of `model` without children, for these inputs.

    Titles give mean and standard deviation, and the share of the outputs that are saturated: beyond 0.97 in size for
    `Tanh`, at 0 for `ReLU`. The method is that of Karpathy's makemore, part 3. The model runs in the mode that it is
    in: in training mode batch normalisation takes the inputs into its averages.

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
    if not outputs:
        raise ValueError("viz.activation_histograms: no layer without children returned a tensor")
    panels = []
    for label, y in outputs.items():
        facts = _not_finite(y) or f"mean {y.mean():+.2f}, std {y.std():.2f}"
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
        facts = _not_finite(grad)
        if not facts:
            facts = f"std {grad.std():.1e}, grad / data {grad.std() / max(float(p.data.std()), 1e-30):.1e}"
        panels.append((f"{name} {list(p.shape)}\n{facts}", grad))
    return _histograms("gradient_histograms", panels, bins)


def _not_finite(values: Array) -> str:
    """Say how many values are NaN or infinite; "" if none is."""
    count = values.size - np.count_nonzero(np.isfinite(values))
    return f"{100 * count / values.size:.3g} % not finite" if count else ""


def _histograms(name: str, panels: Sequence[tuple[str, Array]], bins: int) -> Figure:
    """Draw one histogram for each title and its values, as shares of the values; what is not finite has no place."""
    columns = min(4, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(name, 3.2 * columns, 2.4 * rows)
    for i, (title, values) in enumerate(panels):
        counts, edges = np.histogram(values[np.isfinite(values)], bins)
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
        axes = new_axes("UpdateRatios", axes, 8)
        for name, ratios in self.ratios.items():
            axes.plot(np.log10(np.maximum(ratios, 1e-30)), label=f"{name} {list(self._parameters[name].shape)}")
        axes.axhline(-3, color="black", linestyle=":")
        axes.set(title="update to weight", xlabel="step", ylabel="log10 of the ratio")
        axes.legend(fontsize="small")
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
    axes = new_axes("attention_weights", axes, 1.8 + 0.25 * w.shape[1], 1.5 + 0.25 * w.shape[0])
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
