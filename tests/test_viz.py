"""Pictures: what is drawn, by counts, labels and positions. Nobody can test that they are beautiful."""

import sys

import numpy as np
import pytest

import pynn
from pynn import data, nn, optim, viz

figures = pytest.importorskip("matplotlib.figure")


@pytest.fixture(autouse=True)
def seeded():
    pynn.seed(0)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_activation_histograms():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    with pynn.no_grad():
        model[0].weight[...] = 100.0  # saturates
        model[2][0].weight[...] = 0.0
        model[2][0].bias[...] = np.array([-1, -1, -1, 2], np.float32)
    figure = viz.activation_histograms(model, np.ones((8, 2), np.float32), bins=7)
    names = [title.splitlines()[0] for title in titles(figure)]
    assert names == ["0 Linear", "1 Tanh", "2.0 Linear", "2.1 ReLU"]
    assert "mean +1.00, std 0.00, 100 % saturated" in titles(figure)[1]
    assert "mean +0.50, std 0.87, 75 % at 0" in titles(figure)[3]
    (stairs,) = figure.axes[3].patches
    values, edges, _ = stairs.get_data()
    assert len(values) == 7
    np.testing.assert_allclose(values[[0, -1]], [0.75, 0.25])
    assert (edges[0], edges[-1]) == (0, 2)
    assert not any(m._forward_hooks for m in model.modules())


def test_histograms_show_what_is_finite_and_tell_how_much_is_not():
    x = np.array([[1, 3], [np.nan, 3], [np.inf, 1], [-np.inf, 1]], np.float32)
    figure = viz.activation_histograms(nn.Sequential(nn.Identity(), nn.Tanh()), x, bins=2)
    assert titles(figure)[0] == "0 Identity\n37.5 % not finite"
    assert titles(figure)[1].startswith("1 Tanh\n12.5 % not finite, ")
    np.testing.assert_allclose(figure.axes[0].patches[0].get_data().values, [3 / 8, 2 / 8])
    model = nn.Linear(2, 1)
    model.weight.grad = np.full((1, 2), np.nan, np.float32)
    (title,) = titles(viz.gradient_histograms(model))
    assert title == "weight [1, 2]\n100 % not finite"


def test_activation_histograms_need_a_layer_that_returns_a_tensor():
    with pytest.raises(ValueError, match=r"^viz.activation_histograms: no layer without children returned a tensor$"):
        viz.activation_histograms(nn.LSTM(2, 3), np.ones((4, 1, 2), np.float32))


def test_hooks_go_away_after_an_error():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="linear"):
        viz.activation_histograms(model, np.ones((8, 5), np.float32))
    assert not model._forward_hooks


def test_gradient_histograms():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"^viz.gradient_histograms: no parameter of two axes has a gradient"):
        viz.gradient_histograms(model)
    model(np.ones((8, 2), np.float32)).sum().backward()
    model[0].weight.grad = np.array([[1, 1], [1, 1], [3, 3]], np.float32)
    model[0].weight.data[...] = [[0, 2], [0, 2], [0, 2]]
    figure = viz.gradient_histograms(model)
    assert titles(figure)[0] == "0.weight [3, 2]\nstd 9.4e-01, grad / data 9.4e-01"
    assert titles(figure)[1].startswith("1.weight [1, 3]")
    assert len(figure.axes) == 2


def test_update_ratios():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimizer, ratios = optim.SGD(model.parameters(), lr=0.01), viz.UpdateRatios(model)
    for _ in range(4):
        for p in model.parameters():
            p.grad = p.data.copy()
        optimizer.step()
        ratios.record()
    axes = ratios.plot()
    lines = axes.get_lines()
    assert [line.get_label() for line in lines[:2]] == ["0.weight [3, 2]", "1.weight [1, 3]"]
    for line in lines[:2]:  # each step takes 1 % away
        np.testing.assert_allclose(line.get_ydata(), [np.log10(0.01 / 0.99)] * 4, rtol=1e-4)
    np.testing.assert_array_equal(lines[2].get_ydata(), [-3, -3])


