"""Train a model on MNIST and keep the results: what ``pynn train mnist`` does."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pynn
from pynn import nn, optim, serialize
from pynn._files import make_folder
from pynn.data import (
    MNIST,
    MNIST_MEAN,
    MNIST_STD,
    DataLoader,
    load_mnist,
    normalize_images,
    random_shift,
    random_split,
)
from pynn.models import Classifier, build, newest_weights
from pynn.train.checkpoint import BEST, LAST
from pynn.train.history import History, save_figure
from pynn.train.settings import SETTINGS, SameSettings, Settings, StoredRun, write_json
from pynn.train.trainer import Trainer

__all__ = ["SYNTHETIC_PREFIX", "Settings", "resume_mnist", "train_mnist"]

SYNTHETIC_PREFIX = "[synthetic digits] "
TEST_BATCH = 250  # of the cnn, the activations of 500 would take more memory than its training
MISTAKES = 25
METRICS = "metrics.json"


def train_mnist(
    settings: Settings,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    checkpoint_every: int | None = None,
) -> bool:
    """Train, test, and write metrics.json, weights and (with matplotlib) pictures into a run folder.

    A loss that is NaN or infinite, as the test may find it after a last step that diverges, is null in metrics.json.

    The test set has no part in the choice of weights: they are those of the last epoch, or with `settings.val` those
    of the epoch that was best on the images held out.

    With the safetensors package each epoch leaves a checkpoint, and with `checkpoint_every` so do each so many steps
    of one; `resume_mnist` goes on from it.

    Returns
    -------
    bool
        Whether Ctrl-C cut the training short; the results so far are written all the same.

    Raises
    ------
    FileExistsError
        If `out` has the checkpoints or results of a run, which would be lost.
    NotADirectoryError
        If `out` is a file.
    OSError
        If `out` cannot be written to.
    """
    return _run(settings, load_mnist(data_dir), out, quiet, checkpoint_every, resume=False)


def resume_mnist(
    run: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    checkpoint_every: int | None = None,
) -> bool:
    """Go on with the run in a folder that `train_mnist` wrote, to the bits that it would have ended with.

    Settings are those of the run, `checkpoint_every` too unless given. A run that ended before its first checkpoint
    begins anew. Returns what `train_mnist` does.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the folder does not exist, has no settings of a run, or is a file.
    ValueError
        If they cannot be read, are not those that the checkpoint was written with, or the data are others.
    """
    stored = StoredRun.read(run)
    data = load_mnist(data_dir)
    if data.name != stored.dataset:
        raise ValueError(f"train mnist: the run in {os.fspath(run)} is on {stored.dataset}, the data are {data.name}")
    if stored.sha256 is not None and stored.sha256 != _sha256(data):
        raise ValueError(
            f"train mnist: the run in {os.fspath(run)} is on other {data.name} than those in {data.source}: its "
            f"{SETTINGS} has SHA-256 {stored.sha256}, these have {_sha256(data)}"
        )
    every = stored.checkpoint_every if checkpoint_every is None else checkpoint_every
    return _run(stored.settings, data, run, quiet, every, resume=True)


def _run(
    settings: Settings,
    data: MNIST,
    out: str | os.PathLike[str] | None,
    quiet: bool,
    checkpoint_every: int | None,
    resume: bool,
) -> bool:
    prefix = SYNTHETIC_PREFIX if data.is_synthetic else ""
    try:
        if checkpoint_every is not None:
            serialize._import_safetensors("train mnist: --checkpoint-every")
        parts = _split(data, settings)
        with _run_folder(out, settings.model, resume) as folder:
            return _train(settings, data, *parts, folder, quiet, checkpoint_every, prefix, resume)
    except (ValueError, OSError, ImportError, FloatingPointError, KeyboardInterrupt) as error:
        if prefix:
            error.add_note(prefix)  # the command prints it before the message
        raise


def _train(
    settings: Settings,
    data: MNIST,
    train: tuple[Any, ...],
    held_out: tuple[Any, ...],
    folder: Path,
    quiet: bool,
    checkpoint_every: int | None,
    prefix: str,
    resume: bool,
) -> bool:
    def log(text: str) -> None:
        if not quiet:
            print(f"{prefix}{text}", flush=True)

    pynn.seed(settings.seed)
    log(f"data: {data.name}, {len(train[0]):,} training and {len(data.test[0]):,} test images, from {data.source}")

    model = build(settings.model)
    shifted = _Shifted(settings)
    loader = DataLoader(*train, batch_size=settings.batch_size, shuffle=True, seed=settings.seed, transform=shifted)
    optimizer = optim.Adam(model.parameters(), lr=settings.lr)
    scheduler = optim.OneCycleLR(optimizer, settings.lr, total_steps=settings.epochs * len(loader))
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
        optimizer,
        scheduler,
        verbose=not quiet,
        log=partial(print, flush=True),
        prefix=prefix,
    )
    info = pynn.info()
    parameters = sum(parameter.size for parameter in model.parameters())
    threads = f"threads: {info['num_threads']}; {info['isa']}"
    log(f"model: {settings.model}, {parameters:,} parameters; {threads}; captured steps")

    val_loader = DataLoader(*held_out, batch_size=TEST_BATCH, transform=_normalized) if settings.val else None
    checkpoint = folder if importlib.util.find_spec("safetensors") else None
    start = folder if resume and (folder / LAST).exists() else None
    if resume and start is None:
        log(f"no checkpoint in {folder}, so the run begins anew")
    if checkpoint is not None:
        StoredRun(data.name, settings, checkpoint_every, _sha256(data)).write(folder)
    else:
        log("no checkpoints to resume from, they need safetensors: pip install 'pynn-cpu[safetensors]'")
    history = trainer.fit(
        loader,
        settings.epochs,
        val=val_loader,
        callbacks=[SameSettings(settings)],
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=start,
    )
    test_loader = DataLoader(*data.test, batch_size=TEST_BATCH, transform=_normalized)
    trainer.loss = nn.CrossEntropyLoss()  # the test loss is that of the true labels
    test = trainer.evaluate(test_loader)
    which = (
        "the last epoch" if history.best_epoch is None else f"epoch {history.best_epoch}, best on the held-out images"
    )
    if history.interrupted and history.best_epoch is None:
        which = "the moment of interruption"
    log(f"test loss {test['loss']:.4f}  accuracy {100 * test['accuracy']:.2f} %  (weights of {which})")

    written = [
        _write_metrics(folder, settings, data, history, test, which, info),
        _write_weights(folder, settings, data, model),
    ]
    written += _write_pictures(folder, data, history, trainer.predict(test_loader), prefix, log)
    log(f"written to {folder}: {', '.join(written)}")
    return history.interrupted


def _sha256(data: MNIST) -> str | None:
    """Tell custom data from others of the same name; the other names say by themselves which data they are."""
    if data.name != "custom IDX data":
        return None
    digest = hashlib.sha256()
    for array in (*data.train, *data.test):
        digest.update(f"{array.dtype} {list(array.shape)}".encode())
        digest.update(array.reshape(-1).data)
    return digest.hexdigest()


class _Shifted:
    """A transform of training images, with random numbers that checkpoints include."""

    def __init__(self, settings: Settings) -> None:
        self._pixels = settings.shift
        self._generator = np.random.default_rng(settings.seed)

    def __call__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> tuple[Any, Any]:
        if self._pixels:
            images = random_shift(images, self._pixels, rng=self._generator)
        return _normalized(images, labels)

    def state_dict(self) -> Any:
        return self._generator.bit_generator.state

    def load_state_dict(self, state: Any) -> None:
        self._generator.bit_generator.state = state


def _normalized(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    return normalize_images(images), labels


def _split(data: MNIST, settings: Settings) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return training and held-out images with labels."""
    total = len(data.train[0])
    if settings.val >= total:
        raise ValueError(f"train mnist: --val {settings.val} leaves none of the {total} training images")
    if settings.val == 0:
        return data.train, ()
    first, second = random_split(data.train, [total - settings.val, settings.val], seed=settings.seed)
    return first, second


