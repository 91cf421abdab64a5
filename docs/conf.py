"""The documentation site: `sphinx-build -W docs docs/_build`.

Snippets are executed, a failing one and every warning are errors. The pages load nothing from the net:
formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.images import get_image_size
from sphinx.util.osutil import relative_uri

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
html_search_scorer = str(Path(__file__).with_name("search.js"))
html_theme_options = {"navigation_with_keys": True}
templates_path = ["_templates"]
# a build in a folder of its version's name, beside the others, is listed in all of them, and lists them
LIST = "versions-list.js"
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
    # the converter has no `aligned`, and would leave its lines out
    text = node.astext().replace("{aligned}", "{align*}")
    self.body.append(f'<div class="formula" tabindex="0">{convert(text, display="block")}</div>')
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
        names = [name for name, found in known.items() if found.docname == page and not found.aliased]
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


HOMES = {"lyaptorch.cells.Network": "lyaptorch.cells.adapt", "lyaptorch.record.Given": "lyaptorch._variables"}
"""Types that are named where they are not made: what is said of them stands there."""


def escaped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In docstrings only backticks are markup: stars and bars elsewhere are maths."""
    if name in HOMES:
        lines[:] = ModuleAnalyzer.for_module(HOMES[name]).find_attr_docs()["", name.rpartition(".")[2]]
    for i, line in enumerate(lines[1:], 1):
        # what precedes a colon would be taken for a type
        if lines[i - 1] == "Returns:":
            lines[i] = re.sub(r"(\S)", r": \1", line, count=1)
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


LONG, BROAD = 40, 88
"""Characters of a cell that needs room, and of a line, of a command or what it says, that may be broken."""


def present(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """What style sheets cannot see: how wide a picture, how long a cell or line is, where numbers split."""
    if app.builder.format != "html":
        return
    for entry in doctree.findall(nodes.entry):
        entry["classes"] += ["long"] * (len(entry.parent) > 2 and len(entry.astext()) > LONG)
    for block_ in doctree.findall(nodes.literal_block):
        said = block_.get("language") in ("sh", "text", "myst-ansi")
        block_["classes"] += ["prose"] * (said and max(map(len, block_.astext().split("\n"))) > BROAD)
    for text in list(doctree.findall(nodes.Text)):
        grouped = re.sub(r"(?<=\d) (?=\d{3}(?!\d))", "\u202f", text)
        if grouped != text and not isinstance(
            text.parent, (nodes.literal, nodes.literal_block, nodes.inline)
        ):
            text.parent.replace(text, nodes.Text(grouped))
    for image in list(doctree.findall(nodes.image)):
        width, height = get_image_size(app.srcdir / image["uri"]) or (1, 1)
        shape = f"wide-{min(width // height, 5)}"
        if isinstance(image.parent, nodes.reference):
            figure = image.parent.parent
            figure["classes"].append(shape)
            # what is to be seen, which only readers of screens would hear
            figure[-1].insert(0, nodes.paragraph("", image["alt"], classes=["seen"]))
        elif image["uri"] in app.env.images:
            file = f"_images/{app.env.images[image['uri']][1]}"
            full = nodes.reference("", "", refuri=relative_uri(app.builder.get_target_uri(docname), file))
            image.parent["classes"] += ["picture", shape]
            image.replace_self(full)
            full += image


def list_versions(app: Sphinx, exception: Exception | None) -> None:
    """Tell every build of these pages that lies beside this one which there are, and which pages each has."""
    if exception is not None or app.builder.format != "html":
        return
    own = Path(app.outdir)
    (own / "_static" / LIST).touch()
    builds = [path.parents[1] for path in own.parent.glob(f"*/_static/{LIST}")]
    # v1.10 is later than v1.9
    builds.sort(
        key=lambda path: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)], reverse=True
    )
    pages = {
        path.name: sorted(page.relative_to(path).as_posix() for page in path.rglob("*.html"))
        for path in builds
    }
    for path in builds:
        (path / "_static" / LIST).write_text(f"const lyaptorchVersions = {json.dumps(pages)};\n")


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
    app.connect("doctree-resolved", present)
    app.connect("build-finished", list_versions)
    app.add_directive("names", Names)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
