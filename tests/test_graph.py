"""Pictures of the tape: which boxes and edges they have, and how Graphviz is called."""

import contextlib
import re
import sys

import numpy as np
import pytest

import pynn
from pynn.graph import Graph


def expression():
    a, b = (pynn.tensor(v, requires_grad=True, dtype="float64") for v in (-4.0, 2.0))
    with Graph() as graph:
        c = a * b
        y = (c + b).relu() + c
    return graph, a, b, c, y


def boxes(dot):
    return dict(re.findall(r't(\d+) \[shape=record, label="(.*)"\]', dot))


def test_values_gradients_and_edges():
    graph, a, b, c, y = expression()
    assert list(boxes(graph.dot(y=y)).values()) == ["data -4", "data 2", "data -8", "data -6", "data 0", "y | data -8"]
    y.backward()
    dot = graph.dot(a=a, b=b, y=y)
    assert boxes(dot) == {
        "0": "a | data -4 | grad 2",
        "1": "b | data 2 | grad -4",
        "2": "data -8 | grad 1",
        "3": "data -6 | grad 0",
        "4": "data 0 | grad 1",
        "5": "y | data -8 | grad 1",
    }
    assert dict(re.findall(r'o(\d+) \[label="(.*)"\]', dot)) == {"2": "mul", "3": "add", "4": "relu", "5": "add"}
    edges = re.findall(r"(\w+) -> (\w+)", dot)
    assert sorted(edges) == sorted(
        [("t0", "o2"), ("t1", "o2"), ("o2", "t2"), ("t2", "o3"), ("t1", "o3"), ("o3", "t3"), ("t3", "o4"),
         ("o4", "t4"), ("t4", "o5"), ("t2", "o5"), ("o5", "t5")]
    )  # fmt: skip
    assert (a.grad, b.grad, c.grad) == (2, -4, 1)


def test_only_what_is_computed_within_is_drawn():
    x = pynn.tensor(3.0, requires_grad=True)
    before = x * 2
    with Graph() as outer:
        kept = before + 1
        with Graph() as inner:
            inside = kept * 3
        again = inside - 1
        with pynn.no_grad():
            _ = kept * 5
    _ = again * 7
    assert list(boxes(inner.dot()).values()) == ["data 7", "data 3", "data 21"]
    assert list(boxes(outer.dot(x=before)).values()) == [
        "x | data 6",
        "data 1",
        "data 7",
        "data 21",
        "data 1",
        "data 20",
    ]


def test_larger_tensors_show_their_shape():
    w = pynn.ones(2, 3, requires_grad=True)
    with Graph() as graph:
        (w * 2).sum()
    assert list(boxes(graph.dot(w=w)).values()) == ["w | [2, 3]", "data 2", "[2, 3]", "data 12"]


def test_names_show_as_they_are():
    """Quotes ended the text, bars and braces made boxes, and a backslash escaped what followed."""
    x = pynn.tensor(3.0, requires_grad=True)
    with Graph() as graph:
        pynn.tape.record('a "b" \\N\n&lt;', 2 * x.data, (x,), lambda dy: (2 * dy,))
    lines = graph.dot(**{'x|{"y"}\\<z>': x}).split("\n")
    assert lines[2] == r'  t0 [shape=record, label="x\|\{\"y\"\}\\\<z\> | data 3"]'
    assert lines[4] == r'  o1 [label="a \"b\" \\N\n&amp;lt;"]'


def test_an_error_ends_the_watch():
    x = pynn.tensor(1.0, requires_grad=True)
    graph = Graph()
    with pytest.raises(ValueError, match="stop"), graph:
        raise ValueError("stop")
    _ = x + 1
    assert boxes(graph.dot()) == {}


def fake_dot(folder, body):
    program = folder / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    program.chmod(0o755)


def test_a_graph_within_itself_leaves_the_rest_to_the_one_around_it():
    a = pynn.tensor(2.0, requires_grad=True)
    with Graph() as outer:
        with Graph() as graph, graph:
            b = a * 3
        b + 1
    assert graph.dot().count("mul") == outer.dot().count("add") == 1
    assert graph.dot().count("add") == outer.dot().count("mul") == 0


def test_svg_comes_from_graphviz(tmp_path, monkeypatch):
    graph, *_, y = expression()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert graph._repr_svg_() is None
    with pytest.raises(RuntimeError, match=r"^graph: SVG needs Graphviz's program dot"):
        graph.save(tmp_path / "a.svg")
    fake_dot(tmp_path, "assert sys.argv[1:] == ['-Tsvg']; print('<svg>' + sys.stdin.read() + '</svg>')")
    graph.save(tmp_path / "a.svg", y=y)
    graph.save(tmp_path / "a.dot", y=y)
    assert (tmp_path / "a.svg").read_text() == f"<svg>{graph.dot(y=y)}</svg>\n"
    assert (tmp_path / "a.dot").read_text() == graph.dot(y=y) + "\n"
    assert "<svg>" in graph._repr_svg_()
    for name in ("a.png", "a"):
        with pytest.raises(ValueError, match=rf"^graph: .*{name} ends in '.*', needs \.svg, \.dot or \.gv$"):
            graph.save(tmp_path / name)
        assert not (tmp_path / name).exists()
    fake_dot(tmp_path, "sys.exit('syntax error')")
    with pytest.raises(RuntimeError, match=r"^graph: dot failed: syntax error"):
        graph.svg()


def test_gradients_are_those_without_a_watch(rng):
    x = rng.normal(size=(3, 4))
    results = []
    for watched in (False, True):
        w = pynn.Tensor(x.copy(), requires_grad=True)
        with Graph() if watched else contextlib.nullcontext():
            y = ((w * w).exp() @ w.T).sum()
        y.backward()
        results.append(w.grad)
    np.testing.assert_array_equal(*results)
