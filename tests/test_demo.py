"""`pynn demo` without a browser: answers and statuses. The page itself is in test_demo_browser.py."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from demo_tools import classifier, serving

import pynn
from pynn import nn
from pynn.data import synthetic_digits
from pynn.demo import Recognizer
from pynn.demo.server import MOST_DISCARDED
from pynn.images import mnist_like
from pynn.models import MODELS, build

SIDE = 140
OCTETS = {"Content-Type": "application/octet-stream"}


def drawn(i=0):
    """A digit five times as large, moved off the middle."""
    large = np.kron(synthetic_digits(5, seed=1)[0][i], np.ones((5, 5), np.uint8))
    return np.roll(large, (9, -7), (0, 1))


def ask(server, method, path, body=None, headers=()):
    """Return status, headers and content of the answer to a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def send(server, text):
    """Return all that the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.read()


def refused(answer, status, words):
    """Check that an answer is a refusal as JSON, and that the server hangs up."""
    got, headers, content = answer
    assert got == status, content
    assert headers["Content-Type"] == "application/json"
    assert headers["Connection"] == "close"
    assert words in json.loads(content)["error"]


# -- what it answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
def test_every_layer_is_that_of_the_model(name):
    ours = classifier(name, is_synthetic=False)
    recognizer = Recognizer(ours)
    drawing = drawn()
    answer = recognizer.answer(drawing.tobytes())
    image = mnist_like(drawing.astype(float))
    assert base64.b64decode(answer["image"]) == image.tobytes()
    np.testing.assert_allclose(answer["probabilities"], ours.probabilities(image[None])[0], rtol=1e-5)
    assert answer["digit"] == np.argmax(answer["probabilities"])
    # Layer by layer, without fused operations; what is shown are those that compute, after their ReLU.
    x, outputs, model = ours.inputs(image[None]), [], list(ours.model.eval())
    with pynn.no_grad():
        for layer, following in zip(model, [*model[1:], None], strict=True):
            x = layer(x)
            if not isinstance(layer, (nn.Flatten, nn.Dropout)) and not isinstance(following, nn.ReLU):
                outputs.append(x.data[0])
    assert [layer["shape"] for layer in recognizer.about["layers"]] == [list(output.shape) for output in outputs]
    for text, output in zip(answer["layers"], outputs, strict=True):
        shown = np.frombuffer(base64.b64decode(text), np.int8).reshape(output.shape)
        largest = np.abs(output).max()
        np.testing.assert_allclose(shown / 127, output / largest, atol=0.5 / 127 + 1e-5)  # half a step, and rounding


def test_who_waits_to_be_told_to_go_on_is_told(server, recognizer):
    drawing = drawn().tobytes()
    head = (
        f"POST /recognize HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(drawing)}\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(head.encode())
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert answer.readline() == b"\r\n"
            connection.sendall(drawing)
            status, _, rest = answer.read().partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    assert json.loads(rest.partition(b"\r\n\r\n")[2]) == recognizer.answer(drawing)


def test_what_it_says_about_the_model(server):
    status, _, content = ask(server, "GET", "/model")
    about = json.loads(content)
    assert status == 200
    assert (about["model"], about["parameters"], about["dataset"]) == ("lenet", 61706, "mnist")
    assert about["is_synthetic"] is False
    names = [layer["name"] for layer in about["layers"]]
    assert names[:2] == ["Conv2d 5\u00d75 + ReLU", "MaxPool2d 2\u00d72"]
    assert names[-2:] == ["Linear + ReLU", "Linear"]


def test_a_drawing_over_http_and_a_second_one_on_the_same_connection(server, recognizer):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    for i in (0, 1):
        connection.request("POST", "/recognize", drawn(i).tobytes(), OCTETS | {"Origin": server.url.rstrip("/")})
        sock = connection.sock
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
        assert json.loads(response.read()) == recognizer.answer(drawn(i).tobytes())
        assert connection.sock is sock  # kept open
    connection.close()


def test_many_at_once(server, recognizer):
    expected = [recognizer.answer(drawn(i).tobytes()) for i in range(5)]

    def answers(i):
        return [json.loads(ask(server, "POST", "/recognize", drawn(i).tobytes(), OCTETS)[2]) for _ in range(10)]

    with ThreadPoolExecutor(5) as pool:
        for i, got in enumerate(pool.map(answers, range(5))):
            assert got == [expected[i]] * 10


def test_a_drawing_keeps_its_colours_where_ink_covers_the_border(recognizer):
    """A picture would be taken for one on black paper."""
    frame = np.full((SIDE, SIDE), 255, np.uint8)
    frame[20:-20, 20:-20] = 0
    image = np.frombuffer(base64.b64decode(recognizer.answer(frame.tobytes())["image"]), np.uint8).reshape(28, 28)
    assert image[4, 4] == 255
    assert image[14, 14] == 0


def test_weights_that_are_not_finite_are_refused():
    model = build("mlp")
    model[3].load_state_dict({"weight": np.full((10, 128), np.nan, np.float32), "bias": np.zeros(10, np.float32)})
    with pytest.raises(ValueError, match="Classifier: the weights of mlp give nan"):
        Recognizer(classifier("mlp", model=model, is_synthetic=False))


def test_activations_that_are_not_finite_are_answered_with_500():
    model = build("mlp")
    weights = {name: np.zeros_like(value) for name, value in model.state_dict().items()}
    weights["1.weight"] += np.float32(3e38)  # no ink gives 0
    model.load_state_dict(weights)
    recognizer = Recognizer(classifier("mlp", model=model, is_synthetic=False, mean=0.0, std=1.0))
    with pytest.raises(FloatingPointError, match=r"the output of Linear \+ ReLU is not finite"):
        recognizer.answer(drawn().tobytes())
    with serving(recognizer) as server:
        refused(ask(server, "POST", "/recognize", drawn().tobytes(), OCTETS), 500, "is not finite")


# -- the files of the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/layers.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_files(server, path, kind):
    status, headers, content = ask(server, "GET", path + "?x=1")
    assert (status, headers["Content-Type"], int(headers["Content-Length"])) == (200, kind, len(content))
    assert content
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "HEAD", path)[::2] == (200, b"")


def test_nothing_comes_from_elsewhere(server):
    for path, (_, content) in server.contents.items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9]", text.replace("// ", "")), path


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../pyproject.toml", "/%2e%2e/cli.py", "/page/app.js", "/page/", "/app.js/"],
)
def test_404(server, path):
    refused(ask(server, "GET", path), 404, "there is no ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_405_of_files(server, method):
    answer = ask(server, method, "/", b"x" * 100_000)
    refused(answer, 405, f"{method} is not for /")
    assert answer[1]["Allow"] == "GET, HEAD"


def test_405_of_the_question(server):
    answer = ask(server, "GET", "/recognize")
    refused(answer, 405, "GET is not for /recognize")
    assert answer[1]["Allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", OCTETS, 400, "a drawing has 140 x 140 bytes, got 0"),
        (b"x" * 19599, OCTETS, 400, "got 19599"),
        (bytes(SIDE * SIDE), OCTETS, 400, "the drawing is empty"),
        (b"x" * 19601, OCTETS, 413, "a drawing has 19600 bytes, got 19601"),
        (b"x" * MOST_DISCARDED, OCTETS, 413, f"got {MOST_DISCARDED}"),
        (b"x", {"Content-Type": "text/plain"}, 415, "got text/plain"),
        (b"x", {}, 415, "got nothing"),
        (b"x", OCTETS | {"Content-Length": "one"}, 400, "Content-Length is one"),
        (b"x", OCTETS | {"Content-Length": "-1"}, 400, "Content-Length is -1"),
        (b"x", OCTETS | {"Content-Length": "9" * 30}, 400, "needs one number"),
        (iter([b"x"]), OCTETS, 411, "comes with its Content-Length"),
        (b"x", OCTETS | {"Origin": "http://evil.example"}, 403, "a page of http://evil.example may not ask"),
        (b"x", OCTETS | {"Origin": "null"}, 403, "a page of null may not ask"),
    ],
)
def test_bad_questions(server, body, headers, status, words):
    refused(ask(server, "POST", "/recognize", body, headers), status, words)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", ""])
def test_403_for_a_name_that_is_not_ours(server, host):
    refused(ask(server, "GET", "/", headers={"Host": host.format(server.server_port)}), 403, "not ")
    refused(ask(server, "GET", "http://evil.example/"), 403, "not evil.example")


def test_localhost_is_ours(server):
    assert ask(server, "GET", "/", headers={"Host": f"LocalHost:{server.server_port}"})[0] == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"POST /recognize HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/octet-stream\r\n"
         b"Content-Length: 19600\r\n\r\nx", 400),
    ],
)  # fmt: skip
def test_broken_requests(server, text, status):
    answer = send(server, text.replace(b"%d", b"%d" % server.server_port))
    head, _, content = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP"):
        assert head.split()[1] == b"%d" % status
        assert json.loads(content)["error"]
    else:  # to what does not look like HTTP/1 the standard library answers without a head
        assert status in (400, 505)
        assert json.loads(answer)["error"]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n"])
def test_the_content_of_a_request_for_a_file_is_no_request(server, method, framing):
    hidden = b"GET /model HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.server_port
    start = b"%s / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % (method, server.server_port)
    head, _, rest = send(server, start + framing % len(hidden) + hidden).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert rest == (b'{"error": "GET takes no content"}' if method == b"GET" else b"")
    assert ask(server, method.decode(), "/", headers={"Content-Length": "0"})[0] == 200


def test_a_browser_that_leaves_is_no_error(server, capfd):
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", server.server_port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.server_port)
        connection.close()
    assert ask(server, "GET", "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_only_this_computer_can_reach_it(server):
    assert server.server_address[0] == "127.0.0.1"
