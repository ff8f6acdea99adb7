"""Pictures of what a network does, drawn by matplotlib (`pip install 'pynn-cpu[viz]'`).

Functions draw into the matplotlib `axes` that they are given, or into a new figure, and return them; nothing is shown
and no global state is used: `axes.figure.savefig("picture.png")` writes the file.
"""

from pynn.viz.networks import (
    UpdateRatios,
    activation_histograms,
    attention_weights,
    filters,
    gradient_histograms,
)
from pynn.viz.results import confusion_matrix, decision_boundary, image_grid, lr_find

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
