"""What a training shows: a line for each epoch, a progress line, the history's picture."""

import io
import sys

import pytest
from training_tools import Scripted, make

from pynn.train import History
from pynn.train.progress import Progress, format_seconds

# -- progress ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch):
    # Not a fixture: between setup and call pytest puts its own standard error back.
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("pynn.train.progress.REDRAW_S", -1.0)  # draw every time
    return stream


def test_one_line_per_epoch_and_nothing_else_without_a_terminal(blobs, capsys):
    make(verbose=True, prefix="[x] ").fit([blobs], 2, val=[blobs])
    out, err = capsys.readouterr()
    assert err == ""
    assert [line[:13] for line in out.splitlines()] == ["[x] epoch 1/2", "[x] epoch 2/2"]
    for word in ("loss", "accuracy", "val loss", "val accuracy", "images/s"):
        assert all(word in line for line in out.splitlines())


def test_silent_unless_verbose(blobs, capsys, monkeypatch):
    terminal = use_terminal(monkeypatch)
    make().fit([blobs], 1)
    assert capsys.readouterr().out == ""
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("tqdm", [True, False])
@pytest.mark.parametrize("sized", [True, False])
def test_progress_on_a_terminal(blobs, monkeypatch, tqdm, sized):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    if tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    batches = [blobs, blobs]
    make(verbose=True, log=lambda line: None, prefix="[x] ").fit(batches if sized else Scripted(batches), 3)
    text = terminal.getvalue()
    for words in ("[x] epoch 1/3", "[x] epoch 3/3", "loss 0.", "accuracy ", "images/s"):
        assert words in text
    assert ("0:00 left" in text) == sized
    assert ("50" in text and "100" in text) or not sized
    assert text.rstrip(" ").endswith("\r")  # nothing stays behind


def test_progress_without_tqdm_stays_on_one_line(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    progress = Progress("[synthetic digits] epoch 1/3", 938)
    for columns in (80, 200, 50):  # a window that is resized meanwhile
        monkeypatch.setenv("COLUMNS", str(columns))
        before = len(terminal.getvalue())
        progress.update(100, 6400, 0.1234, 0.9631)
        drawn = terminal.getvalue()[before:]
        assert drawn.startswith("\r 10 % [synthetic digits] epoch 1/3  loss 0.1234")
        assert len(drawn) - 1 < columns
    before = len(terminal.getvalue())
    progress.close()
    assert len(terminal.getvalue()[before:].strip("\r")) < 50


def test_progress_is_drawn_rarely(monkeypatch):
    terminal = use_terminal(monkeypatch)
    monkeypatch.setattr("pynn.train.progress.REDRAW_S", 1e9)
    progress = Progress("epoch 1/1", 10)
    before = terminal.getvalue()
    progress.update(1, 32, 0.5, None)
    assert terminal.getvalue() == before
    progress.close()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


# -- the history's picture ---------------------------------------------------------------------------------------------


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    history = History()
    with pytest.raises(ValueError, match=r"History\.plot: no epoch has finished"):
        history.plot()
    history.epochs = [{"epoch": i, "loss": 1 / i, "accuracy": 0.5, "val_loss": 2 / i} for i in (1, 2, 3)]
    figure = history.plot(tmp_path / "curves.png", title="title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [history["loss"], history["val_loss"]]
    assert len(accuracy.lines) == 1


@pytest.mark.parametrize("with_val", [2, 0])
def test_plot_of_epochs_of_which_some_were_validated(with_val):
    pytest.importorskip("matplotlib")
    history = History()
    history.epochs = [{"epoch": i + 1, "loss": 0.5} for i in range(3)]
    history.epochs[with_val] |= {"val_loss": 0.25, "val_accuracy": 0.75}
    loss, accuracy = history.plot().axes
    assert [line.get_xdata().tolist() for line in loss.lines] == [[1, 2, 3], [with_val + 1]]
    assert [line.get_ydata().tolist() for line in loss.lines] == [[0.5] * 3, [0.25]]
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[0.75]]


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    history = History()
    history.epochs = [{"epoch": 1, "loss": 1.0}]
    with pytest.raises(ImportError, match=r"pip install 'pynn-cpu\[viz\]'"):
        history.plot()
