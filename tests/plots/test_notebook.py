"""What results show of themselves in a notebook: a page that loads and runs nothing."""

import re
from html import unescape
from io import BytesIO

import pytest
import torch
from matplotlib.image import imread

import lyaptorch as lt


def spectrum(ensemble=()):
    return lt.lyapunov_spectrum(lt.RateCell(1, 6, ensemble=ensemble), torch.randn(30, 2, 1), k=3)


def framed(result):
    """The page inside the frame."""
    text = result._repr_html_()
    (page,) = re.fullmatch(r'<iframe srcdoc="([^"]*)" title="[^"]*" style="[^"]*"></iframe>', text).groups()
    return unescape(page)


RESULTS = {
    "spectrum": (spectrum, "λ₁ = "),
    "spectra of an ensemble": (lambda: spectrum((2,)), "the mean of 4 trajectories"),
    "diagnosis": (lambda: lt.diagnose(lt.RateCell(1, 6), torch.randn(40, 2, 1)), "Diagnosis of"),
    "training": (
        lambda: lt.floss(lt.RateCell(1, 6), torch.randn(60, 1, 1), k=2, epochs=2),
        "floss_loss",
    ),
    "a Record without a figure": (
        lambda: lt.Record("<b>mine", {"note": "<script>"}, {"loss": (("epoch",), [1.0, 2.0])}),
        "&lt;b&gt;mine",
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_show_a_page_of_their_own(name):
    make, words = RESULTS[name]
    result = make()
    page = framed(result)
    assert page == result.page()
    assert words in page
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert not re.search(r'(src|href)="?http', page)


def test_a_figure_is_shown_without_pyplot():
    shown = spectrum().plot()._repr_png_()
    assert shown.startswith(b"\x89PNG")
    height, width, _ = imread(BytesIO(shown), format="png").shape
    assert (width, height) == tuple(spectrum().plot().bbox.size.round())


def test_the_numbers_on_the_page_of_a_spectrum_are_its_own():
    spec = spectrum()
    assert f"λ₁ = {spec.exponents[:, 0].mean():+.4g} ± " in spec.page()
    variables, coordinates = spec.variables()
    assert torch.equal(variables["exponents"][1], spec.exponents)
    assert variables["running"][1].shape == (2, len(coordinates["elapsed"][1]), 3)