class Right(nn.Module):
    """Class 1 where x > 1."""

    def forward(self, x):
        return x[:, :1] - 1


@pytest.mark.parametrize("labels", [[0, 1, 1], [-1, 1, 1]])
def test_decision_boundary(labels):
    points = np.array([[0.0, 0.0], [2.0, 1.0], [3.0, 2.0]], np.float32)
    axes = viz.decision_boundary(Right(), points, np.array(labels)[:, None], steps=41, margin=0.5)
    mesh, dots = axes.collections
    classes = np.asarray(mesh.get_array()).reshape(41, 41)
    np.testing.assert_array_equal(classes, np.tile(np.linspace(-0.5, 3.5, 41) > 1, (41, 1)))
    np.testing.assert_array_equal(dots.get_offsets(), points)
    np.testing.assert_array_equal(dots.get_array(), [0, 1, 1])
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 3.5), (-0.5, 2.5))
    assert mesh.get_clim() == dots.get_clim() == (0, 1)
    with pytest.raises(ValueError, match=r"^viz.decision_boundary: points \[3, 2\] and labels \[2\]"):
        viz.decision_boundary(Right(), points, [0, 1])


def test_decision_boundary_takes_the_points_as_numpy_makes_them():
    points = np.array([[0.0, 0.0], [2.0, 1.0]])
    assert viz.decision_boundary(nn.Linear(2, 2), points, [0, 1], steps=5).collections


def test_decision_boundary_neither_trains_nor_drops():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.9), nn.Linear(2, 2))
    model[1].eval()
    before, random = model.state_dict(), pynn.random.get_rng_state()
    viz.decision_boundary(model, np.array([[0.0, 0.0], [2.0, 1.0]]), [0, 1], steps=5)
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert pynn.random.get_rng_state() == random
    assert [module.training for module in model.modules()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        (pynn.capture(Right()), np.float32),
        (lambda x: pynn.tensor(x)[:, 0] - 1, np.float64),
        (lambda x: (x[:, 0] - 1).tolist(), np.float64),
        (lambda x: np.stack([1 - x[:, 0], x[:, 0] - 1], 1), np.float32),
    ],
    ids=["captured", "tensor", "list", "two columns"],
)
def test_decision_boundary_takes_any_function(model, dtype):
    points = np.array([[0.0, 0.0], [2.0, 1.0]], dtype)
    axes = viz.decision_boundary(model, points, [0, 1], steps=9)
    classes = np.asarray(axes.collections[0].get_array()).reshape(9, 9)
    np.testing.assert_array_equal(classes, np.tile(np.linspace(-0.5, 2.5, 9) > 1, (9, 1)))


def test_decision_boundary_refuses_what_is_no_function_of_points():
    points = np.zeros((2, 2), np.float32)
    with pytest.raises(TypeError, match=r"^viz.decision_boundary: model is a str, needs a Module or a function$"):
        viz.decision_boundary("model", points, [0, 1])
    with pytest.raises(ValueError, match=r"^viz.decision_boundary: model takes points \[9, 2\] to \[\], needs"):
        viz.decision_boundary(lambda x: x.sum(), points, [0, 1], steps=3)


def test_what_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^viz.decision_boundary: points are not all finite$"):
        viz.decision_boundary(nn.Linear(2, 2), np.array([[0, 0], [np.nan, 1]]), [0, 1])
    for columns in (0, -1):
        with pytest.raises(ValueError, match=rf"^viz.image_grid: columns is {columns}, needs 1 or more$"):
            viz.image_grid(np.zeros((2, 3, 3)), columns)


def test_decision_boundary_of_logits_goes_into_given_axes():
    points, labels = data.make_spiral(10)
    axes = figures.Figure().subplots()
    model = nn.Linear(2, 3)
    assert viz.decision_boundary(model, points, labels, steps=5, axes=axes) is axes
    assert axes.collections[0].get_clim() == (0, 2)


