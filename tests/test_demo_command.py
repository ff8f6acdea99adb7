"""The command `pynn demo`: which weights it shows, what it says, and how it ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from demo_tools import classifier

import pynn
from pynn import cli
from pynn.demo import DemoServer, command


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *argv):
    code = cli.main(["demo", "--no-browser", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def interrupted(monkeypatch):
    def interrupt(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", interrupt)


def make_run(folder, age, name="mlp", suffix=".npz", **changes):
    folder.mkdir(parents=True)
    path = folder / f"weights{suffix}"
    classifier(name, **{"is_synthetic": False} | changes).save(path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_newest_run_is_shown(capsys, here, interrupted):
    make_run(here / "runs" / "a", 2)
    newest = make_run(here / "runs" / "b", 1)
    (here / "runs" / "c").mkdir()
    (here / "runs" / "c" / "weights.txt").touch()
    code, out, err = run(capsys, "--port", 0)
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"mlp trained on mnist, {re.escape(str(newest.relative_to(here)))}\n"
        r"draw a digit at http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n\n",
        out,
    )
    assert command.find_weights("runs/a") == Path("runs/a/weights.npz")
    assert command.find_weights("runs/a/weights.npz") == Path("runs/a/weights.npz")


def test_synthetic_data_are_named(capsys, here, interrupted):
    path = make_run(here / "x", 0, dataset="synthetic-digits", is_synthetic=True)
    _, out, _ = run(capsys, path, "--port", 0)
    assert all(line.startswith("[synthetic digits] ") for line in out.splitlines() if line)


def test_without_a_run_it_trains_one(capsys, here, interrupted, monkeypatch):
    def train(settings):
        make_run(here / "runs" / "mnist-lenet-1", 0, settings.model)
        return stopped

    monkeypatch.setattr("pynn.train.mnist.train_mnist", train)
    stopped = False
    code, out, err = run(capsys, "--port", 0)
    assert (code, err) == (0, "")
    assert out.startswith("no weights in runs/, so train a model first: pynn train mnist\nlenet trained on mnist, ")
    (here / "runs").rename("others")
    stopped = True
    code, out, _ = run(capsys, "--port", 0)
    assert code == 130
    assert "draw a digit" not in out


def test_the_port_is_tried_before_the_training(capsys, here, server, monkeypatch):
    monkeypatch.setattr("pynn.train.mnist.train_mnist", lambda settings: pytest.fail("it trains"))
    code, _, err = run(capsys, "--port", server.server_port)
    assert code == 2
    assert f"demo: port {server.server_port} is in use" in err


def test_a_port_that_is_none(recognizer):
    for port in (99999, -1):
        with pytest.raises(OSError, match=f"demo: port is {port}, needs 0 to 65535"):
            DemoServer(recognizer, port)


def test_bad_arguments(capsys, here, server):
    make_run(here / "run", 0)

    def failing(*argv):
        code, out, err = run(capsys, *argv)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        return err

    port = server.server_port
    assert f"error: demo: port {port} is in use; take another with --port" in failing("run", "--port", port)
    assert "none.npz" in failing("none.npz")
    (here / "empty").mkdir()
    assert "no weights.safetensors and no weights.npz in empty" in failing("empty")
    (here / "bad.npz").write_bytes(b"x")
    assert "bad.npz" in failing("bad.npz")
    for wrong in ("65536", "-1", "x"):
        with pytest.raises(SystemExit) as caught:
            cli.main(["demo", "--port", wrong])
        assert caught.value.code == 2
    capsys.readouterr()


def test_a_browser_is_opened_where_there_is_a_screen(capsys, here, interrupted, monkeypatch):
    make_run(here / "run", 0)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    cli.main(["demo", "run", "--port", "0"])
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    cli.main(["demo", "run", "--port", "0"])
    assert len(opened) == 1
    assert opened[0] in capsys.readouterr().out
    run(capsys, "run", "--port", 0)
    assert len(opened) == 1


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT as a terminal does")
def test_ctrl_c_ends_it_cleanly(here):
    make_run(here / "run", 0)
    process = subprocess.Popen(
        [sys.executable, "-m", "pynn", "demo", "run", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(pynn.__file__).parents[1])},
        # A shell's background command ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        process.stdout.readline()
        port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200  # and the connection stays open
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        connection.close()
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "\n", "")
