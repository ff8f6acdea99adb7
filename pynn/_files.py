"""Files that are either whole or not there."""

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def make_folder(what: str, path: str | os.PathLike[str]) -> Path:
    """Make a folder, with those above it, unless it is there, and see that it takes files.

    NotADirectoryError for a file, another OSError for a folder that is read-only; both messages begin with `what`.

    >>> import tempfile
    >>> make_folder("save", tempfile.mkdtemp()).is_dir()
    True
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{what} {folder} is a file, or would lie in one; it needs a folder") from None
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OSError(error.errno, f"{what} takes no files: {error.strerror}", str(folder)) from None


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when complete.

    The bytes go to a temporary name in the same folder, are flushed to the disk, the file is renamed, and the folder is
    flushed. If the body raises, the temporary file is removed and a file already at `path` stays as it was.

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
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with _opened(temporary, path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _opened(temporary: Path, path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(temporary, "xb")
    except OSError as error:  # a folder that is missing: under the name that the caller knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
