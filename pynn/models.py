"""The small models of the command line, for images ``[N, 1, 28, 28]`` and ten classes, and their files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pynn import nn
from pynn._version import __version__
from pynn.data import normalize_images
from pynn.functional import softmax
from pynn.serialize import load, save
from pynn.tape import no_grad

__all__ = ["MODELS", "Classifier", "build", "cnn", "lenet", "mlp", "newest_weights", "weights_file"]


def mlp() -> nn.Sequential:
    """One hidden layer of 128 units: 784-128-10, 101,770 parameters.

    >>> mlp()[1].weight.shape
    (128, 784)
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet() -> nn.Sequential:
    """LeNet-5 with ReLU and max-pooling, 61,706 parameters.

    After LeCun et al., "Gradient-based learning applied to document recognition" (1998).

    >>> lenet()[0].weight.shape
    (6, 1, 5, 5)
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [N, 6, 14, 14]
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [N, 16, 5, 5]
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def cnn() -> nn.Sequential:
    """Two 3×3 convolutions and dropout, 1,199,882 parameters: the network of PyTorch's ``examples/mnist``.

    >>> cnn()[2].weight.shape
    (64, 32, 3, 3)
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),  # [N, 64, 12, 12]
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


MODELS: dict[str, Callable[[], nn.Sequential]] = {"mlp": mlp, "lenet": lenet, "cnn": cnn}


def build(name: str) -> nn.Sequential:
    """Return a new model by name; ValueError if there is none.

    >>> len(build("mlp"))
    4
    """
    if name not in MODELS:
        raise ValueError(f"build: unknown model {name!r}, expected one of {', '.join(MODELS)}")
    return MODELS[name]()


@dataclass(frozen=True)
class Classifier:
    """A trained model of digits with all that is needed to apply it.

    Attributes
    ----------
    name : str
        Of the model, for `build`.
    model : Sequential
    mean, std : float
        Inputs are ``(pixel / 255 - mean) / std``.
    dataset : str
        What the model was trained on.
    is_synthetic : bool
        The data were generated digits, not MNIST.
    """

    name: str
    model: nn.Sequential
    mean: float
    std: float
    dataset: str
    is_synthetic: bool

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the probabilities ``[N, 10]`` of the digits in uint8 images ``[N, 28, 28]``.

        TypeError for images of another dtype, which may have been scaled already; ValueError for another shape, or if
        a probability is not finite.

        >>> classifier = Classifier("mlp", mlp(), 0.0, 1.0, "none", False)
        >>> classifier.probabilities(np.zeros((3, 28, 28), np.uint8)).sum(axis=1)
        array([1., 1., 1.], dtype=float32)
        """
        self.model.eval()
        with no_grad():
            probabilities = softmax(self.model(self.inputs(images))).data
        if not np.isfinite(probabilities).all():
            wrong = probabilities[~np.isfinite(probabilities)][0]
            raise ValueError(f"Classifier: the weights of {self.name} give {wrong} as a probability")
        return probabilities

    def inputs(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what the model takes, float32 ``[N, 1, 28, 28]``, for uint8 images ``[N, 28, 28]``.

        To the bits those of `normalize_images`, as in training; raises what it does.
        """
        return normalize_images(images, self.mean, self.std)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights, with the rest as metadata; raises as `serialize.save`."""
        metadata = {
            "model": self.name,
            "dataset": self.dataset,
            "is_synthetic": str(self.is_synthetic).lower(),
            "mean": repr(float(self.mean)),  # of a NumPy number repr has the type around it
            "std": repr(float(self.std)),
            "pynn": __version__,
        }
        save(path, self.model.state_dict(), metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is broken, or does not say which model it belongs to, or does not fit it.
        """
        state, metadata = load(path)
        missing = [name for name in ("model", "dataset", "is_synthetic", "mean", "std") if name not in metadata]
        if missing:
            raise ValueError(
                f"Classifier.load: {os.fspath(path)} was not written by pynn train: its metadata has no {missing[0]!r}"
            )
        try:
            model = build(metadata["model"])
            model.load_state_dict(state)
            mean, std = float(metadata["mean"]), float(metadata["std"])
            if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
                raise ValueError(f"its mean is {mean} and its std {std}, needs numbers and a positive std")
        except ValueError as error:
            raise ValueError(f"Classifier.load: {os.fspath(path)}: {error}") from error
        return cls(metadata["model"], model, mean, std, metadata["dataset"], metadata["is_synthetic"] == "true")


def weights_file(operation: str, path: str | os.PathLike[str]) -> Path:
    """Return `path`, or of a folder the newest file of weights in it; FileNotFoundError if there is none."""
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"{operation}: {os.fspath(path)!r} does not exist, needs a file of weights or the folder of a run"
        )
    if not os.path.isdir(path):
        return Path(path)
    found = newest_weights(Path(path))
    if found is None:
        raise FileNotFoundError(
            f"{operation}: there are no weights.safetensors and no weights.npz in {os.fspath(path)}"
        )
    return found


def newest_weights(folder: Path, pattern: str = "weights.*") -> Path | None:
    """Return the newest file of weights with such a name, or None."""
    files = [path for path in folder.glob(pattern) if path.suffix in (".safetensors", ".npz")]
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
