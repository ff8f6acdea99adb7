"""Digits from files: pictures, IDX and .npy, made like MNIST's."""

import sys

import numpy as np
import pytest

from pynn.data import synthetic_digits, write_idx
from pynn.images import centre_ink, mnist_like, read_digits


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawing():
    """A large vertical bar, dark on paper that is not quite white, away from the middle; width 40, height 200."""
    paper = np.full((300, 400), 230, np.uint8)
    paper[20:220, 300:340] = 30
    return paper


def test_a_drawing_becomes_like_mnist(drawing):
    image = mnist_like(drawing.astype(float))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    rows, columns = np.nonzero(image)
    # 20 rows, and 40 · 20/200 = 4 columns, around row and column 14: 4.5 and 12.5 to the nearest even number
    assert (rows.min(), rows.max()) == (4, 23)
    assert (columns.min(), columns.max()) == (12, 15)
    assert image.max() == 255


def test_the_centre_of_mass_is_in_the_middle(drawing):
    drawing[180:220, 200:300] = 30  # a foot to the left
    image = mnist_like(drawing.astype(float)).astype(float)
    for axis in (0, 1):
        centre = image.sum(axis=1 - axis) @ np.arange(28) / image.sum()
        assert abs(centre - 14) <= 0.5


def test_an_image_of_28_by_28_is_left_alone_but_for_its_background():
    image = synthetic_digits(1, seed=0)[0][0]
    np.testing.assert_array_equal(mnist_like(image.astype(float)), image)
    np.testing.assert_array_equal(mnist_like(255 - image.astype(float)), image)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16", "1"])
def test_pictures_of_every_mode(drawing, mode):
    image_module = pytest.importorskip("PIL.Image")
    if mode == "I;16":
        picture = image_module.fromarray(drawing.astype(np.uint16) * 257)
    elif mode == "RGBA":  # black everywhere, the drawing is in the transparency
        pixels = np.zeros((*drawing.shape, 4), np.uint8)
        pixels[..., 3] = 255 - drawing
        picture = image_module.fromarray(pixels)
    else:
        picture = image_module.fromarray(drawing).convert(mode)
    picture.save("drawing.png")
    expected = mnist_like(drawing.astype(float))
    images = read_digits("drawing.png")
    assert images.shape == (1, 28, 28)
    if mode != "1":  # that one is dithered
        np.testing.assert_allclose(images[0].astype(int), expected.astype(int), atol=8)


def test_refused_images(tmp_path):
    for name, array in [("float", np.zeros((28, 28))), ("shape", np.zeros((2, 27, 28), np.uint8))]:
        np.save(f"{name}.npy", array)
        with pytest.raises(ValueError, match=rf"read_digits: {name}\.npy holds .*expected uint8 \[N, 28, 28\]"):
            read_digits(f"{name}.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "shape.npy").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"read_digits: cut\.npy is not a readable \.npy file"):
        read_digits("cut.npy")
    np.save("object.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"read_digits: object\.npy is not a readable \.npy file"):
        read_digits("object.npy")
    (tmp_path / "open.npy").write_bytes((tmp_path / "shape.npy").read_bytes().replace(b"28)", b"28 "))
    with pytest.raises(ValueError, match=r"read_digits: open\.npy is not a readable \.npy file: it has no readable"):
        read_digits("open.npy")
    # The header alone asks for 713 TiB.
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }".ljust(117) + b"\n"
    (tmp_path / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"read_digits: huge\.npy is not a readable \.npy file: it has 0 bytes"):
        read_digits("huge.npy")
    np.save("none.npy", np.zeros((0, 28, 28), np.uint8))
    with pytest.raises(ValueError, match=r"read_digits: none\.npy holds no images"):
        read_digits("none.npy")
    with pytest.raises(FileNotFoundError):
        read_digits("missing.png")
    write_idx("labels.idx", np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r"labels\.idx holds uint8 \[3\]"):
        read_digits("labels.idx")


@pytest.mark.parametrize("function", [mnist_like, centre_ink])
def test_arrays_that_are_no_grey_pictures(function, drawing):
    for shape in ((0, 4), (4,), (30, 30, 3)):
        with pytest.raises(ValueError, match=rf"^{function.__name__}: the \w+ is \[{shape[0]}.*, needs grey pixels"):
            function(np.ones(shape))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=rf"^{function.__name__}: the \w+ has a NaN or an infinity"):
            function(np.full((30, 30), value))
    np.testing.assert_array_equal(function(drawing.tolist()), function(drawing.astype(float)))


def test_refused_pictures(tmp_path, drawing):
    image_module = pytest.importorskip("PIL.Image")
    (tmp_path / "noise.png").write_bytes(b"hello world")
    with pytest.raises(ValueError, match=r"read_digits: noise\.png is not a readable picture"):
        read_digits("noise.png")
    image_module.fromarray(drawing).save("drawing.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "drawing.png").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"read_digits: cut\.png is not a readable picture"):
        read_digits("cut.png")
    for side in (50, 28):
        image_module.new("L", (side, side), 200).save("blank.png")
        with pytest.raises(ValueError, match=r"blank\.png holds no digit"):
            read_digits("blank.png")


def test_pictures_without_pillow_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImportError, match=r"pip install 'pynn-cpu\[image\]'"):
        read_digits("x.png")
