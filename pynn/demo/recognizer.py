"""From a drawing to what each layer of a model makes of it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn import nn
from pynn.functional import softmax
from pynn.images import SIDE, centre_ink
from pynn.models import Classifier
from pynn.replay import capture
from pynn.tape import no_grad

DRAWING_SIDE = 140  # pixels of a drawing, five for each of the model's input; the page's script has the same
MOST = 127  # of an activation as it is sent: int8


class Recognizer:
    """Tells the digit in a drawing, with the output of every layer; one captured forward does it all.

    Parameters
    ----------
    classifier : Classifier
        Its model must be `Sequential`.

    Raises
    ------
    ValueError
        If its weights give no finite probabilities.

    Examples
    --------
    >>> from pynn.models import build
    >>> recognizer = Recognizer(Classifier("mlp", build("mlp"), 0.0, 1.0, "none", False))
    >>> drawing = np.zeros((140, 140), np.uint8)
    >>> drawing[20:120, 60:75] = 255
    >>> answer = recognizer.answer(drawing.tobytes())
    >>> len(answer["probabilities"]), [layer["name"] for layer in recognizer.about["layers"]]
    (10, ['Linear + ReLU', 'Linear'])
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        blank = np.zeros((SIDE, SIDE), np.uint8)
        classifier.probabilities(blank[None])  # which refuses weights that are not finite
        groups = _groups(classifier.model.eval())
        parts = [nn.Sequential(*group).eval() for group in groups]

        def forward(x: Any) -> tuple[Any, ...]:
            outputs = []
            for part in parts:
                x = part(x)
                outputs.append(x)
            return softmax(x), *outputs

        self._forward = capture(forward)
        # Captures, so that the first stroke need not wait.
        _, outputs = self._run(blank)
        self.about: dict[str, Any] = {
            "model": classifier.name,
            "parameters": sum(parameter.size for parameter in classifier.model.parameters()),
            "dataset": classifier.dataset,
            "is_synthetic": classifier.is_synthetic,
            "layers": [
                {"name": " + ".join(filter(None, map(_label, group))), "shape": list(output.shape)}
                for group, output in zip(groups, outputs, strict=True)
            ],
        }

    def answer(self, drawing: bytes) -> dict[str, Any]:
        """Return what the model makes of a drawing: 140 rows of 140 bytes, 0 for no ink and 255 for full ink.

        The drawing is centred and scaled as MNIST's digits are.

        Returns
        -------
        dict
            "digit"; "probabilities", ten floats; "image", the model's input before normalisation, 28×28 bytes;
            "layers", for each of `about["layers"]` its activations as int8, scaled so that the largest is 127 in size.
            Bytes are texts in base64.

        Raises
        ------
        ValueError
            If the drawing is of another size, or empty.
        FloatingPointError
            If an activation is not finite.
        """
        if len(drawing) != DRAWING_SIDE**2:
            raise ValueError(f"a drawing has {DRAWING_SIDE} x {DRAWING_SIDE} bytes, got {len(drawing)}")
        ink = np.frombuffer(drawing, np.uint8).reshape(DRAWING_SIDE, DRAWING_SIDE).astype(np.float64)
        if not ink.any():
            raise ValueError("the drawing is empty")
        image = centre_ink(ink)
        probabilities, outputs = self._run(image)
        names = [layer["name"] for layer in self.about["layers"]]
        for name, values in zip([*names, "softmax"], [*outputs, probabilities], strict=True):
            if not np.isfinite(values).all():
                raise FloatingPointError(f"the output of {name} is not finite: the weights are too large")
        return {
            "digit": int(probabilities.argmax()),
            "probabilities": probabilities.tolist(),
            "image": _text(image),
            "layers": [_text(_scaled(output)) for output in outputs],
        }

    def _run(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
        with no_grad():
            probabilities, *outputs = self._forward(self._classifier.inputs(image[None]))
        return probabilities.data[0], [output.data[0] for output in outputs]


def _groups(model: nn.Sequential) -> list[list[nn.Module]]:
    """Put layers together that are shown as one: a ReLU with what it follows, Flatten and Dropout with what follows."""
    groups: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, (nn.Flatten, nn.Dropout)):
            waiting.append(layer)
        elif isinstance(layer, nn.ReLU) and groups and not waiting:
            groups[-1].append(layer)
        else:
            groups.append([*waiting, layer])
            waiting = []
    return groups


def _label(layer: nn.Module) -> str:
    if isinstance(layer, (nn.Flatten, nn.Dropout)):
        return ""
    size = getattr(layer, "kernel_size", None)
    if size is None:
        return type(layer).__name__
    height, width = (size, size) if isinstance(size, int) else size
    return f"{type(layer).__name__} {height}\u00d7{width}"


def _scaled(activations: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    largest = float(np.abs(activations).max())
    return np.rint(activations * (MOST / largest if largest > 0 else 0)).astype(np.int8)


def _text(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
