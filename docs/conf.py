"""Settings of the documentation; HACKING.md has the command that builds it."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.util.inspect import TypeAliasForwardRef

import pynn

sys.path.insert(0, str(Path(__file__).parent))
import figures

figures.write_example_pages()
figures.draw()

project = "pynn"
author = "The pynn developers"
version = release = pynn.__version__
default_role = "code"  # what single backquotes of docstrings mean
smartquotes_action = "D"  # dashes; quotes stay as they are
html_title = f"pynn {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "autolink",
]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pynn.css"]
html_show_copyright = False
html_copy_source = False
exclude_patterns: list[str] = []

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"  # what is copied of a session is its input

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "extra_repr, reset_parameters",  # once, in Module
}
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
# Names of types in signatures: reference/index.md says what they are.
ALIASES = "Array Arrays BackwardHook Batches F32 Gradients Hook I64 Input IntPair Operand Size State"
autodoc_type_aliases = {name: name for name in ALIASES.split(" ")}
autodoc_type_aliases |= {"npt.ArrayLike": "ArrayLike", "npt.DTypeLike": "DTypeLike"}
# Within a union Sphinx would print the alias with its class around it.
TypeAliasForwardRef.__repr__ = lambda self: self.name  # type: ignore[method-assign]
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 76
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

nitpicky = True
# Types of NumPy, matplotlib and the standard library, and words such as "callable", are no links.
nitpick_ignore_regex = [("py:.*", r"(?!pynn\.).*")]

# Files of the repository that pages include link to each other; here are the pages that they are.
PAGES = {
    "examples/README.md": "learn.md",
    "benchmarks/README.md": "performance.md",
    "HACKING.md": "design.md",
    "CHANGELOG.md": "changelog.md",
}


def link_to_pages(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
    """Make the links of an included file lead to pages of the site."""
    content[0] = re.sub(
        r"\]\(([\w./]+\.md)\)",
        lambda match: f"]({PAGES.get(match[1], match[1].removeprefix('docs/'))})",
        content[0].replace("](examples/)", "](learn.md)"),
    )


def setup(app: Sphinx) -> None:
    """Connect what needs a function."""
    app.connect("include-read", link_to_pages)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as the docstrings say