@contextmanager
def _run_folder(out: str | os.PathLike[str] | None, model: str, resume: bool) -> Iterator[Path]:
    """Give the folder of the run; one that was made for a run which then left nothing is removed."""
    if resume and out is not None:
        yield Path(out)
        return
    folder = _new_folder(out, model)
    try:
        yield folder
    except BaseException:
        if out is None and {path.name for path in folder.iterdir()} <= {SETTINGS}:
            shutil.rmtree(folder)
        raise


def _new_folder(out: str | os.PathLike[str] | None, model: str) -> Path:
    if out is not None:
        folder = make_folder("train mnist: --out", out)
        if any((folder / name).exists() for name in (LAST, BEST)):
            raise FileExistsError(
                f"train mnist: {folder} has the checkpoints of a run: go on with it by --resume {folder}, "
                "or take another folder as --out"
            )
        if (folder / METRICS).exists() or newest_weights(folder) is not None:
            raise FileExistsError(f"train mnist: {folder} has the results of a run, take another folder as --out")
        return folder
    for n in count(1):
        folder = Path("runs", f"mnist-{model}-{n}")
        try:
            folder.mkdir(parents=True)  # not "exists", then "make": another run may start at the same moment
        except FileExistsError:
            continue
        return folder
    raise AssertionError


