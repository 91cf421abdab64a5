"""Pages: self-contained, escaped, and the same again from the Record."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import lyaptorch as lt
from command import SMALL, TINY, command, files
from lyaptorch._random import Stream
from lyaptorch.plots import html
from lyaptorch.record import Record
from pages import Reader

EVIL = '<script>alert("x")</script> & $x_{ "id="'


def read(page: str) -> Reader:
    """The page, which loads and runs nothing, and has a table and an alternative text for every figure."""
    found = Reader(page)
    assert found.open == []
    names = {name for name, _ in found.tags}
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    for name, attributes in found.tags:
        assert not any(key.startswith("on") for key in attributes), name
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes
    assert not re.search(r"url\((?!#)|@import|javascript:", page)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', page))
    assert used <= set(ids)
    figures = found.of("figure")
    drawn = [a for a in found.of("div") if a.get("role") == "img"]
    assert len(figures) == len(drawn) == len(found.of("svg")) == len(found.of("details"))
    assert all(len(a["aria-label"]) > 20 for a in drawn)
    assert len(found.of("table")) == len(figures) + 1
    policy = [a["content"] for a in found.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "prefers-color-scheme:dark" in page
    assert any(a.get("name") == "viewport" for a in found.of("meta"))
    return found


def diagnosis(**options) -> lt.diagnosis.Diagnosis:
    cell = lt.RateCell(1, 12, gain=0.6, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(60, 2, 1, generator=torch.Generator().manual_seed(1))
    return lt.diagnose(cell, inputs, **options)


def recorded(found: lt.diagnosis.Diagnosis) -> Record:
    return Record("diagnose", found.config, *found.variables())


def test_a_page_says_what_the_diagnosis_says():
    found = diagnosis(name="cell")
    page = read(found.page())
    for text in (*(f.text for f in found.findings), *(r.code for r in found.suggestions), "▼ vanishing"):
        assert text in page.texts
    assert page.texts.count("Numbers") == len(page.of("svg")) >= 3
    for i, exponent in enumerate(found.measured.exponents.tolist(), 1):
        assert str(i) in page.texts
        assert f"{exponent:.4g}" in page.texts


def test_parts_gates_and_silence_have_their_figures():
    cell = lt.LSTMCell(1, 6)
    cell.weight_hh.data *= 0.0
    found = lt.diagnose(cell, torch.zeros(30, 2, 1), name="cell")
    page = read(found.page())
    labels = [a["aria-label"] for a in page.of("div") if a.get("role") == "img"]
    assert len(labels) == 8
    for start in (
        "Growth of a perturbation held",
        "The share of the gradient's",
        "The share of moments",
        "Mean",
    ):
        assert any(label.startswith(start) for label in labels)
    gates = [row for row in page.texts if row in ("input", "forget", "output")]
    assert len(gates) >= 3


def test_nothing_that_users_write_becomes_html():
    found = diagnosis(groups={EVIL: slice(0, 6), "_b": slice(6, 12)})
    hostile = Record("diagnose", {**found.config, "name": EVIL, "dtype": EVIL}, *found.variables())
    page = hostile.page()
    reader = read(page)
    assert "<script" not in page
    assert reader.texts.count(EVIL) >= 3
    assert any(EVIL[:12] in text for text in reader.texts if "…" in text)


def test_a_page_is_the_same_again_from_its_record(tmp_path):
    found = diagnosis()
    record = recorded(found)
    loaded = Record.load(record.save(tmp_path / "a"))
    assert loaded == record
    assert loaded.page() == found.page()
    assert len(loaded.plot().axes) == len(found.plot().axes) == 4
    path = found.save(tmp_path / "page")
    assert path.name == "page.html"
    assert path.read_text(encoding="utf-8") == found.page()
    assert found._repr_html_().startswith('<iframe srcdoc="&lt;!doctype html&gt;')


def test_dead_exponents_and_gradients_do_not_break_a_page():
    cell = lt.RateCell(1, 4, activation="relu", bias=False)
    cell.weight_hh.data[:] = 0.0
    found = lt.diagnose(cell, torch.ones(30, 1, 1))
    assert math.isinf(found.measured.lambda1)
    read(found.page())
    assert "Gradients vanish entirely" in found.page()


@pytest.mark.parametrize("rows", [0, 1, 40, 41, 500])
def test_a_table_shows_first_and_last_rows_and_says_what_it_leaves_out(rows):
    page = Reader(html.table(("a", "b"), [(i, 0.123456) for i in range(rows)]))
    shown = [int(text) for text in page.texts if re.fullmatch(r"\d+", text)]
    assert len(shown) == min(rows, 40)
    assert (shown[0], shown[-1]) == (0, rows - 1) if rows else shown == []
    assert shown == sorted(set(shown))
    assert page.texts.count("0.1235") == len(shown)
    assert (f"40 of {rows} rows." in page.texts) == (rows > 40)


def test_a_frame_of_sections():
    page = html.frame("A <b>", [html.Section("C & d", html.paragraph("x < y")), html.Section("E", "")])
    reader = Reader(page)
    assert reader.texts.count("A <b>") == 2
    assert ["C & d" in reader.texts, "x < y" in reader.texts, len(reader.of("section"))] == [True, True, 2]


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def test_the_command_diagnose(lyap, tmp_path):
    flags = ["--channels", 2, "--steps", 80, "--transient", 0, "--tangent-transient", 5, "--k", 4]
    summary = lyap.json("diagnose", "net.py:rnn", *flags)
    assert files(tmp_path / "runs") == {
        (tmp_path / "runs" / f"diagnose.{end}").relative_to(tmp_path / "runs")
        for end in ("nc", "html", "host.json")
    }
    record = Record.load(summary["record"])
    torch.manual_seed(0)
    rnn = torch.nn.RNN(2, 6)
    inputs = Stream(0, "noise").normal((85, 1, 2), member_ids=torch.zeros((), dtype=torch.int64))
    generator = torch.Generator().manual_seed(0)
    found = lt.diagnose(rnn, inputs, k=4, tangent_transient=5, generator=generator, name="rnn")
    np.testing.assert_allclose(record["exponents"], found.measured.exponents, rtol=1e-5)
    assert summary["verdict"] == found.verdict == record.config["verdict"]
    assert summary["suggestions"][0]["code"] == found.suggestions[0].code
    assert summary["findings"] == {f.name: f.text for f in found.findings}
    page = (tmp_path / summary["page"]).read_text(encoding="utf-8")
    assert page == record.page()
    assert "Diagnosis of net.py:rnn" in page
    status, out, err = lyap("diagnose", "net.py:rnn", *flags)
    assert (status, err) == (0, "")
    assert "rnn: " in out
    # lines of code are printed whole
    assert all(f"\n    {line}\n" in out for r in found.suggestions for line in r.code.split("\n"))
    assert "Page runs/diagnose-2.html" in out


def test_the_command_diagnose_takes_a_cell_by_flags_and_a_function(lyap):
    by_flags = lyap.json("diagnose", *SMALL, "--gain", 3, "--horizon", 10)
    assert by_flags["horizon"] == 10
    step = lyap.json("diagnose", "net.py:step", *SMALL, "--channels", 2)
    assert step["verdict"] == "vanishing"
    # a function without parameters: there is nothing that could be changed
    assert step["suggestions"] == []
    assert "cannot load net.py:nothing" in lyap.fails("diagnose", "net.py:nothing")
    assert "horizon must be an integer >= 1" in lyap.fails("diagnose", *SMALL, "--horizon", 0)


def test_the_command_spectrum_with_a_report(lyap, tmp_path):
    summary = lyap.json("spectrum", *SMALL, "--trajectories", 2, "--report")
    page = (tmp_path / summary["page"]).read_text(encoding="utf-8")
    assert read(page).texts.count("Numbers") == 2
    assert page == Record.load(summary["record"]).page()
    assert f"λ₁ = {np.mean(summary['exponents'], 0)[0]:+.4g}" in page
    assert "page" not in lyap.json("spectrum", *SMALL)


def test_any_other_record_has_a_page_too(lyap):
    summary = lyap.json("demo", *TINY)
    page = read(Record.load(summary["record"]).page())
    assert "demo" in page.texts
