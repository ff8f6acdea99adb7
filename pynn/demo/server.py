"""The server of the page: files of this package and one question, for browsers on this computer only."""

from __future__ import annotations

import errno
import json
import os
import socket
import socketserver
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from pynn.demo.recognizer import DRAWING_SIDE, Recognizer

ADDRESS = "127.0.0.1"
MOST_BYTES = DRAWING_SIDE**2  # of a question
MOST_DISCARDED = 1 << 20  # bytes of a refused question that are read, so that its sender gets to read the answer
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/layers.js": ("layers.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
JSON = "application/json"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class DemoServer(ThreadingHTTPServer):
    """Serves the page, ``/model`` (what the model is) and ``POST /recognize`` (a drawing to an answer) on 127.0.0.1.

    Parameters
    ----------
    recognizer : Recognizer
    port : int
        0 for any that is free; `url` tells it.

    Raises
    ------
    OSError
        If the port is in use or not allowed.

    Examples
    --------
    >>> from pynn.models import Classifier, build
    >>> with DemoServer(Recognizer(Classifier("mlp", build("mlp"), 0.0, 1.0, "none", False)), port=0) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere two servers could share a port

    def __init__(self, recognizer: Recognizer, port: int) -> None:
        self.recognizer = recognizer
        page = resources.files("pynn.demo") / "page"
        self.contents = {path: (kind, (page / name).read_bytes()) for path, (name, kind) in FILES.items()}
        self.contents["/model"] = (JSON, _json(recognizer.about))
        with _told(port):
            super().__init__((ADDRESS, port), _Handler)
        # The names under which a browser here asks. Another one belongs to a page elsewhere that had its name point to
        # this computer (DNS rebinding).
        self.hosts = {f"{name}{suffix}" for name in (ADDRESS, "localhost") for suffix in self._suffixes()}

    def _suffixes(self) -> list[str]:
        return [f":{self.server_port}"] + ([""] if self.server_port == 80 else [])

    def server_bind(self) -> None:
        """Bind without asking a name server for this computer's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong in an answer, but not that a browser left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"


def check_port(port: int) -> None:
    """Raise the OSError that a `DemoServer` on this port would."""
    with _told(port), socket.socket() as trial:
        if DemoServer.allow_reuse_address:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((ADDRESS, port))
        trial.listen(1)  # a port that is reused may be bound, but not listened on


@contextmanager
def _told(port: int) -> Iterator[None]:
    """Say in an OSError what was wrong with the port."""
    try:
        yield
    except OverflowError as error:
        raise OSError(f"demo: port is {port}, needs 0 to 65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"demo: port {port} is in use; take another with --port, or any free one with --port 0"
        else:
            text = f"demo: cannot listen on port {port}: {error.strerror}"
        raise OSError(text) from error


class _Refused(Exception):  # noqa: N818 - an answer, not an error of the program
    def __init__(self, status: int, text: str, **headers: str) -> None:
        self.status, self.text, self.headers = status, text, headers


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for which a connection may say nothing
    # An answer leaves in one piece, at once: held back until the browser has acknowledged a first piece, it would
    # come 40 ms later.
    wbufsize = -1
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        try:
            kind, content = self._content()
        except _Refused as refused:
            self.send_error(refused.status, refused.text, **refused.headers)
            return
        self._send(200, kind, content)

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815 - names of the standard library
    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _answer  # noqa: N815

    def _content(self) -> tuple[str, bytes]:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            raise _Refused(400, f"a request has one Host header, got {len(hosts)}")
        if hosts[0].strip().lower() not in self.server.hosts:
            raise _Refused(403, f"this is {self.server.url}, not {hosts[0]}")
        path = self.path.partition("?")[0]
        if path == "/recognize":
            self._allow("POST")
            return JSON, _json(self._recognize())
        if path not in self.server.contents:
            raise _Refused(404, f"there is no {path}")
        self._allow("GET", "HEAD")
        # Left where it is, it would be read as the connection's next request.
        if "Transfer-Encoding" in self.headers or self.headers.get_all("Content-Length", ["0"]) != ["0"]:
            raise _Refused(400, f"{self.command} takes no content")
        return self.server.contents[path]

    def _allow(self, *methods: str) -> None:
        if self.command not in methods:
            raise _Refused(405, f"{self.command} is not for {self.path}", Allow=", ".join(methods))

    def _recognize(self) -> dict[str, Any]:
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://").lower() not in self.server.hosts:
            raise _Refused(403, f"a page of {origin} may not ask")
        kind = self.headers.get("Content-Type", "nothing")
        if kind.partition(";")[0].strip().lower() != "application/octet-stream":
            raise _Refused(415, f"a drawing is application/octet-stream, got {kind}")
        length = self._length()
        if length > MOST_BYTES:
            raise _Refused(413, f"a drawing has {MOST_BYTES} bytes, got {length}")
        try:
            drawing = self.rfile.read(length)
        except TimeoutError:
            raise _Refused(408, f"the drawing did not come within {self.timeout} s") from None
        if len(drawing) < length:
            raise _Refused(400, f"Content-Length is {length}, but only {len(drawing)} bytes came")
        try:
            return self.server.recognizer.answer(drawing)
        except ValueError as error:
            raise _Refused(400, str(error)) from None
        except FloatingPointError as error:
            raise _Refused(500, str(error)) from None

    def handle_expect_100(self) -> bool:
        """Tell the sender to go on at once: what `wbufsize` holds back would come when it has given up."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def _length(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise _Refused(411, "a drawing comes with its Content-Length")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal() and len(lengths[0]) < 20):
            raise _Refused(400, f"Content-Length is {', '.join(lengths)}, needs one number")
        return int(lengths[0])

    def send_error(self, code: int, message: str | None = None, explain: str | None = None, **headers: str) -> None:
        """Answer with a status and ``{"error": message}``, and hang up."""
        self.close_connection = True
        text = message or self.responses.get(code, ("error", ""))[0]
        self._send(code, JSON, _json({"error": text}), {**headers, "Connection": "close"})
        self._discard()

    def _send(self, status: int, kind: str, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **HEADERS,
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _discard(self) -> None:
        """Read what the sender of a refused request still sends: it would be cut off before it reads the answer."""
        left = MOST_DISCARDED
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            while left > 0 and (got := self.rfile.read1(left)):
                left -= len(got)
        except OSError:  # the sender is slow, or gone
            pass

    def version_string(self) -> str:
        """Return the name of this server."""
        return "pynn"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for the command."""


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
