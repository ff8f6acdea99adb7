"""Digits in image files, brought to the form of MNIST's: 28×28, light ink on black, centred by mass."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pynn.data import read_idx
from pynn.serialize import parse_npy

__all__ = ["centre_ink", "mnist_like", "read_digits"]

Images = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float64]

SIDE = 28
DIGIT_SIDE = 20  # http://yann.lecun.com/exdb/mnist/: digits fill a 20×20 box, its mass is centred in 28×28
CENTRE = 14  # row and column of the centre of mass in MNIST's own images, to within half a pixel
INK_THRESHOLD = 0.2  # of the strongest ink: below it is paper noise, which must not widen the box


def read_digits(path: str | os.PathLike[str]) -> Images:
    """Read digits from a picture (through Pillow), an IDX file or a .npy file, told apart by their first bytes.

    IDX and .npy files hold uint8 ``[28, 28]`` or ``[N, 28, 28]``, light on dark, and are taken as they are; pictures
    go through `mnist_like`.

    Returns
    -------
    uint8 ndarray ``[N, 28, 28]``

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file, or it is a folder.
    ValueError
        If the file is broken, holds something else, or no image.
    ImportError
        If the file is a picture and Pillow is missing.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(6)
    except (FileNotFoundError, IsADirectoryError) as error:
        found = "is a folder" if path.is_dir() else "does not exist"
        raise type(error)(f"read_digits: {os.fspath(path)} {found}, needs a picture, an IDX or a .npy file") from None
    if not magic:
        raise ValueError(f"read_digits: {os.fspath(path)} is empty")
    if magic == b"\x93NUMPY":
        try:
            images: Images = parse_npy("it", path.read_bytes())
        except ValueError as error:
            raise ValueError(f"read_digits: {os.fspath(path)} is not a readable .npy file: {error}") from error
    elif magic[:2] in (b"\0\0", b"\x1f\x8b"):
        images = read_idx(path)
    else:
        images = mnist_like(_read_picture(path), os.fspath(path))
    if images.dtype != np.uint8 or images.ndim not in (2, 3) or images.shape[-2:] != (SIDE, SIDE):
        raise ValueError(
            f"read_digits: {os.fspath(path)} holds {images.dtype} {list(images.shape)}, "
            f"expected uint8 [N, {SIDE}, {SIDE}] or [{SIDE}, {SIDE}]"
        )
    if images.size == 0:
        raise ValueError(f"read_digits: {os.fspath(path)} holds no images")
    return np.ascontiguousarray(images.reshape(-1, SIDE, SIDE))


def mnist_like(picture: Grey, name: str = "the picture") -> Images:
    """Bring a grey picture ``[H, W]`` (0 to 255) to the form of MNIST's digits: uint8 ``[28, 28]``.

    A light background is inverted. A picture of 28×28 is otherwise left alone; of others the box around the ink is
    scaled to 20×20 and its centre of mass is put in the middle of 28×28.

    Raises
    ------
    ValueError
        If the picture has no ink, another shape, or a NaN or an infinity.
    """
    picture = _checked("mnist_like: the picture", picture)
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    background = float(np.median(border))
    if background > 127:
        picture, background = 255 - picture, 255 - background
    ink = np.clip(picture - background, 0, None)
    if ink.max() < 16:
        raise ValueError(f"read_digits: {name} holds no digit, it is of one colour")
    if picture.shape == (SIDE, SIDE):
        return picture.round().astype(np.uint8)
    return centre_ink(ink)


def centre_ink(ink: Grey) -> Images:
    """Bring ink ``[H, W]`` (0 is none) to the form of MNIST's digits, as `mnist_like` does: uint8 ``[28, 28]``.

    Raises
    ------
    ValueError
        If there is no ink, or the array has another shape, or a NaN or an infinity.
    """
    ink = _checked("centre_ink: the ink", ink)
    strongest = float(ink.max())
    if not strongest > 0:
        raise ValueError("centre_ink: there is no ink")
    ink = ink * (255 / strongest)
    rows, columns = (np.flatnonzero((ink > INK_THRESHOLD * 255).any(axis)) for axis in (1, 0))
    return _centre(_shrink(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


def _checked(what: str, picture: Grey) -> Grey:
    """Return the picture as float64; ValueError, which begins with `what`, for one that is not grey or not finite."""
    array = np.asarray(picture, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{what} is {list(array.shape)}, needs grey pixels [H, W]")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} has a NaN or an infinity")
    return array


def _shrink(ink: Grey) -> Grey:
    """Scale the longer side to 20 pixels."""
    scale = DIGIT_SIDE / max(ink.shape)
    height, width = (max(1, round(size * scale)) for size in ink.shape)
    return _area_matrix(ink.shape[0], height) @ ink @ _area_matrix(ink.shape[1], width).T


def _area_matrix(old: int, new: int) -> Grey:
    """Return ``[new, old]``: each row averages the old pixels that a new one covers, by overlap."""
    edges = np.arange(new + 1) * (old / new)
    left, right = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None]
    overlap = np.clip(np.minimum(right, pixels + 1) - np.maximum(left, pixels), 0, None)
    matrix: Grey = overlap * (new / old)
    return matrix


def _centre(ink: Grey) -> Images:
    corner = []
    for axis, size in enumerate(ink.shape):
        centre = ink.sum(axis=1 - axis) @ np.arange(size) / ink.sum()
        # The digit has at most 20 of 28 pixels, so a place within the image always exists.
        corner.append(min(max(round(CENTRE - centre), 0), SIDE - size))
    top, left = corner
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = np.clip(ink.round(), 0, 255)
    return canvas


def _read_picture(path: str | os.PathLike[str]) -> Grey:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"read_digits: {os.fspath(path)} is no IDX or .npy file, and pictures need Pillow: "
            "pip install 'pynn-cpu[image]'"
        ) from error
    try:
        with Image.open(path) as image:
            return _grey(image)
    # Pillow reports a broken PNG chunk as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"read_digits: {os.fspath(path)} is not a readable picture: {error}") from error


def _grey(image: Any) -> Grey:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits: convert("L") would clip
        return np.asarray(image) * (255 / 65535)
    if "A" in image.getbands() or "transparency" in image.info:
        # What is transparent has any colour, often black: put the picture on white paper.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L"), np.float64)
