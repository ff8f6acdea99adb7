"""Texts in Graphviz's language."""

from __future__ import annotations

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "&": "&amp;"})
_OF_RECORDS = str.maketrans({c: "\\" + c for c in "{}|<>"})


def label(text: str) -> str:
    """Return what stands between the quotes of a label that shows this text."""
    return text.translate(_ESCAPES)


def field(text: str) -> str:
    """Return what shows this text in a part of the label of a record."""
    return label(text).translate(_OF_RECORDS)
