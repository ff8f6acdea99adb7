"""Texts: where they are looked for, what is refused, and how characters become numbers."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pynn
from pynn.data import Vocabulary, load_mnist, load_names, load_shakespeare, text
from pynn.data.text import _Corpus

CONTENT = "emma\r\nolivia\n\nmary ann\nzoë\n".encode()
LOADERS = pytest.mark.parametrize(
    ("load", "file"),
    [(load_names, "names.txt"), (load_shakespeare, "tinyshakespeare.txt")],
    ids=["names", "shakespeare"],
)


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data and no network but what a test sets up."""
    monkeypatch.delenv("PYNN_DATA_DIR", raising=False)
    monkeypatch.setenv("PYNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@LOADERS
@pytest.mark.parametrize("subfolder", ["", "text"])
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_folder(load, file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subfolder: str, given: str) -> None:
    put(tmp_path / "data" / subfolder / file)
    if given == "environment":
        monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "data"))
    got = load(tmp_path / "data") if given == "argument" else load()
    assert got == (["emma", "olivia", "mary ann", "zoë"] if load is load_names else "emma\nolivia\n\nmary ann\nzoë\n")


def test_a_folder_of_the_caller_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "other" / "names.txt")
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match=r"^load_names: data_dir .*none has no names.txt"):
        load_names(tmp_path / "none")


def test_an_empty_name_is_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^load_names: data_dir \. has no names.txt"):
        load_names("")
    with pytest.raises(FileNotFoundError, match=r"^load_mnist: data_dir \. has no MNIST"):
        load_mnist("")
    put(tmp_path / "names.txt")
    assert load_names("")[0] == "emma"
    monkeypatch.setenv("PYNN_DATA_DIR", "")
    with pytest.raises(FileNotFoundError, match=r"^load_names: cache .* lacks names.txt"):
        load_names(download=False)


def test_refuses_other_encodings(tmp_path: Path) -> None:
    put(tmp_path / "names.txt", "zoë".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^load_names: .*names.txt: is not UTF-8"):
        load_names(tmp_path)


def test_nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYNN_DATA_DIR", str(tmp_path / "empty"))
    with pytest.raises(
        FileNotFoundError, match=r"^load_shakespeare: PYNN_DATA_DIR .*; cache .* lacks .* download is off"
    ):
        load_shakespeare(download=False)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve CONTENT as /good and something else as /bad, and expect it as the names; yields what was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = CONTENT if self.path == "/good" else b"<html>Please log in</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    urls = tuple(f"http://127.0.0.1:{server.server_port}/{name}" for name in ("bad", "good"))
    monkeypatch.setattr(text, "_NAMES", _Corpus("names.txt", urls, hashlib.sha256(CONTENT).hexdigest()))
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_once(tmp_path: Path, mirror: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache" / "text"
    assert load_names() == load_names(download=False) == ["emma", "olivia", "mary ann", "zoë"]
    assert mirror == ["/bad", "/good"]
    assert [path.name for path in folder.iterdir()] == ["names.txt"]
    assert capfd.readouterr().err == f"pynn: load_names: downloading names.txt to {folder}\n"
    put(folder / "names.txt", CONTENT[:-1])  # a cache that is not the text
    with pytest.raises(FileNotFoundError, match=r"^load_names: cache .* has a corrupt names.txt \(SHA-256 differs\)"):
        load_names(download=False)
    assert load_names()[-1] == "zoë"
    assert (folder / "names.txt").read_bytes() == CONTENT


def test_no_mirror_has_it(tmp_path: Path, mirror: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_NAMES", _Corpus("names.txt", text._NAMES.urls[:1], text._NAMES.sha256))
    with pytest.raises(FileNotFoundError, match=r"^load_names: download names.txt: .*bad: sent other data: SHA-256"):
        load_names()
    assert list((tmp_path / "cache" / "text").iterdir()) == []


def test_the_real_texts(mnist_dir: Path) -> None:
    for load, corpus in ((load_names, text._NAMES), (load_shakespeare, text._SHAKESPEARE)):
        path = mnist_dir / "text" / corpus.file
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == corpus.sha256
        assert len(load(mnist_dir)) == {"names.txt": 32_033}.get(corpus.file, 1_115_394)


# -- vocabularies ------------------------------------------------------------------------------------------------------


def test_vocabulary() -> None:
    vocabulary = Vocabulary("the quick brown\n\U0001f98a jumps")
    assert list(vocabulary.characters) == sorted(set("the quick brown\n\U0001f98a jumps"))
    ids = vocabulary.encode("fix \U0001f98a".replace("f", "k").replace("x", "e"))
    assert ids.dtype == np.int64
    assert ids.tolist() == [vocabulary.characters.index(c) for c in "kie \U0001f98a"]
    for same in (ids, ids.tolist(), ids.astype(np.uint8), pynn.Tensor(ids)):
        assert vocabulary.decode(same) == "kie \U0001f98a"
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode([]) == ""
    assert vocabulary.decode(3) == vocabulary.characters[3]
    assert repr(Vocabulary("ba")) == "Vocabulary('ab')"


def test_vocabulary_refuses() -> None:
    vocabulary = Vocabulary(["ab", "c"])
    for character in "Az~":
        with pytest.raises(ValueError, match=rf"^Vocabulary: character '{character}' at 2 is none of the 3 known ones"):
            vocabulary.encode(f"ab{character}")
    with pytest.raises(TypeError, match=r"^Vocabulary: text is a list, encode needs a str"):
        vocabulary.encode(["a"])  # type: ignore[arg-type]
    for ids in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match=r"^Vocabulary: ids from .* to .*, needs 0 to 2"):
            vocabulary.decode(ids)
    with pytest.raises(TypeError, match=r"^Vocabulary: ids must be integers, got float64"):
        vocabulary.decode([0.5])
    with pytest.raises(ValueError, match=r"^Vocabulary: the text is empty"):
        Vocabulary("")
    for wrong in (5, None, [1, 2], b"ab"):
        with pytest.raises(TypeError, match=r"^Vocabulary: text must be a str, or several: "):
            Vocabulary(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Vocabulary: ids are not a rectangular array"):
        vocabulary.decode([[0], [1, 2]])
