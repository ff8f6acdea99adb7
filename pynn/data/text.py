"""Text: the names of makemore, tiny Shakespeare, and vocabularies of characters."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pynn._files import check_path
from pynn.data._download import cache_dir, download_file
from pynn.tensor import Tensor


@dataclass(frozen=True)
class _Corpus:
    file: str
    urls: tuple[str, ...]
    sha256: str


_NAMES = _Corpus(
    "names.txt",
    ("https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",),
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
_SHAKESPEARE = _Corpus(
    "tinyshakespeare.txt",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
_MAX_DOWNLOAD = 4 << 20  # the larger of the two has 1.1 MB


def load_names(data_dir: str | os.PathLike[str] | None = None, *, download: bool = True) -> list[str]:
    r"""Load the 32,033 names, one a line, that Karpathy's makemore learns from.

    The first of these that has ``names.txt``, in itself or in its subfolder ``text``: `data_dir`, and then nothing
    else; the environment's ``PYNN_DATA_DIR``; the cache (as for `load_mnist`); a download into the cache, verified by
    SHA-256. Files of the user's own may hold any text in UTF-8.

    Raises
    ------
    FileNotFoundError
        No permitted place has the file; the message names them.
    ValueError
        The file is not UTF-8.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "names.txt").write_text("emma\nolivia\n")
    >>> load_names(folder)
    ['emma', 'olivia']
    """
    lines = _load("load_names", _NAMES, data_dir, download).splitlines()
    return [name for line in lines if (name := line.strip())]


def load_shakespeare(data_dir: str | os.PathLike[str] | None = None, *, download: bool = True) -> str:
    """Load tiny Shakespeare, the 1,115,394 characters that Karpathy's char-rnn learns from.

    ``tinyshakespeare.txt`` is looked for as `load_names` looks for its file, with the same errors.

    Examples
    --------
    >>> load_shakespeare("none")
    Traceback (most recent call last):
    FileNotFoundError: load_shakespeare: data_dir none has no tinyshakespeare.txt, neither in itself nor in text/
    """
    return _load("load_shakespeare", _SHAKESPEARE, data_dir, download)


def _load(op: str, corpus: _Corpus, data_dir: str | os.PathLike[str] | None, download: bool) -> str:
    if data_dir is not None:
        check_path(f"{op}: data_dir", data_dir)
    reasons = []
    what, given = ("data_dir", data_dir) if data_dir is not None else ("PYNN_DATA_DIR", os.environ.get("PYNN_DATA_DIR"))
    if given or data_dir is not None:  # an empty data_dir is the working folder, an empty variable is none
        folder = Path(given or "")
        for path in (folder / corpus.file, folder / "text" / corpus.file):
            if path.is_file():
                return _decoded(op, path)
        reasons.append(f"{what} {folder} has no {corpus.file}, neither in itself nor in text/")
    if data_dir is not None:
        raise FileNotFoundError(f"{op}: {reasons[0]}")
    path = cache_dir(op) / "text" / corpus.file
    cached = path.is_file()
    if cached and hashlib.sha256(path.read_bytes()).hexdigest() == corpus.sha256:
        return _decoded(op, path)
    if not download:
        state = "has a corrupt" if cached else "lacks"
        reasons.append(f"cache {path.parent} {state} {corpus.file}{' (SHA-256 differs)' * cached} and download is off")
        raise FileNotFoundError(f"{op}: {'; '.join(reasons)}")
    print(f"pynn: {op}: downloading {corpus.file} to {path.parent}", file=sys.stderr, flush=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_file(corpus.urls, path, sha256=corpus.sha256, max_bytes=_MAX_DOWNLOAD)
    except OSError as error:  # ConnectionError is one
        raise FileNotFoundError(f"{op}: {'; '.join([*reasons, str(error)])}") from error
    return _decoded(op, path)


def _decoded(op: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{op}: {path}: is not UTF-8 ({error})") from error


class Vocabulary:
    """The characters of a text, in the order of their code points, numbered from 0.

    Parameters
    ----------
    text : str, or iterable of str
        All characters that are to have a number.

    Attributes
    ----------
    characters : str
        Character i has the number i.

    Raises
    ------
    TypeError
        If `text` is neither.
    ValueError
        If there is no character.

    Examples
    --------
    >>> vocabulary = Vocabulary(["abba", "."])  # makemore's end of a name sorts before the letters
    >>> vocabulary.characters, len(vocabulary)
    ('.ab', 3)
    >>> vocabulary.encode("ab.")
    array([1, 2, 0])
    >>> vocabulary.decode([1, 2, 0])
    'ab.'
    """

    def __init__(self, text: str | Iterable[str]) -> None:
        try:
            self.characters = "".join(sorted(set("".join(text))))
        except TypeError as error:  # no iterable, or not of str
            raise TypeError(f"Vocabulary: text must be a str, or several: {error}") from None
        if not self.characters:
            raise ValueError("Vocabulary: the text is empty, needs at least one character")
        self._codes = _code_points(self.characters)

    def __len__(self) -> int:
        """Return the number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return the numbers of the characters of `text`.

        Raises
        ------
        TypeError
            If `text` is no str.
        ValueError
            If a character is not in the vocabulary; the message names it.
        """
        if not isinstance(text, str):
            raise TypeError(f"Vocabulary: text is a {type(text).__name__}, encode needs a str")
        codes = _code_points(text)
        ids = np.searchsorted(self._codes, codes)
        wrong = self._codes[np.minimum(ids, len(self) - 1)] != codes
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(f"Vocabulary: character {text[at]!r} at {at} is none of the {len(self)} known ones")
        return np.asarray(ids, np.int64)

    def decode(self, ids: npt.ArrayLike | Tensor) -> str:
        """Return the characters of the numbers `ids`, of any shape; IndexError for a number that none has."""
        try:
            array = np.asarray(ids.data if isinstance(ids, Tensor) else ids).reshape(-1)
        except ValueError as error:  # nested lists of unequal lengths
            raise ValueError(f"Vocabulary: ids are not a rectangular array: {error}") from None
        if array.size == 0:
            return ""
        if array.dtype.kind not in "iu":
            raise TypeError(f"Vocabulary: ids must be integers, got {array.dtype}")
        if array.min() < 0 or array.max() >= len(self):
            raise IndexError(f"Vocabulary: ids from {array.min()} to {array.max()}, needs 0 to {len(self) - 1}")
        return str(self._codes[array].tobytes(), "utf-32-le", "surrogatepass")

    def __repr__(self) -> str:
        """Return the characters."""
        return f"Vocabulary({self.characters!r})"


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
