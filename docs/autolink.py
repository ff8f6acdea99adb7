"""Names in backquotes become links to the reference, in docstrings and in pages, which stay readable as they are.

A name is linked if it stands for something documented: a whole name (`pynn.capture`), one as programs write it
(`nn.Linear`, `F.relu`), a class (`Trainer`), a function (`random_split`), or in a docstring a neighbour. Names of
examples link to their pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

T = TypeVar("T", bound=nodes.Element)
NAME = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?")
PACKAGES = ("pynn", *(f"pynn.{name}" for name in ["nn", "optim", "data", "train", "functional", "onnx", "sklearn"]))
ABBREVIATIONS = {"F": "pynn.functional", "np": "numpy"}


class AutoLink(SphinxPostTransform):
    """Link what stands between backquotes."""

    default_priority = 5

    def run(self) -> None:
        """Replace the code by links to it."""
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, nodes.reference):
                continue
            text = node.astext()
            code = nodes.literal(text, text, classes=["code"])
            around = _around(node, addnodes.desc)
            node.replace_self(self._linked(text, code, around, bool(_around(node, nodes.table))) or code)

    def _linked(
        self, text: str, code: nodes.literal, around: list[addnodes.desc], in_table: bool
    ) -> nodes.reference | None:
        example = f"examples/{text.removesuffix('.py')}"
        if text.endswith(".py") and example in self.env.all_docs:
            return make_refnode(self.app.builder, self.env.docname, example, "", code)
        match = NAME.fullmatch(text)
        if match is None:
            return None
        if "." not in text and (in_table or any(match[1] in _parameters(description) for description in around)):
            return None  # a parameter, or something else that is listed
        here = {i for description in around for signature in _signatures(description) for i in signature["ids"]}
        domain = self.env.domains.python_domain
        for name in _candidates(match[1], around):
            entry = domain.objects.get(name)
            if entry is not None:
                if entry.node_id in here:
                    return None
                return make_refnode(self.app.builder, self.env.docname, entry.docname, entry.node_id, code, name)
        return None


def _around(node: nodes.Node, kind: type[T]) -> list[T]:
    """The descriptions or tables that a piece of text stands in, innermost first."""
    found = []
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kind):
            found.append(node)
    return found


def _signatures(description: addnodes.desc) -> Iterator[addnodes.desc_signature]:
    return (child for child in description.children if isinstance(child, addnodes.desc_signature))


def _parameters(description: addnodes.desc) -> set[str]:
    found = (p for s in _signatures(description) for p in s.findall(addnodes.desc_parameter))
    return {re.split(r"[:=]", p.astext())[0].strip(" *") for p in found}


def _candidates(name: str, around: list[addnodes.desc]) -> Iterator[str]:
    """Full names that a name may stand for, the likeliest first."""
    first, _, rest = name.partition(".")
    for description in around:
        for signature in _signatures(description):
            if signature["class"]:
                yield f"{signature['module']}.{signature['class']}.{name}"
            yield f"{signature['module']}.{signature['fullname']}.{name}"
            if rest or name != "data":
                yield f"{signature['module']}.{name}"
    if name.startswith("pynn."):
        yield name
    elif first in ABBREVIATIONS:
        yield f"{ABBREVIATIONS[first]}.{rest}"
    elif name[0].isupper() or "." in name or "_" in name:  # other words may mean something else
        yield from (f"{package}.{name}" for package in PACKAGES)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make Sphinx use the transform."""
    app.add_post_transform(AutoLink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
