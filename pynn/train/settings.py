"""The settings of a run of ``pynn train mnist``: checked, and kept for those who resume it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from pynn._files import atomic_file
from pynn.train.callbacks import Callback
from pynn.train.loggers import as_json

__all__ = ["SameSettings", "Settings", "StoredRun", "write_json"]

SETTINGS = "settings.json"


class Recipe(NamedTuple):
    """How a model is trained unless one asks otherwise."""

    epochs: int
    batch_size: int
    lr: float  # the highest of Adam's one-cycle schedule
    shift: int = 0  # pixels
    label_smoothing: float = 0.0


RECIPES = {
    "mlp": Recipe(8, 128, 4e-3),
    "lenet": Recipe(3, 128, 8e-3, label_smoothing=0.05),
    "cnn": Recipe(3, 64, 2e-3, shift=1),
}


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of a run."""

    model: str
    epochs: int
    batch_size: int
    lr: float
    seed: int
    val: int
    shift: int  # training images move by up to this many pixels, each anew in each epoch
    label_smoothing: float  # in the training loss, as in F.cross_entropy

    def __post_init__(self) -> None:
        """Refuse what no option of the command would let in: TypeError, ValueError."""
        _recipe(self.model)
        for name, least, most in (
            ("epochs", 1, None),
            ("batch_size", 1, None),
            ("seed", 0, 2**64 - 1),
            ("val", 0, None),
            ("shift", 0, 27),
        ):
            check_integer(f"Settings: {name}", getattr(self, name), least, most)
        for name, needs in (("lr", "a number above 0"), ("label_smoothing", "a number in [0, 1)")):
            value = getattr(self, name)
            if type(value) not in (int, float):
                raise TypeError(f"Settings: {name} is {value!r}, needs {needs}")
            if not (0 < value < math.inf if name == "lr" else 0 <= value < 1):
                raise ValueError(f"Settings: {name} is {value}, needs {needs}")

    @classmethod
    def of(
        cls,
        model: str = "lenet",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        seed: int = 0,
        val: int = 0,
    ) -> Self:
        """Fill in the model's own epochs, batch size and learning rate where None; the rest is the model's anyway.

        >>> Settings.of("lenet", epochs=1).lr
        0.008
        """
        recipe = _recipe(model)
        return cls(
            model,
            recipe.epochs if epochs is None else epochs,
            recipe.batch_size if batch_size is None else batch_size,
            recipe.lr if lr is None else lr,
            seed,
            val,
            recipe.shift,
            recipe.label_smoothing,
        )


def _recipe(model: str) -> Recipe:
    if model not in RECIPES:
        raise ValueError(f"Settings: unknown model {model!r}, expected one of {', '.join(RECIPES)}")
    return RECIPES[model]


def check_integer(what: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse other types, and bool, by TypeError, and what is out of range by ValueError.

    >>> check_integer("epochs", 0, 1)
    Traceback (most recent call last):
    ValueError: epochs is 0, needs an integer of at least 1
    """
    needs = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    if type(value) is not int:
        raise TypeError(f"{what} is {value!r}, needs {needs}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{what} is {value}, needs {needs}")


class StoredRun(NamedTuple):
    """What the folder of a run keeps of how it was begun."""

    dataset: str
    settings: Settings
    checkpoint_every: int | None
    sha256: str | None = None  # of the data; None if their name tells which, or a run before this was kept

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        begun = {"dataset": self.dataset, "sha256": self.sha256, **asdict(self.settings)}
        write_json(folder / SETTINGS, {**begun, "checkpoint_every": self.checkpoint_every})

    @classmethod
    def read(cls, run: str | os.PathLike[str]) -> Self:
        """Read what `write` wrote; raises as `resume_mnist`."""
        path = Path(run, SETTINGS)
        if Path(run).is_file():
            raise NotADirectoryError(f"train mnist: --resume {os.fspath(run)} is a file, needs the folder of the run")
        if not Path(run).exists():
            raise FileNotFoundError(f"train mnist: --resume {os.fspath(run)} does not exist, needs the folder of a run")
        try:
            stored = json.loads(path.read_bytes())
            if not isinstance(stored, dict):
                raise TypeError(f"it holds a {type(stored).__name__}")
            dataset, every = stored.pop("dataset"), stored.pop("checkpoint_every", None)
            sha256 = stored.pop("sha256", None)
            if every is not None:
                check_integer("checkpoint_every", every, 1)
            return cls(dataset, Settings(**stored), every, sha256)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"train mnist: --resume {os.fspath(run)} has no {SETTINGS}, which pynn train writes where safetensors "
                "is installed"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"train mnist: {path} does not have the settings of a run: {error}") from error


class SameSettings(Callback):
    """Keeps the settings in the checkpoints of a run, and refuses to go on from one with others."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def state_dict(self) -> Mapping[str, Any]:
        """Return the settings."""
        return asdict(self._settings)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if they are others."""
        for name, value in asdict(self._settings).items():
            if state.get(name) != value:
                raise ValueError(
                    f"train mnist: {SETTINGS} of the run has {name} {value}, its checkpoint was written with "
                    f"{state.get(name)}"
                )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all; NaN and infinity, which JSON has not, as null."""
    with atomic_file(path) as file:
        file.write(json.dumps(as_json(content), indent=2, allow_nan=False).encode() + b"\n")
