"""The built documentation in headless Chromium: pages at phone and desktop width, light and dark; search.

Needs what `test_browser.py` needs, and the site: of `sphinx-build -W docs docs/_build`, or in the folder that
LYAPTORCH_SITE names.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pages import DESK, PHONE, tab

__all__ = ["tab"]

SITE = Path(os.environ.get("LYAPTORCH_SITE", Path(__file__).parents[2] / "docs/_build"))
FOUND = [page.relative_to(SITE) for page in SITE.rglob("*.html")]
PAGES = sorted(page.as_posix() for page in FOUND if not page.parts[0].startswith("_"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="the documentation is not built: sphinx-build -W docs docs/_build"),
]

MEASURE = """() => {
  const box = e => e.getBoundingClientRect();
  const lit = c => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3;
  const images = [...document.querySelectorAll('article img')];
  const text = document.querySelector('article p, article dt, article li, article a');
  return {
    width: Math.max(document.documentElement.scrollWidth, box(document.querySelector('article')).right),
    paper: lit(getComputedStyle(document.body).backgroundColor),
    ink: text ? lit(getComputedStyle(text).color) : null,
    size: parseFloat(getComputedStyle(document.querySelector('article')).fontSize),
    silent: images.filter(i => !i.alt).map(i => i.src),
    tiny: images.filter(i => i.closest('.picture') && box(i).height < 160).map(i => i.src),
    broken: images.filter(i => !i.naturalWidth).map(i => i.src),
    flat: [...document.querySelectorAll('article math')].filter(m => box(m).height < 6).length,
    raw: /\\\\(frac|lambda|bar|begin)\\b/.test(document.querySelector('article').innerText),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pages(tab, size, scheme):
    said: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    wrong = {}
    for page in PAGES:
        tab.goto((SITE / page).as_uri())
        found = tab.evaluate(MEASURE)
        if folder := os.environ.get("LYAPTORCH_SCREENSHOTS"):
            name = f"{page.replace('/', '-')}_{'phone' if size is PHONE else 'desk'}_{scheme}.png"
            tab.screenshot(path=Path(folder) / name)
        fine = {
            "no wider than the screen": found["width"] <= size["width"],
            "letters of 15 pixels": found["size"] >= 15,
            "paper": found["paper"] > 230 if scheme == "light" else found["paper"] < 60,
            "ink": found["ink"] is None or abs(found["ink"] - found["paper"]) > 90,
            "pictures": found["broken"] == found["silent"] == found["tiny"] == [],
            "formulas": found["flat"] == 0 and not found["raw"],
        }
        if not all(fine.values()):
            wrong[page] = [name for name, holds in fine.items() if not holds], found
    assert "maths.html" in PAGES
    assert wrong == {}
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_the_gallery(tab):
    tab.set_viewport_size(DESK)
    tab.goto((SITE / "gallery.html").as_uri())
    pictures = tab.evaluate("""() => [...document.querySelectorAll('.gallery figure')].map(figure => {
        const image = figure.querySelector('img');
        return {file: image.src.split('/').pop(), width: image.naturalWidth, alt: image.alt,
                said: figure.querySelector('.seen').innerText, shown: image.getBoundingClientRect().height,
                full: figure.querySelector('a').href, top: image.src};
    })""")
    assert len(pictures) > 60
    for picture in pictures:
        assert picture["width"] > 300, picture
        assert 100 <= picture["shown"] <= 260, picture
        # what is to be seen stands below; a touch opens the picture in full size
        assert picture["said"] == picture["alt"] != "", picture
        assert picture["full"] == picture["top"], picture


def test_formulas_have_their_letters_and_lines(tab):
    tab.goto((SITE / "maths.html").as_uri())
    assert tab.evaluate("[...document.fonts].filter(f => f.family.includes('math')).map(f => f.status)") == [
        "loaded"
    ]
    # the three equations of the adjoint, one below the other, their signs of equality in one column
    tops, lefts = tab.evaluate("""() => {
        const rows = [...document.querySelector('mtable').querySelectorAll('mtr')];
        const boxes = rows.map(row => row.lastElementChild.querySelector('mo').getBoundingClientRect());
        return [boxes.map(b => b.top), boxes.map(b => b.left)];
    }""")
    assert tops[0] + 15 < tops[1] < tops[2] - 15
    assert max(lefts) - min(lefts) < 2


def test_the_switch_of_colours(tab):
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size(DESK)
    tab.goto((SITE / "index.html").as_uri())
    paper = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(3):
        seen.append(tab.evaluate(paper))
        tab.locator("button.theme-toggle:visible").first.click()
    assert len(set(seen)) == 2
    tab.evaluate("localStorage.clear()")


# what one types, and what should be among the first three that are found
SOUGHT = {
    "condition number": [
        "glossary.html#term-condition-number",
        "api/analysis.html#lyaptorch.analysis.condition_number",
    ],
    "lyapunov_spectrum": ["api/measure.html#lyaptorch.lyapunov_spectrum"],
    "dead unit": ["gallery.html"],
    "packed": ["bring-your-model.html"],
    "flossing": ["gradient-flossing.html"],
}


@pytest.mark.parametrize("query", SOUGHT)
def test_search(tab, query):
    tab.set_viewport_size(DESK)
    tab.goto((SITE / "maths.html").as_uri())
    tab.fill("input[name=q]", query)
    tab.press("input[name=q]", "Enter")
    # the sentence that tells how many there are comes last
    tab.wait_for_function("/\\d/.test(document.querySelector('.search-summary')?.innerText ?? '')")
    links = tab.evaluate(
        "[...document.querySelectorAll('#search-results ul.search li > a')].map(a => a.href)"
    )
    first = [link.partition(f"{SITE.as_uri()}/")[2] for link in links][:3]
    assert [place for place in SOUGHT[query] if not any(link.startswith(place) for link in first)] == [], (
        first
    )


def test_every_page_leads_to_the_same_page_of_another_version(tab, tmp_path):
    tell = runpy.run_path(str(Path(__file__).parents[2] / "docs/conf.py"))["list_versions"]
    builds = [tmp_path / name for name in ("v0.9", "v0.10")]
    for build in builds:
        shutil.copytree(
            SITE, build, ignore=shutil.ignore_patterns("_images", "_modules", "_sources", ".doctrees")
        )
    (builds[0] / "glossary.html").unlink()
    for build in builds:
        tell(SimpleNamespace(outdir=build, builder=SimpleNamespace(format="html")), None)
    list_ = (builds[0] / "_static/versions-list.js").read_text()
    assert list(json.loads(list_[list_.index("{") : list_.rindex("}") + 1])) == ["v0.10", "v0.9"]
    leads = {
        "index.html": "index.html",
        "api/measure.html": "api/measure.html",
        "glossary.html": "index.html",
    }
    tab.set_viewport_size(DESK)
    for page, other in leads.items():
        tab.goto((builds[1] / page).as_uri())
        tab.click(".versions summary")
        assert tab.inner_text(".versions summary").startswith("Version 0.")
        (link,) = tab.query_selector_all(".versions a")
        assert link.get_attribute("href") == (builds[0] / other).as_uri()
        link.click()
        tab.wait_for_url((builds[0] / other).as_uri())


def test_the_only_version_says_so(tab, tmp_path):
    tab.set_viewport_size(DESK)
    tab.goto((SITE / "api/measure.html").as_uri())
    tab.click(".versions summary")
    only = tab.evaluate("Object.keys(lyaptorchVersions).length") == 1
    assert (
        (tab.inner_text(".versions span") == "The only one here.")
        if only
        else tab.query_selector(".versions a")
    )
