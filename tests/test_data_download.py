"""Downloads of MNIST from two local mirrors that misbehave."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from small_mnist import NAMES, few_synthetic, isolated, put, small_arrays, small_is_mnist

from pynn.data import load_mnist, mnist

__all__ = ["few_synthetic", "isolated", "small_is_mnist"]  # fixtures, found by their names in this module

pytestmark = pytest.mark.usefixtures("small_is_mnist")

Answer = Callable[["Handler", bytes], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request for a file with what the test put into `server.answers`, or well."""

    server: Mirror

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2].removesuffix(".gz")
        self.server.requests.append(name)
        answers = self.server.answers
        answer = answers if callable(answers) else answers.pop(0) if answers else good
        answer(self, packed(small_arrays()[name]))

    def log_message(self, format: str, *args: object) -> None:
        pass


class Mirror(http.server.ThreadingHTTPServer):
    """A local mirror; `answers` is one answer to all requests or a list of the first ones."""

    answers: Answer | list[Answer]
    requests: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mnist/"


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Mirror, Mirror]]:
    servers = tuple(Mirror(("127.0.0.1", 0), Handler) for _ in range(2))
    threads = []
    for server in servers:
        server.answers, server.requests = [], []
        threads.append(threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}))
        threads[-1].start()
    monkeypatch.setattr(mnist, "MIRRORS", tuple(server.url for server in servers))
    yield servers  # type: ignore[misc]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


def packed(array: np.ndarray) -> bytes:
    return gzip.compress(mnist.idx_header(array) + array.tobytes())


def send(handler: Handler, body: bytes, length: int | None = None, status: int = 200) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def good(handler: Handler, body: bytes) -> None:
    send(handler, body, len(body))


def without_length(handler: Handler, body: bytes) -> None:
    send(handler, body)


