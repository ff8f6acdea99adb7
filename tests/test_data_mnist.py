"""MNIST: where it is looked for, what is refused, and downloads from two local mirrors that misbehave."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pynn.data import MNIST_MEAN, MNIST_STD, _download, load_mnist, mnist, read_idx, write_idx

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def small_arrays() -> dict[str, np.ndarray]:
    """Return a data set of the format of MNIST with 30 and 20 images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 30), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n, dtype=np.uint8) % 10
    return arrays


def put(folder: Path, suffix: str = ".gz", **changes: np.ndarray) -> Path:
    """Write the small data set; `changes` replaces arrays by part and kind, such as ``train_labels``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in small_arrays().items():
        write_idx(folder / f"{name}{suffix}", changes.get("_".join(name.split("-")[:2]), array))
    return folder


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data, no network, no proxy but what a test sets up."""
    monkeypatch.delenv("PYNN_DATA_DIR", raising=False)
    monkeypatch.setenv("PYNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(_download, "PAUSE_S", 0)


@pytest.fixture
def small_is_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the small data set the genuine one."""
    hashes = {name: mnist._sha256(array) for name, array in small_arrays().items()}
    monkeypatch.setattr(mnist, "_SHA256", hashes)


@pytest.fixture
def few_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw 1/1000 of the synthetic digits, to save time."""
    real = mnist.synthetic_digits
    monkeypatch.setattr(mnist, "synthetic_digits", lambda n, seed: real(n // 1000, seed))


# --- folders


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subfolder: str, suffix: str, given: str) -> None:
    put(tmp_path / "data" / subfolder, suffix)
    if given == "environment":
        monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "data"))
    data = load_mnist(tmp_path / "data" if given == "argument" else None)
    arrays = small_arrays()
    np.testing.assert_array_equal(data.train_images, arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test_labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.train_images.dtype == data.test_images.dtype == np.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    assert data.train == (data.train_images, data.train_labels)
    assert data.name == "custom IDX data"
    assert data.source == str(tmp_path / "data" / subfolder)
    assert not data.is_synthetic
    assert "custom IDX data" in repr(data)
    assert "[30, 28, 28]" in repr(data)


def test_packed_and_unpacked_files_may_be_mixed(tmp_path: Path) -> None:
    folder = put(tmp_path / "data")
    write_idx(folder / NAMES[0], read_idx(folder / f"{NAMES[0]}.gz"))
    (folder / f"{NAMES[0]}.gz").unlink()
    assert len(load_mnist(folder).train_images) == 30


@pytest.mark.usefixtures("small_is_mnist")
def test_only_mnist_is_called_mnist(tmp_path: Path) -> None:
    assert load_mnist(put(tmp_path / "same")).name == "mnist"
    images = small_arrays()["t10k-images-idx3-ubyte"]
    images[-1, -1, -1] ^= 1
    assert load_mnist(put(tmp_path / "other", t10k_images=images)).name == "custom IDX data"


def test_the_real_mnist(mnist_dir: Path) -> None:
    data = load_mnist(mnist_dir)
    assert data.name == "mnist"
    assert data.train_images.shape == (60000, 28, 28)
    assert data.test_images.shape == (10000, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = data.train_images / np.float32(255)
    assert round(float(pixels.mean(dtype=np.float64)), 4) == MNIST_MEAN
    assert round(float(pixels.std(dtype=np.float64)), 4) == MNIST_STD


def test_an_explicit_folder_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cache" / "mnist")
    monkeypatch.setenv("PYNN_DATA_DIR", str(put(tmp_path / "environment")))
    with pytest.raises(FileNotFoundError, match=r"load_mnist: data_dir .*none is not a folder"):
        load_mnist(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"load_mnist: data_dir .*empty has no MNIST, neither in itself nor in"):
        load_mnist(tmp_path / "empty")
    part = put(tmp_path / "part" / "mnist")
    (part / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"part/mnist lacks {NAMES[2]} "):
        load_mnist(tmp_path / "part")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_images": np.zeros((30, 28, 27), np.uint8)},
            "train-images.*got uint8 [30, 28, 27], needs uint8 [N, 28",
        ),
        ({"train_images": np.zeros((30, 784), np.uint8)}, "train-images.*got uint8 [30, 784]"),
        ({"train_images": np.zeros(30, np.uint8)}, "train-images.*got uint8 [30]"),
        ({"t10k_images": np.zeros((20, 28, 28), np.float32)}, "t10k-images.*got float32 [20, 28, 28]"),
        ({"t10k_images": np.zeros((0, 28, 28), np.uint8)}, "t10k-images.*N > 0"),
        ({"train_labels": np.zeros(29, np.uint8)}, "train-labels.*got uint8 [29], needs uint8 [30]"),
        ({"train_labels": np.zeros((30, 1), np.uint8)}, "train-labels.*got uint8 [30, 1], needs uint8 [30]"),
        ({"t10k_labels": np.zeros(20, np.int32)}, "t10k-labels.*got int32 [20]"),
        ({"t10k_labels": np.full(20, 10, np.uint8)}, "t10k-labels.*label 10, needs 0 to 9"),
    ],
)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_other_formats_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, np.ndarray], message: str, given: str
) -> None:
    folder = put(tmp_path / "data", **changes)
    pattern = "load_mnist: .*" + re.escape(message).replace(r"\.\*", ".*")
    if given == "environment":
        monkeypatch.setenv("PYNN_DATA_DIR", str(folder))
    with pytest.raises(ValueError, match=pattern):
        load_mnist(folder if given == "argument" else None)


