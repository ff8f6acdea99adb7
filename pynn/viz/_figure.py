"""Where pictures are drawn: matplotlib, which is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(name: str, width: float, height: float) -> Figure:
    """Return an empty figure of so many inches; ImportError, which names viz.`name`, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"viz.{name}: needs matplotlib: pip install 'pynn-cpu[viz]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def new_axes(name: str, axes: Axes | None, width: float = 6, height: float = 4) -> Axes:
    """Return `axes`, or those of a new figure."""
    return new_figure(name, width, height).subplots() if axes is None else axes