def drops(handler: Handler, body: bytes) -> None:
    send(handler, body[: len(body) // 2], len(body))


def drops_at_once(handler: Handler, body: bytes) -> None:
    handler.close_connection = True


def not_found(handler: Handler, body: bytes) -> None:
    send(handler, b"gone", 4, status=404)


def overloaded(handler: Handler, body: bytes) -> None:
    send(handler, b"wait", 4, status=503)


def cut_file(handler: Handler, body: bytes) -> None:
    good(handler, body[:-20])


def login_page(handler: Handler, body: bytes) -> None:
    good(handler, b"<html>Please log in</html>")


def other_data(handler: Handler, body: bytes) -> None:
    content = bytearray(gzip.decompress(body))
    content[-1] ^= 1
    good(handler, gzip.compress(bytes(content)))


def bomb(handler: Handler, body: bytes) -> None:
    good(handler, gzip.compress(bytes(mnist._MAX_UNPACKED + 1), 1))


def announces_too_much(handler: Handler, body: bytes) -> None:
    send(handler, b"", mnist._MAX_DOWNLOAD + 1)


def sends_too_much(handler: Handler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(mnist._MAX_DOWNLOAD // (1 << 20) + 2):
            handler.wfile.write(bytes(1 << 20))
    except ConnectionError:
        pass  # the client has seen enough


def cached(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache" / "mnist"))


EXPECTED_CACHE = sorted(f"{name}.gz" for name in NAMES)


@pytest.mark.parametrize("answer", [good, without_length])
def test_download(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], capfd: pytest.CaptureFixture[str], answer: Answer
) -> None:
    mirrors[0].answers = answer
    data = load_mnist()
    assert data.name == "mnist"
    assert data.source == mirrors[0].url
    np.testing.assert_array_equal(data.train_images, small_arrays()[NAMES[0]])
    assert mirrors[0].requests == list(NAMES)
    assert mirrors[1].requests == []
    assert cached(tmp_path) == EXPECTED_CACHE
    # One line and no bar: standard error is not a terminal.
    assert capfd.readouterr().err == f"pynn: load_mnist: downloading MNIST to {tmp_path / 'cache' / 'mnist'}\n"
    again = load_mnist()
    assert again.source == str(tmp_path / "cache" / "mnist")
    assert len(mirrors[0].requests) == 4


@pytest.mark.parametrize("answer", [drops, drops_at_once, overloaded])
def test_a_dropped_connection_is_tried_again(tmp_path: Path, mirrors: tuple[Mirror, Mirror], answer: Answer) -> None:
    mirrors[0].answers = [answer, answer]
    assert load_mnist(allow_synthetic=False).source == mirrors[0].url
    assert mirrors[0].requests == [NAMES[0]] * 3 + list(NAMES[1:])
    assert cached(tmp_path) == EXPECTED_CACHE


@pytest.mark.parametrize(
    ("answer", "attempts", "reason"),
    [
        (drops, 3, r"connection dropped after \d+ of \d+ bytes \(3 times\)"),
        (drops_at_once, 3, "connection dropped .*3 times"),
        (overloaded, 3, r"HTTP status 503 .*\(3 times\)"),
        (not_found, 1, "HTTP status 404"),
        (cut_file, 1, "sent corrupt gzip data"),
        (login_page, 1, "sent corrupt gzip data"),
        (other_data, 1, "sent other data: unpacked SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (bomb, 1, "unpacks to more than"),
        (announces_too_much, 1, "too large, 16777217 bytes exceed the limit of 16777216"),
        (sends_too_much, 1, "too large, exceeds the limit of 16777216 bytes"),
    ],
)
def test_a_bad_mirror_is_left_for_the_next(
    tmp_path: Path,
    mirrors: tuple[Mirror, Mirror],
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    attempts: int,
    reason: str,
) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(mnist, "MIRRORS", (mirrors[0].url,))
        mirrors[0].answers = answer
        with pytest.raises(FileNotFoundError, match=f"{re.escape(mirrors[0].url)}{NAMES[0]}.gz: {reason}"):
            load_mnist(allow_synthetic=False)
    mirrors[0].requests.clear()
    mirrors[0].answers = [answer] * attempts
    data = load_mnist(allow_synthetic=False)
    np.testing.assert_array_equal(data.train_images, small_arrays()[NAMES[0]])
    assert mirrors[0].requests == [NAMES[0]] * attempts + list(NAMES[1:])
    assert mirrors[1].requests == [NAMES[0]]
    assert data.source == f"{mirrors[1].url} and {mirrors[0].url}"
    assert cached(tmp_path) == EXPECTED_CACHE


@pytest.mark.parametrize("answer", [drops, not_found, other_data])
@pytest.mark.usefixtures("few_synthetic")
def test_two_bad_mirrors(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], capfd: pytest.CaptureFixture[str], answer: Answer
) -> None:
    mirrors[0].answers = mirrors[1].answers = answer
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(allow_synthetic=False)
    for mirror in mirrors:
        assert f"{mirror.url}{NAMES[0]}.gz: " in str(caught.value)
    assert cached(tmp_path) == []  # no temporary file either
    capfd.readouterr()
    assert load_mnist().is_synthetic
    assert mirrors[1].url in capfd.readouterr().err.splitlines()[-1]


def test_unreachable_mirror(mirrors: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 (discard) is below 1024: no test server has it; .invalid never resolves (RFC 2606).
    monkeypatch.setattr(mnist, "MIRRORS", ("http://host.invalid/", "http://127.0.0.1:9/"))
    with pytest.raises(FileNotFoundError, match=r"host.invalid.*cannot connect.*127.0.0.1:9.*cannot connect"):
        load_mnist(allow_synthetic=False)


def test_an_interrupted_download_continues_with_the_missing_files(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror]
) -> None:
    mirrors[0].answers = [good, good, not_found]
    mirrors[1].answers = not_found
    with pytest.raises(FileNotFoundError):
        load_mnist(allow_synthetic=False)
    assert cached(tmp_path) == sorted(f"{name}.gz" for name in NAMES[:2])
    mirrors[0].requests.clear()
    load_mnist(allow_synthetic=False)
    assert mirrors[0].requests == list(NAMES[2:])


def test_a_corrupt_cache_is_downloaded_again(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = put(tmp_path / "cache" / "mnist")
    path = folder / f"{NAMES[1]}.gz"
    path.write_bytes(path.read_bytes()[:-5])
    assert load_mnist(allow_synthetic=False).name == "mnist"
    assert mirrors[0].requests == [NAMES[1]]
    assert f"{path}: truncated gzip data; downloading it again" in capfd.readouterr().err


def test_a_cache_that_cannot_be_written_is_a_reason(
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYNN_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError, match=r"load_mnist: .*Not a directory"):
        load_mnist(allow_synthetic=False)
    assert mirrors[0].requests == []


def test_progress_bar_on_a_terminal(mirrors: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    load_mnist()
    lines = terminal.getvalue().split("\n")
    assert lines[1].startswith(f"\r{NAMES[0]}.gz [")
    assert lines[1].endswith("[" + "#" * 30 + "] 0.0/0.0 MB")
    assert len(lines) == 6
