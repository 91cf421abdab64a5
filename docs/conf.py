"""The documentation site: `sphinx-build -W docs docs/_build`.

Snippets are executed, a failing one and every warning are errors. The pages load nothing from the net:
formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

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
templates_path = ["_templates"]
# each version is built into a folder of its name, beside the others: the sidebar leads to all that have a tag
TAGS = ["git", "tag", "--list", "v*", "--sort=-version:refname"]
html_context = {"versions": []}
with contextlib.suppress(OSError):
    html_context["versions"] = subprocess.run(
        TAGS, cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.split()
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


class Names(SphinxDirective):
    """`{names} PAGE`: all that is documented on a page, with its first sentence."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A place for the list."""
        return [nodes.container(names_of=self.arguments[0])]


def list_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Fill such places when all pages are read; entries have the anchors of when all were on one page."""
    known = app.env.get_domain("py").objects
    for place in [node for node in doctree.findall(nodes.container) if "names_of" in node]:
        page, entries = place["names_of"], nodes.bullet_list()
        names = [name for name, found in known.items() if found.docname == page]
        # methods stand with their class
        tops = [name for name in names if known[name].objtype not in ("method", "attribute", "property")]
        for top in tops:
            owned = [name for name in names if name.startswith(f"{top}.") and name not in tops]
            ids = [known[name].node_id for name in (top, *owned)]
            uri = f"{app.builder.get_relative_uri(docname, page)}#{ids[0]}"
            line = nodes.paragraph("", "", nodes.reference("", "", nodes.literal("", top), refuri=uri))
            if first := app.env.first_lines.get(top):
                line += nodes.Text(f": {first}")
            entries += nodes.list_item("", line, ids=ids)
        place.replace_self(entries)


def shapes_of(function: Any) -> str:
    """The shapes that stand in a signature, whose types pages leave out."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        return ""
    found = {}
    for name, hint in hints.items():
        parts = [part.dim_str for part in (hint, *get_args(hint)) if hasattr(part, "dim_str")]
        # a # is a dimension that may be left to broadcasting
        shapes = dict.fromkeys(tuple(dims.replace("#", "").split()) for dims in parts)
        texts = (f"`({', '.join(z)}{',' * (len(z) == 1)})`" for z in shapes if not {"...", "_"} & {*z})
        found[name] = " or ".join(texts)
    told = [f"`{name}` {text}" for name, text in found.items() if text and name != "return"]
    told += [f"returns {found['return']}"] if found.get("return") else []
    return f"Shapes: {'; '.join(told)}." if told else ""


def escaped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In docstrings only backticks are markup: stars and bars elsewhere are maths."""
    app.env.first_lines[name] = lines[0].replace("`", "") if lines else ""
    if what == "function" and (shapes := shapes_of(obj)):
        ends = [i for i, line in enumerate(lines) if line.startswith(("Example:", "Source:"))]
        at = min(ends, default=len(lines))
        lines[at:at] = ["", shapes, ""]
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


def remember(app: Sphinx) -> None:
    """First lines of docstrings, kept with what has been read."""
    app.env.first_lines = getattr(app.env, "first_lines", {})


def setup(app: Sphinx) -> None:
    """Formulas as MathML; docstrings before napoleon, which makes markup of them, sees them."""
    app.connect("source-read", without)
    app.connect("autodoc-process-docstring", escaped, priority=400)
    app.connect("builder-inited", remember)
    app.connect("doctree-resolved", list_names)
    app.add_directive("names", Names)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
