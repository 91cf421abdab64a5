"""The built documentation in headless Chromium: every page at phone and desktop width, light and dark.

Needs what `test_browser.py` needs, and the site: of `sphinx-build -W docs docs/_build`, or in the folder that
LYAPTORCH_SITE names.
"""

from __future__ import annotations

import os
from pathlib import Path

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
  const text = document.querySelector('article p, article dt, article li, article a');
  return {
    width: document.documentElement.scrollWidth,
    paper: lit(getComputedStyle(document.body).backgroundColor),
    ink: text ? lit(getComputedStyle(text).color) : null,
    size: parseFloat(getComputedStyle(document.querySelector('article')).fontSize),
    broken: [...document.querySelectorAll('article img')].filter(i => !i.naturalWidth).map(i => i.src),
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
            "pictures": found["broken"] == [],
            "formulas": found["flat"] == 0 and not found["raw"],
        }
        if not all(fine.values()):
            wrong[page] = [name for name, holds in fine.items() if not holds], found
    assert "maths.html" in PAGES
    assert wrong == {}
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