def _write_metrics(
    folder: Path,
    settings: Settings,
    data: MNIST,
    history: History,
    test: dict[str, float],
    which: str,
    info: dict[str, Any],
) -> str:
    seconds = sum(row["seconds"] for row in history)
    images = sum(row["seconds"] * row["images_per_s"] for row in history)
    metrics = {
        "dataset": data.name,
        "is_synthetic": data.is_synthetic,
        "source": data.source,
        **asdict(settings),
        "optimizer": "Adam",
        "schedule": "one-cycle",
        "history": history.epochs,
        "interrupted": history.interrupted,
        "weights_of": which,
        "final_test_loss": test["loss"],
        "final_test_accuracy": test["accuracy"],
        "seconds": seconds,
        "images_per_s": images / seconds if seconds else None,
        "threads": info["num_threads"],
        "isa": info["isa"],
        "versions": {
            "pynn": pynn.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
    }
    write_json(folder / METRICS, metrics)
    return METRICS


def _write_weights(folder: Path, settings: Settings, data: MNIST, model: nn.Sequential) -> str:
    name = "weights.safetensors" if importlib.util.find_spec("safetensors") else "weights.npz"
    Classifier(settings.model, model, MNIST_MEAN, MNIST_STD, data.name, data.is_synthetic).save(folder / name)
    return name


def _write_pictures(
    folder: Path,
    data: MNIST,
    history: History,
    logits: npt.NDArray[np.float32],  # [N, 10], of the test images
    prefix: str,
    log: Callable[[str], None],
) -> list[str]:
    if not importlib.util.find_spec("matplotlib"):
        log("no curves.png and mistakes.png, they need matplotlib: pip install 'pynn-cpu[viz]'")
        return []
    written = []
    if len(history):
        history.plot(folder / "curves.png", title=f"{prefix}{data.name}")
        written.append("curves.png")
    with np.errstate(invalid="ignore"):  # logits that are infinite: the test loss says so
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(logits)), data.test_labels]
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != data.test_labels)
    worst = wrong[np.argsort(-losses[wrong], kind="stable")][:MISTAKES]
    if len(worst):
        _draw_mistakes(folder / "mistakes.png", data, worst, predicted, f"{prefix}{data.name}")
        written.append("mistakes.png")
    return written


def _draw_mistakes(
    path: Path, data: MNIST, worst: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], title: str
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7.8), layout="constrained")
    for axes in figure.subplots(5, 5).flat:
        axes.set_axis_off()
    for axes, i in zip(figure.axes, worst, strict=False):
        axes.imshow(data.test_images[i], cmap="gray_r")
        axes.set_title(f"{data.test_labels[i]} taken for {predicted[i]}", fontsize=9)
    figure.suptitle(f"{title}: the worst mistakes among the test images")
    save_figure(figure, path)
