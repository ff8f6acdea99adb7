"""Files that are either whole or not there."""

import errno
import fcntl
import glob
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def check_path(what: str, path: object) -> None:
    """Raise TypeError, whose message begins with `what`, for what is no path.

    >>> check_path("load: path", None)
    Traceback (most recent call last):
    TypeError: load: path is a NoneType, needs a str or an os.PathLike
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{what} is a {type(path).__name__}, needs a str or an os.PathLike")


def make_folder(what: str, path: str | os.PathLike[str]) -> Path:
    """Make a folder, with those above it, unless it is there, and see that it takes files.

    NotADirectoryError for a file, another OSError for a folder that cannot be made or is read-only; all messages begin
    with `what`.

    >>> import tempfile
    >>> make_folder("save", tempfile.mkdtemp()).is_dir()
    True
    """
    check_path(what, path)
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{what} {folder} is a file, or would lie in one; it needs a folder") from None
    except OSError as error:
        raise OSError(error.errno, f"{what} cannot be made: {error.strerror}", str(folder)) from None
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(error.errno, f"{what} takes no files: {error.strerror}", str(folder)) from None


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when complete.

    The bytes go to a temporary name in the same folder, are flushed to the disk, the file is renamed, and the folder is
    flushed. If the body raises, the temporary file is removed and a file already at `path` stays as it was. Until the
    file has its name it is locked, by which `remove_leftovers` knows it from those of processes that were killed.
    OSError for a `path` that is something else than a regular file, since one would take its place.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "a.txt")
    >>> with atomic_file(path) as f:
    ...     count = f.write(b"whole")
    >>> path.read_bytes()
    b'whole'
    """
    target = Path(path).resolve()  # so that a link keeps pointing at the new bytes
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    # Of `path` and not of `target`: what /dev/stdout points at, such as a pipe, has no name of its own.
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "Is a device, pipe or socket, needs a regular file or a new name", os.fspath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _opened(temporary, path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell, such as that of a name that is too long
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what `atomic_file` left beside `path` when its process was killed, and nothing that is still written."""
    target = Path(path).resolve()
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        with suppress(OSError), open(leftover, "r+b") as file:  # one that another process has, or finished: let it be
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _opened(temporary: Path, path: str | os.PathLike[str]) -> BinaryIO:
    while True:
        try:
            file = open(temporary, "xb")  # noqa: SIM115 - the caller closes it
        except OSError as error:  # a folder that is missing: under the name that the caller knows
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        with suppress(OSError):  # on a file system without locks leftovers stay
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():  # nobody took it for a leftover before it was locked
            return file
        file.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