def test_corrupt_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "data")
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setenv("PYNN_DATA_DIR", str(folder))
    for data_dir in (folder, None):
        with pytest.raises(ValueError, match=f"read_idx: .*{NAMES[0]}.gz: truncated gzip data"):
            load_mnist(data_dir)


@pytest.mark.usefixtures("small_is_mnist")
def test_environment_without_mnist_warns_and_goes_on_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "cache" / "mnist")
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "none"))
    data = load_mnist(download=False)
    assert data.name == "mnist"
    assert data.source == str(tmp_path / "cache" / "mnist")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"pynn: load_mnist: PYNN_DATA_DIR {tmp_path / 'none'} is not a folder; looking further\n"


# --- the cache


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mnist.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for empty in ("set", "unset"):
        monkeypatch.setenv("PYNN_CACHE_DIR", "") if empty == "set" else monkeypatch.delenv("PYNN_CACHE_DIR")
        assert mnist.cache_dir() == tmp_path / "xdg" / "pynn"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert mnist.cache_dir() == tmp_path / ".cache" / "pynn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert mnist.cache_dir() == tmp_path / ".cache" / "pynn"


@pytest.mark.usefixtures("few_synthetic")
def test_other_data_in_the_cache_is_not_mnist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "cache" / "mnist")
    with pytest.raises(FileNotFoundError, match=r"is not MNIST's file \(SHA-256 differs\)"):
        load_mnist(download=False, allow_synthetic=False)
    assert load_mnist(download=False).is_synthetic
    assert "is not MNIST's file" in capfd.readouterr().err


@pytest.mark.usefixtures("few_synthetic")
def test_synthetic_digits_say_so(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        data = load_mnist()
        out, err = capfd.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith("pynn: load_mnist: NO MNIST, USING SYNTHETIC DIGITS INSTEAD")
    assert data.is_synthetic
    assert data.name == "synthetic-digits"
    assert "synthetic_digits" in data.source
    assert data.train_images.shape == (60, 28, 28)
    assert data.test_images.shape == (10, 28, 28)
    assert not np.array_equal(data.train_images[:10], data.test_images)


def test_without_permission_to_substitute_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"load_mnist: PYNN_DATA_DIR .*; cache .* lacks .* and download is off"):
        load_mnist(download=False, allow_synthetic=False)


# --- downloads

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
def mirrors(monkeypatch: pytest.MonkeyPatch, small_is_mnist: None) -> Iterator[tuple[Mirror, Mirror]]:
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
    tmp_path: Path, mirrors: tuple[Mirror, Mirror], answer: Answer, attempts: int, reason: str
) -> None:
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


def test_hashes_are_of_the_unpacked_file(tmp_path: Path) -> None:
    array = small_arrays()[NAMES[0]]
    write_idx(tmp_path / "raw", array)
    assert mnist._sha256(array) == hashlib.sha256((tmp_path / "raw").read_bytes()).hexdigest()
