"""Configuration of the documentation. Build it with ``python -m sphinx -W docs docs/_build``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from docutils import nodes
from generate import write_pages

import altrelu_dist

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "altrelu-dist"
author = "the altrelu-dist contributors"
copyright = f"2026, {author}"
version = release = altrelu_dist.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = False

# The notebooks are executed whenever the site is built, in this order.
sphinx_gallery_conf = {
    "examples_dirs": "../examples/notebooks",
    "gallery_dirs": "generated/notebooks",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "run_stale_examples": True,  # pages of the quick form, or of an earlier package, are stale
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
    "default_thumb_file": str(Path(__file__).parent / "loss.png"),
}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections name the types
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "altrelu-dist"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {
    page: [] for page in ("index", "getting-started", "how-it-works", "targets", "exports")
}
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def shorten_references(doctree: nodes.document) -> None:
    """Show [1] for a reference of a docstring, which numpydoc gives a name of its own."""
    for text in list(doctree.findall(nodes.Text)):
        if found := re.fullmatch(r"(\[?)R[0-9a-f]{8,}-(\d+)(\]?)", str(text)):
            text.parent.replace(text, nodes.Text("".join(found.groups())))


def setup(app: Sphinx) -> None:
    """Write the pages that are made from other files before Sphinx looks for pages."""
    app.connect("config-inited", lambda *_: write_pages())
    app.connect("doctree-resolved", lambda _, doctree, __: shorten_references(doctree))
