"""The cache of downloads: a file comes from the first mirror that has it, and is verified before it takes its name."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pynn._files import atomic_file
from pynn._version import __version__

ATTEMPTS = 3  # per mirror, for connections that drop
PAUSE_S = 0.5  # before the second attempt, doubled for each further one
TIMEOUT_S = 10.0  # of one socket operation
_CHUNK = 1 << 16


class _TransientError(Exception):
    """The same request may succeed when repeated."""


def cache_dir(op: str) -> Path:
    """Return the folder that downloads are kept in (it may not exist yet); errors begin with `op`."""
    if own := os.environ.get("PYNN_CACHE_DIR"):
        return Path(own)
    # The XDG specification has relative paths ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "pynn"
    try:
        return Path.home() / ".cache" / "pynn"
    except RuntimeError as error:
        raise FileNotFoundError(
            f"{op}: no folder for the cache, the home folder is unknown: set PYNN_CACHE_DIR"
        ) from error


def download_file(
    urls: Sequence[str],
    path: str | os.PathLike[str],
    *,
    sha256: str,
    max_bytes: int,
    max_unpacked: int | None = None,
) -> str:
    """Download a file with the given SHA-256; return the URL that it came from.

    `max_unpacked` says that it is packed by gzip; the SHA-256 is then that of the unpacked bytes. Mirrors are tried in
    turn. A connection that drops, times out or answers "server error" is tried again; a mirror that cannot be reached,
    refuses, or sends other bytes than expected is left for the next one.

    Raises
    ------
    ConnectionError
        No mirror gave the file; the message has the reason for each.
    OSError
        `path` cannot be written.
    """
    path = Path(path)
    reasons = []
    for url in urls:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                with atomic_file(path) as file:
                    _receive(url, file, path.name, max_bytes)
                    file.flush()
                    _verify(Path(file.name), sha256, max_unpacked)
                return url
            except _TransientError as error:
                reason = f"{error} ({attempt + 1} times)"
            except ConnectionError as error:
                reason = str(error)
                break
        reasons.append(f"{url}: {reason}")
    raise ConnectionError(f"download {path.name}: {'; '.join(reasons)}")


def _receive(url: str, file: BinaryIO, name: str, max_bytes: int) -> None:
    """Copy the response's body to `file`; raise _TransientError, or ConnectionError if there is no use in repeating."""
    request = urllib.request.Request(url, headers={"User-Agent": f"pynn/{__version__}"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP status {error.code} {error.reason}"
        if error.code >= 500 or error.code == 429:
            raise _TransientError(reason) from error
        raise ConnectionError(reason) from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"cannot connect ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(f"connection dropped ({error or type(error).__name__})") from error
    with response:
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isascii() and length.isdigit() else None
        if expected is not None and expected > max_bytes:
            raise ConnectionError(f"too large, {expected} bytes exceed the limit of {max_bytes}")
        progress = _Progress(name, expected)
        done = 0
        try:
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _TransientError(f"connection dropped after {done} bytes ({error})") from error
                if not chunk:
                    break
                done += len(chunk)
                if done > max_bytes:
                    raise ConnectionError(f"too large, exceeds the limit of {max_bytes} bytes")
                file.write(chunk)
                progress.show(done)
        finally:
            progress.close()
    # http.client reports a body that ends early only to callers who read it in one piece.
    if expected is not None and done < expected:
        raise _TransientError(f"connection dropped after {done} of {expected} bytes")


def _verify(path: Path, sha256: str, max_unpacked: int | None) -> None:
    if max_unpacked is None:
        if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
            raise ConnectionError(f"sent other data: SHA-256 {got}, expected {sha256}")
        return
    digest = hashlib.sha256()
    done = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(_CHUNK):
                done += len(chunk)
                if done > max_unpacked:
                    raise ConnectionError(f"unpacks to more than the {max_unpacked} bytes expected")
                digest.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConnectionError(f"sent corrupt gzip data ({error})") from error
    if digest.hexdigest() != sha256:
        raise ConnectionError(f"sent other data: unpacked SHA-256 {digest.hexdigest()}, expected {sha256}")


class _Progress:
    """A bar on standard error if that is a terminal, else nothing."""

    _WIDTH = 30

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._stream = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
        self._shown = ""

    def show(self, done: int) -> None:
        if self._stream is None:
            return
        if self._total:
            filled = min(self._WIDTH, self._WIDTH * done // self._total)
            bar = "#" * filled + "." * (self._WIDTH - filled)
            text = f"{self._name} [{bar}] {done / 1e6:.1f}/{self._total / 1e6:.1f} MB"
        else:
            text = f"{self._name} {done / 1e6:.1f} MB"
        if text != self._shown:
            self._shown = text
            self._stream.write(f"\r{text}")
            self._stream.flush()

    def close(self) -> None:
        if self._stream is not None and self._shown:
            self._stream.write("\n")
