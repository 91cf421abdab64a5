"""The reference has every public name once, with what its docstring must say; gallery and glossary."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lyaptorch as lt
import lyaptorch.testing
from lyaptorch.experiments import FIGURES

DOCS = Path(__file__).parents[1] / "docs"
INDEX = (DOCS / "api.md").read_text()
PAGES = sorted((DOCS / "api").glob("*.md"))
DIRECTIVE = re.compile(r"^\.\. auto(module|function|class|data):: (\S+)$", re.MULTILINE)
EXTRAS = ("lyaptorch.integrations.lightning", "lyaptorch.integrations.transformers")
"""Modules that need a library of an extra."""
MODULES = (
    *(lt.analysis, lt.theory, lt.tasks, lt.integrations, lt.schedules, lt.presets),
    *(lt.surrogates, lt.residuals, lt.weights, lyaptorch.testing, importlib.import_module("lyaptorch.sweep")),
)
"""All that is public in these is documented, and of the packages of cells and kernels what follows."""
INNER = {
    *(
        "AnyForm",
        "Block",
        "LIFForm",
        "Substituted",
        "copied",
        "fit",
        "owned",
        "probe",
        "random_frame",
        "unwrap",
    ),
}
"""Names of `lt.cells` that are for the other packages of the library."""


def objects() -> dict[str, Any]:
    """What the pages document, by the name they give it."""
    found = {}
    for page in PAGES:
        for kind, name in DIRECTIVE.findall(page.read_text()):
            module, _, last = name.rpartition(".")
            if kind != "module" and module not in EXTRAS:
                found[name] = getattr(importlib.import_module(module), last)
    return found


OBJECTS = objects()
CODE = {name: o for name, o in OBJECTS.items() if inspect.isfunction(o) or inspect.isclass(o)}


def public() -> dict[str, Any]:
    named = [(lt.__name__, lt, lt.__all__), ("kernels", lt.kernels, ["available"])]
    named += [(lt.cells.__name__, lt.cells, set(lt.cells.__all__) - INNER)]
    named += [(module.__name__, module, module.__all__) for module in MODULES]
    found = {f"{prefix}.{name}": getattr(module, name) for prefix, module, names in named for name in names}
    return {name: o for name, o in found.items() if not inspect.ismodule(o)}


def test_every_public_name_is_documented():
    documented = {id(o) for o in OBJECTS.values()}
    assert len(PAGES) >= 9
    assert [name for name, o in public().items() if id(o) not in documented] == []


def test_none_is_documented_twice():
    names = [name for page in PAGES for kind, name in DIRECTIVE.findall(page.read_text()) if kind != "module"]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name, o in OBJECTS.items() if sum(o is other for other in OBJECTS.values()) > 1] == []


def test_modules_that_are_named_are_there_and_named_once():
    names = [name for page in PAGES for kind, name in DIRECTIVE.findall(page.read_text()) if kind == "module"]
    assert len(names) == len(set(names))
    for name in set(names) - set(EXTRAS):
        importlib.import_module(name)


def test_the_index_lists_every_page():
    stems = [page.stem for page in PAGES]
    assert sorted(re.findall(r"^```\{names\} api/(\w+)$", INDEX, re.MULTILINE)) == stems
    assert sorted(re.findall(r"^api/(\w+)$", INDEX, re.MULTILINE)) == stems


def test_sections_of_the_page_that_was_one_are_still_there():
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", INDEX, re.MULTILINE)}
    anchors |= set(re.findall(r'id="([\w-]+)"', INDEX))
    old = {"measure", "control", "train", "cells", "analysis", "theory", "tasks", "sweeps", "kernels"}
    assert old | {"other-people-s-loops", "oracles-for-your-own-tests"} <= anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_group_has_a_sentence(page):
    for group in page.read_text().split("\n## ")[1:]:
        heading, sentence = group.split("\n\n")[:2]
        assert sentence.rstrip().endswith(".") and "::" not in sentence, heading  # noqa: PT018


WITHOUT_EXAMPLE = {
    *("lyaptorch.tasks.Task", "lyaptorch.sweep.Workers", "lyaptorch.cells.Form"),
    # what a function returns, in whose example it is
    *(
        "lyaptorch.diagnosis.Diagnosis",
        "lyaptorch.tangent.CovariantVectors",
        "lyaptorch.kernels.Availability",
    ),
    *("lyaptorch.analysis.HessianSpectrum", "lyaptorch.analysis.SpikeStatistics"),
    "lyaptorch.testing.CellReport",
}


def test_docstrings_have_an_example():
    missing = {name for name, o in CODE.items() if ">>>" not in (o.__doc__ or "")}
    assert missing - WITHOUT_EXAMPLE == set()
    assert WITHOUT_EXAMPLE - missing == set()


def test_docstrings_of_functions_say_what_they_cost():
    functions = {name: o for name, o in CODE.items() if inspect.isfunction(o)}
    assert len(functions) > 70
    costs = re.compile(r"\b[Cc]osts?\b|O\(|[Mm]illiseconds")
    assert [name for name, o in functions.items() if not costs.search(o.__doc__ or "")] == []


def test_docstrings_of_networks_and_tasks_say_what_a_step_or_a_draw_costs():
    abstract = {lt.cells.FormCell, lt.cells.SpikingCell}
    cells = {name: o for name, o in CODE.items() if inspect.isclass(o) and issubclass(o, lt.Cell)}
    sized = {name: o for name, o in cells.items() if "input_size" in inspect.signature(o).parameters}
    sized |= {name: o for name, o in CODE.items() if inspect.isclass(o) and o in lt.tasks.TASKS.values()}
    assert len(sized) > 20
    assert [name for name, o in sized.items() if "O(" not in o.__doc__ and o not in abstract] == []


def test_tensors_of_functions_have_shapes():
    """In the signature, from which pages take them, or in the docstring."""
    shape = re.compile(r"`\(.*\)`|`\*e`|\(\*e")
    missing = []
    for name, o in CODE.items():
        annotations = " ".join(map(str, inspect.get_annotations(o).values())) if inspect.isfunction(o) else ""
        if "Tensor" in annotations and not shape.search(o.__doc__ or "") and "[Tensor, " not in annotations:
            missing.append(name)
    assert missing == []


GALLERY = (DOCS / "gallery.md").read_text()
FIGURE = re.compile(
    r"^:::\{figure\} images/(\S+)\n:alt: (.+)\n:target: (\S+)\n\n\[.+\]\((\S+)\)\n\n`(.+)`\n:::$",
    re.MULTILINE,
)


def test_every_picture_is_in_the_gallery_once():
    shown = [name for name, *_ in FIGURE.findall(GALLERY)]
    assert sorted(shown) == sorted(path.name for path in (DOCS / "images").iterdir())
    assert GALLERY.count("{figure}") == len(shown)


@pytest.mark.parametrize(("name", "alt", "target", "page", "command"), FIGURE.findall(GALLERY))
def test_a_picture_has_a_command_that_exists(name, alt, target, page, command):
    assert len(alt.split()) >= 5
    assert target == f"_images/{name}"
    assert (DOCS / page.partition("#")[0]).is_file()
    match shlex.split(command):
        case ["lyap", "demo"]:
            pass
        case ["lyap", "reproduce", paper, figure, *_]:
            assert figure in FIGURES[paper]
        case ["python", script]:
            assert (DOCS.parent / script).is_file()
        case _:
            pytest.fail(f"{command} is no command of a picture")


def test_words_of_the_glossary_are_explained_once_and_used():
    text = (DOCS / "glossary.md").read_text()
    words = re.findall(r"^([A-Za-z][^\n:]*)\n  \S", text, re.MULTILINE)
    assert len(words) > 50
    assert len({word.lower() for word in words}) == len(words)
    used = [re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]*)>?`", page.read_text()) for page in DOCS.glob("*.md")]
    assert {word for page in used for word in page} <= set(words)
    linked = [page for page in DOCS.glob("*.md") if "](glossary.md)" in page.read_text()]
    assert len(linked) >= 3
