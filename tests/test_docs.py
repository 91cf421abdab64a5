"""The documentation names what is there; the site itself is built by `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lyaptorch as lt

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("api/*.md")])
CELLS = re.compile(r"```\{code-cell\}\n(?::tags: .*?\n|---\n.*?\n---\n)?(.*?)```", re.DOTALL)


def test_every_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    for target in targets:
        if "://" not in target:
            path = page.parent / target
            assert path.exists() or path.with_suffix(".py").exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_into_a_page_lead_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            text = (DOCS / target if target else page).read_text()
            headings = re.findall(r"^#{1,3} (.+)$", text, re.MULTILINE)
            # as the site makes them: without signs, in lower case
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_cells_are_python_and_what_they_name_is_there(page):
    for cell in CELLS.findall(page.read_text()):
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lt":
                assert hasattr(lt, node.attr), node.attr


@pytest.mark.parametrize("name", ["README", "CONTRIBUTING", "SECURITY", "CHANGELOG"])
def test_links_of_pages_outside_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)\)", (ROOT / f"{name}.md").read_text()):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_citation_is_of_the_version_that_the_changelog_begins_with():
    (version,) = re.findall(r'^version: "(.*)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    first = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert version == first[1]


def test_a_page_with_cells_says_that_it_is_run():
    for page in PAGES:
        text = page.read_text()
        assert bool(CELLS.search(text)) == text.startswith("---\nfile_format: mystnb\n"), page.name
