"""The documentation site: `sphinx-build -W docs docs/_build`.

Snippets are executed, a failing one and every warning are errors. The pages load nothing from the net:
formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

project = "lyaptorch"
copyright = "the lyaptorch developers, MIT licence"
release = version_of("lyaptorch")
version = release.partition("+")[0]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
# of the examples, which are scripts in the percent format, those that take seconds are pages
PAGES = ("diagnose_lstm", "floss_rnn", "residual_images")
SCRIPTS = [
    f"examples/{path.name}" for path in Path(__file__).parent.glob("examples/*.py") if path.stem not in PAGES
]
exclude_patterns = ["_build", "jupyter_execute", "conf.py", *SCRIPTS]

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# docstrings: single backticks are code, the letters of shapes are explained in the concepts
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["lightning", "transformers"]
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
napoleon_numpy_docstring, napoleon_attr_annotations = False, False
napoleon_use_ivar, napoleon_use_rtype = True, False
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "lyaptorch"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "tango", "github-dark"
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True

# what the executed snippets inherit: one thread, because the networks are small, and no progress bars
os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore:IProgress"}
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def inline(self: Any, node: nodes.Element) -> None:
    """A formula within a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.Element) -> None:
    """A formula on lines of its own."""
    self.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def escaped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In docstrings only backticks are markup: stars and bars elsewhere are maths."""
    quoted = False
    for i, line in enumerate(lines):
        quoted = line.lstrip().startswith(">>>") or (quoted and bool(line.strip()))
        if not quoted:
            parts = line.split("`")
            parts[::2] = [re.sub(r"(?<!\\)[*|]", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "`".join(parts)


def without(app: Sphinx, page: str, source: list[str]) -> None:
    """Snippets that need a library of an extra are run where it is installed, and only shown elsewhere."""
    for library in ("snntorch", "transformers"):
        if find_spec(library) is None:
            source[0] = source[0].replace(f":tags: [needs-{library}]", ":tags: [skip-execution]")


def setup(app: Sphinx) -> None:
    """Formulas as MathML; docstrings before napoleon, which makes markup of them, sees them."""
    app.connect("source-read", without)
    app.connect("autodoc-process-docstring", escaped, priority=400)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
