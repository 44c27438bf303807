"""How the manual is built. Every page opens offline; the extension `offline` fails the build if one would not."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE)]

project = "Ravine"
author = "The Ravine authors"
project_copyright = author

OURS = ["generated", "mathml", "offline", "plain_parameters", "short_types"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", *OURS]
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "decisions/template.md", "results", "generated/tables"]

# scikit-learn adds these to every estimator; its own manual describes them
VERBS = ("fit", "partial_fit", "score", "transform", "inverse_transform")
ELSEWHERE = ", ".join([*(f"set_{verb}_request" for verb in VERBS), "make"])
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,
    "show-inheritance": True,
    "member-order": "bysource",
    "exclude-members": ELSEWHERE,
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False

html_theme = "furo"
html_title = "Ravine"
html_static_path = ["_static"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"


def _is_field(app, what, name, thing, skip, options):
    """Leave out the fields of named tuples: the list of attributes says what they are."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app):
    """Connect what this manual needs besides its extensions."""
    app.connect("autodoc-skip-member", _is_field)
