"""Pages in headless Chromium: figures present, no errors, readable at phone width, dark where asked for.

Needs playwright, and a Chromium in the path or in the environment variable LYAPTORCH_CHROMIUM;
LYAPTORCH_SCREENSHOTS names a folder to leave pictures in.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
import torch

import lyaptorch as lt
from lyaptorch.plots.diagnosis import drawings
from lyaptorch.plots.pages import Claim, Entry, runs_page
from lyaptorch.record import Record
from pages import DESK, PHONE, tab

__all__ = ["tab"]


pytestmark = pytest.mark.slow


@cache
def stacked() -> lt.diagnosis.Diagnosis:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(1, 16, num_layers=2)
    lstm.weight_hh_l1.data *= 0.02
    return lt.diagnose(lstm, torch.randn(120, 2, 1), name="lstm")


def spectrum() -> Record:
    measured = lt.lyapunov_spectrum(lt.RateCell(1, 20), torch.randn(100, 2, 1))
    running = measured.running().movedim(0, 1)
    variables = {
        "exponents": (("trajectory", "index"), measured.exponents),
        "stderr": (("trajectory", "index"), measured.stderr()),
        "reliable": (("trajectory", "index"), measured.reliable),
        "running": (("trajectory", "elapsed", "index"), running),
    }
    config = {"target": "net.py:a_rather_long_name_of_a_network_in_a_module", "dt": 1.0}
    elapsed = torch.arange(1.0, 101.0)
    return Record("spectrum", config, variables, {"elapsed": (("elapsed",), elapsed)})


@cache
def several() -> str:
    """A page of a folder: a figure of two panels, checks, and a file that cannot be read."""
    record = spectrum()
    checks = [
        Claim(f"claim {i} is a sentence of a paper, with its bound", "<= 1", 0.5, "holds", "claim")
        for i in range(3)
    ]
    entry = Entry("spectrum-of-a-network", record, record.plot(), checks, {"seconds": 3.0, "torch": "2.9"})
    return runs_page("Records in runs", [entry, entry], [("bad.nc", "no Record of lyaptorch")])


MEASURE = """() => ({
  width: document.documentElement.scrollWidth,
  figures: [...document.querySelectorAll('figure svg')].map(s => {
    const box = s.getBoundingClientRect();
    const sizes = [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height);
    return {width: box.width, height: box.height, texts: sizes.length, least: Math.min(...sizes)};
  }),
  body: parseFloat(getComputedStyle(document.body).fontSize),
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector('figure svg text')).fill,
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("kind", ["diagnosis", "spectrum", "folder"])
def test_a_page_in_a_browser(tab, tmp_path, kind, size, scheme):
    if kind == "diagnosis":
        found = stacked()
        page, figures = found.page(), len(drawings(found.record()))
        assert figures > 6
    else:
        page, figures = (spectrum().page() if kind == "spectrum" else several()), 2
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    said: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    found = tab.evaluate(MEASURE)
    if folder := os.environ.get("LYAPTORCH_SCREENSHOTS"):
        shape = "phone" if size is PHONE else "desk"
        tab.screenshot(path=Path(folder) / f"{kind}_{shape}_{scheme}.png", full_page=True)
    assert said == []
    assert len(requests) == 1
    # nothing makes the page wider than the screen
    assert found["width"] <= size["width"]
    assert len(found["figures"]) == figures
    for figure in found["figures"]:
        # one of several panels scrolls by itself
        assert 0.85 * min(size["width"], 480) <= figure["width"]
        assert figure["width"] <= size["width"] or kind == "folder"
        assert figure["height"] > 200
        assert figure["texts"] > 5
        assert figure["least"] >= 8.5
    assert found["body"] >= 16
    brightness = [sum(map(int, found[name][4:-1].split(","))) / 3 for name in ("paper", "ink")]
    assert brightness[0] > 230 > 60 > brightness[1] if scheme == "light" else brightness[0] < 60
    assert abs(brightness[0] - brightness[1]) > 150


@pytest.mark.parametrize("page", [lambda: stacked().page(), several], ids=["diagnosis", "folder"])
def test_numbers_open_and_scroll(tab, tmp_path, page):
    (tmp_path / "page.html").write_text(page(), encoding="utf-8")
    tab.set_viewport_size(PHONE)
    tab.goto((tmp_path / "page.html").as_uri())
    for summary in tab.query_selector_all("summary"):
        summary.click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert tab.evaluate("[...document.querySelectorAll('details table')].every(t => t.offsetHeight > 20)")