def test_confusion_matrix():
    axes = viz.confusion_matrix([0, 0, 0, 2, 1], np.array([0, 0, 1, 2, 2], np.uint8), classes=["a", "b", "c"])
    assert [text.get_text() for text in axes.texts] == ["2", "1", "0", "0", "0", "1", "0", "0", "1"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 0, 1], [0, 0, 1]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_title() == "60.00 % right"
    for labels, predictions in (([0], [0, 1]), ([], []), ([0.5], [1.0])):
        with pytest.raises(ValueError, match=r"^viz.confusion_matrix: labels and predictions are"):
            viz.confusion_matrix(labels, predictions)
    for labels, classes in (([-1], None), ([3], "abc")):
        with pytest.raises(ValueError, match=r"^viz.confusion_matrix: a label is not in 0 to"):
            viz.confusion_matrix(labels, [0], classes)


def test_attention_weights():
    weights = np.array([[1.0, 0.0], [0.25, 0.75]])
    axes = viz.attention_weights(pynn.tensor(weights, dtype=np.float64), "ab")
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b"]
    wide = viz.attention_weights(weights[:1], keys=["x", "y"])
    assert [label.get_text() for label in wide.get_xticklabels()] == ["x", "y"]
    for bad, tokens in ((weights[None], None), (weights, "abc")):
        with pytest.raises(ValueError, match=r"^viz.attention_weights: weights .* need \[L, S\], L and S"):
            viz.attention_weights(bad, tokens)


def test_image_grid():
    images = np.arange(5 * 4 * 3).reshape(5, 1, 4, 3)
    figure = viz.image_grid(images, columns=2, titles=range(5))
    assert titles(figure) == list("01234")
    grid = figure.axes[4].get_subplotspec()
    assert grid.get_geometry()[:2] == (3, 2)
    (shown,) = figure.axes[4].images
    np.testing.assert_array_equal(shown.get_array(), images[4, 0])
    assert shown.get_clim() == (0, 59)  # one scale for all
    colour = viz.image_grid(pynn.ones(2, 3, 4, 5))
    assert colour.axes[0].images[0].get_array().shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"^viz.image_grid: images \[4, 3\]"):
        viz.image_grid(images[0, 0])
    with pytest.raises(ValueError, match=r"^viz.image_grid: images \[2, 4, 5, 5\]"):
        viz.image_grid(np.zeros((2, 4, 5, 5)))
    with pytest.raises(ValueError, match=r"^viz.image_grid: 2 titles for 5 images"):
        viz.image_grid(images, titles="ab")


@pytest.mark.parametrize(("shape", "count"), [((6, 1, 5, 5), 6), ((4, 3, 5, 5), 4), ((3, 4, 2, 2), 12)])
def test_filters(shape, count):
    weight = np.random.default_rng(0).normal(size=shape)
    figure = viz.filters(pynn.Tensor(weight))
    assert len(figure.axes) == count
    first = figure.axes[0].images[0]
    scaled = 0.5 + 0.5 * weight / np.abs(weight).max()
    np.testing.assert_allclose(first.get_array(), scaled[0].transpose(1, 2, 0) if shape[1] == 3 else scaled[0, 0])
    if shape[1] != 3:
        assert first.get_clim() == (0, 1)
    if shape[1] == 4:
        assert figure.axes[0].get_subplotspec().get_geometry()[:2] == (3, 4)
    with pytest.raises(ValueError, match=r"^viz.filters: weight \[3, 3\]"):
        viz.filters(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"^viz.filters: .*needs \[O, C, KH, KW\], such as conv.weight$"):
        viz.filters(nn.Conv2d(1, 2, 3))


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^viz.image_grid: needs matplotlib: pip install 'pynn-cpu\[viz\]'"):
        viz.image_grid(np.zeros((1, 2, 2)))
