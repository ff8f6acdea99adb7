"""MNIST: found on disk, downloaded, or, offline, replaced by synthetic digits that say so."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pynn._files import check_path
from pynn.data._download import cache_dir, download_file
from pynn.data.idx import idx_header, read_idx
from pynn.data.synthetic import synthetic_digits

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# SHA-256 of the unpacked bytes: mirrors compress the same files differently.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FILES = tuple(_SHA256)
_MAX_DOWNLOAD = 16 << 20  # the largest file is 9.9 MB packed,
_MAX_UNPACKED = 64 << 20  # 47 MB unpacked
_MAX_BYTES = 1 << 30  # of a user's own file

Name = Literal["mnist", "custom IDX data", "synthetic-digits"]


@dataclass(frozen=True, eq=False, repr=False)
class MNIST:
    """Images of handwritten digits with labels 0 to 9, in two parts.

    Attributes
    ----------
    train_images, test_images : uint8 ndarray ``[N, 28, 28]``
        0 is background, 255 full ink. MNIST has 60,000 and 10,000.
    train_labels, test_labels : int64 ndarray ``[N]``
    name : str
        "mnist" only if every byte is that of MNIST; "custom IDX data" for other files in its format (such as
        Fashion-MNIST); "synthetic-digits" for pynn's own substitute.
    source : str
        The folder, the mirrors, or the generator that the data came from.
    """

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]
    name: Name
    source: str

    @property
    def is_synthetic(self) -> bool:
        """True if these are generated digits: results must not be given as MNIST's."""
        return self.name == "synthetic-digits"

    @property
    def train(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """``(train_images, train_labels)``."""
        return self.train_images, self.train_labels

    @property
    def test(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """``(test_images, test_labels)``."""
        return self.test_images, self.test_labels

    def __repr__(self) -> str:
        train, test = list(self.train_images.shape), list(self.test_images.shape)
        return f"MNIST(name={self.name!r}, train_images={train}, test_images={test}, source={self.source!r})"


def load_mnist(
    data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, allow_synthetic: bool = True
) -> MNIST:
    """Load MNIST (LeCun, Cortes and Burges, 1998).

    The first of these that has the four IDX files, packed (``.gz``) or not, in itself or in its subfolder ``mnist``:

    1. `data_dir`, and then nothing else;
    2. the environment's ``PYNN_DATA_DIR``;
    3. the cache: ``PYNN_CACHE_DIR``, else ``XDG_CACHE_HOME/pynn``, else ``~/.cache/pynn``;
    4. a download into the cache from one of two mirrors, verified by SHA-256;
    5. `synthetic_digits`, announced by a line on standard error and by `MNIST.is_synthetic`.

    Parameters
    ----------
    data_dir : path-like, optional
        The only folder to look in.
    download : bool
        Permit step 4.
    allow_synthetic : bool
        Permit step 5.

    Raises
    ------
    FileNotFoundError
        `data_dir` does not have the files; or no permitted step found the data.
    ValueError
        A file in `data_dir` or ``PYNN_DATA_DIR`` is corrupt or does not hold digits in MNIST's format.

    Examples
    --------
    >>> load_mnist("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: load_mnist: data_dir no/such/folder is not a folder
    """
    if data_dir is not None:
        check_path("load_mnist: data_dir", data_dir)
        return _load_folder(_find(Path(data_dir), "data_dir"))
    reasons = []
    if environment := os.environ.get("PYNN_DATA_DIR"):
        try:
            found = _find(Path(environment), "PYNN_DATA_DIR")
        except FileNotFoundError as error:
            reasons.append(_without_prefix(error))
            _notice(f"{reasons[-1]}; looking further")
        else:
            return _load_folder(found)
    try:
        return _load_cache(download)
    except (OSError, ValueError) as error:
        reasons.append(_without_prefix(error))
    if not allow_synthetic:
        raise FileNotFoundError(f"load_mnist: {'; '.join(reasons)}")
    _notice(f"NO MNIST, USING SYNTHETIC DIGITS INSTEAD, results are not MNIST's ({'; '.join(reasons)})")
    return _synthetic()


def _find(folder: Path, what: str) -> dict[str, Path]:
    """Return the path of each of the four files in `folder` or `folder`/mnist."""
    if not folder.is_dir():
        raise FileNotFoundError(f"load_mnist: {what} {folder} is not a folder")
    missing = {}
    for candidate in (folder, folder / "mnist"):
        paths = {name: path for name in _FILES if (path := _present(candidate, name))}
        if len(paths) == len(_FILES):
            return paths
        missing[candidate] = [name for name in _FILES if name not in paths]
    # Name the files that are missing where some are there.
    fewest = min(missing, key=lambda candidate: len(missing[candidate]))
    if len(missing[fewest]) < len(_FILES):
        raise FileNotFoundError(f"load_mnist: {what} {fewest} lacks {', '.join(missing[fewest])} (.gz or not)")
    raise FileNotFoundError(
        f"load_mnist: {what} {folder} has no MNIST, neither in itself nor in mnist/ (needs {', '.join(_FILES)}, "
        f".gz or not)"
    )


def _present(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _load_folder(paths: dict[str, Path]) -> MNIST:
    """Load a folder of the user's: any data in MNIST's format is good, only MNIST itself is called so."""
    arrays = {name: read_idx(path, max_bytes=_MAX_BYTES) for name, path in paths.items()}
    for part in ("train", "t10k"):
        images_path, labels_path = paths[f"{part}-images-idx3-ubyte"], paths[f"{part}-labels-idx1-ubyte"]
        images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or len(images) == 0:
            got = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"load_mnist: {images_path}: got {got}, needs uint8 [N, 28, 28] with N > 0")
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
            got = f"{labels.dtype} {list(labels.shape)}"
            raise ValueError(f"load_mnist: {labels_path}: got {got}, needs uint8 [{len(images)}], one for each image")
        if labels.max() > 9:
            raise ValueError(f"load_mnist: {labels_path}: label {labels.max()}, needs 0 to 9")
    genuine = all(_sha256(arrays[name]) == _SHA256[name] for name in _FILES)
    folder = next(iter(paths.values())).parent
    return _dataset(arrays, "mnist" if genuine else "custom IDX data", str(folder))


def _load_cache(download: bool) -> MNIST:
    """Load the cache, downloading what is missing or is not MNIST's."""
    folder = cache_dir("load_mnist") / "mnist"
    arrays: dict[str, npt.NDArray[Any]] = {}
    mirrors: list[str] = []
    for name in _FILES:
        path = _present(folder, name)
        array = None
        if path is not None:
            try:
                array = _read_verified(path, name)
            except ValueError as error:
                if not download:
                    raise
                _notice(f"{_without_prefix(error)}; downloading it again")
        elif not download:
            raise FileNotFoundError(f"load_mnist: cache {folder} lacks {name} and download is off")
        if array is None:
            path = folder / f"{name}.gz"
            folder.mkdir(parents=True, exist_ok=True)
            if not mirrors:
                _notice(f"downloading MNIST to {folder}")
            url = download_file(
                [f"{mirror}{name}.gz" for mirror in MIRRORS],
                path,
                sha256=_SHA256[name],
                max_bytes=_MAX_DOWNLOAD,
                max_unpacked=_MAX_UNPACKED,
            )
            mirrors.append(url.rpartition("/")[0] + "/")
            array = _read_verified(path, name)
        arrays[name] = array
    return _dataset(arrays, "mnist", " and ".join(dict.fromkeys(mirrors)) or str(folder))


def _read_verified(path: Path, name: str) -> npt.NDArray[Any]:
    array = read_idx(path, max_bytes=_MAX_UNPACKED)
    if array.dtype != np.uint8 or _sha256(array) != _SHA256[name]:
        raise ValueError(f"load_mnist: {path}: is not MNIST's file (SHA-256 differs)")
    return array


def _sha256(array: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of the unpacked IDX file that holds the uint8 `array`."""
    digest = hashlib.sha256(idx_header(array))
    digest.update(array.reshape(-1).data)
    return digest.hexdigest()


def _dataset(arrays: dict[str, npt.NDArray[Any]], name: Name, source: str) -> MNIST:
    train_images, train_labels, test_images, test_labels = (arrays[file] for file in _FILES)
    return MNIST(train_images, train_labels.astype(np.int64), test_images, test_labels.astype(np.int64), name, source)


def _synthetic() -> MNIST:
    train, test = synthetic_digits(60_000, seed=0), synthetic_digits(10_000, seed=1)
    return MNIST(*train, *test, "synthetic-digits", "pynn.data.synthetic_digits, seeds 0 and 1")


def _without_prefix(error: Exception) -> str:
    return str(error).removeprefix("load_mnist: ")


def _notice(text: str) -> None:
    # Not `warnings`: Python shows a warning once per place, and this must be seen for every load.
    print(f"pynn: load_mnist: {text}", file=sys.stderr, flush=True)
