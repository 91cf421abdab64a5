"""Elements of self-contained pages: frame, table, figure; and figures as SVG in the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from lyaptorch.plots.primitives import Drawing

ROWS = 40
"""Most rows of a table; of more, these are shown, evenly from first to last."""

WIDE = 6.0
"""Inches from which on a figure is wide."""

LONG = 24
"""Characters from which on a cell of a table may take several lines."""

HEAVY = 600_000
"""Characters of SVG from which on curves are drawn as pixels."""

COLORS = {
    "#0072b2": ("blue", "#0072b2", "#5cb8f0"),
    "#d55e00": ("orange", "#c25400", "#ff9a4d"),
    "#009e73": ("green", "#00805d", "#3fd0a4"),
    "#cc79a7": ("pink", "#b45c8d", "#e6a3c8"),
    "#e69f00": ("yellow", "#a87400", "#f2c14e"),
    "#56b4e9": ("sky", "#2b8cc4", "#9bd6ff"),
    "#777777": ("grey", "#6b6b6b", "#9a9a9a"),
    "#ffffff": ("paper", "#ffffff", "#16181c"),
}
"""Colours of figures, and what they become on light and on dark pages; black becomes that of the text."""

STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:68rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:break-word}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 .25rem}
h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
h3{font-size:1rem;margin:1rem 0 .2rem}
p,ul{margin:.4rem 0;max-width:46rem}
ul{padding-left:1.2rem}li{margin:.35rem 0}
.lead{font-size:1.1rem}
.badge{display:inline-block;padding:.1rem .6rem;border:2px solid currentColor;
border-radius:1rem;font-weight:600}
pre{background:var(--soft);padding:.6rem .8rem;border-radius:.4rem;overflow-x:auto;
font-size:.85rem;margin:.4rem 0}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem 2rem}
figure{margin:.5rem 0;min-width:0}
figure svg{display:block;width:100%;height:auto;max-width:36rem}
figure svg text,figure svg tspan{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif!important}
figure svg text{fill:currentColor}
figure .wide svg{width:var(--width);max-width:none}
figcaption{font-size:.9rem;margin:.3rem 0;max-width:36rem}
details{font-size:.85rem}summary{cursor:pointer;padding:.3rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.15rem .7rem .15rem 0;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
td.long{white-space:normal;min-width:11rem;overflow-wrap:anywhere}
footer{margin-top:2.5rem;font-size:.85rem;color:var(--faint)}
"""


@dataclass(frozen=True)
class Section:
    """A heading and the HTML below it, which must be safe already."""

    title: str
    body: str


def frame(title: str, sections: Iterable[Section], *, lead: str = "") -> str:
    """A page of sections under a title; `lead` is safe HTML between the two."""
    parts = "".join(f"<section><h2>{escape(s.title)}</h2>{s.body}</section>" for s in sections)
    # nothing is loaded and no script runs, whatever the names in a Record hold
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_palette()}{STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{lead}{parts}</main>"
        "<footer>Made by lyaptorch.</footer></body></html>\n"
    )


def _palette() -> str:
    """The colours as variables, light and, where the reader's system is, dark."""
    light = "".join(f"--{name}:{on_light};" for name, on_light, _ in COLORS.values())
    dark = "".join(f"--{name}:{on_dark};" for name, _, on_dark in COLORS.values())
    return (
        f":root{{{light}--ink:#1b1d21;--soft:#f2f3f5;--line:#d9dce1;--faint:#5c6068}}"
        f"@media(prefers-color-scheme:dark){{:root{{{dark}--ink:#e8e9ec;--soft:#22252b;--line:#3a3e46;--faint:#a3a8b0}}}}"
    )


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """Plain texts as a list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def code(text: str) -> str:
    """Plain text as a block of code, which scrolls where the page is narrow."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls where the page is narrow; thinned to `ROWS` rows."""
    # position i of ROWS, first and last included: round(i (n - 1) / (ROWS - 1))
    shown = [rows[round(i * (len(rows) - 1) / (ROWS - 1))] for i in range(ROWS)] if len(rows) > ROWS else rows
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown)
    note = f"<p>{len(shown)} of {len(rows)} rows.</p>" if len(rows) > ROWS else ""
    rows_html = f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll" tabindex="0"><table>{rows_html}</table></div>{note}'


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    kind = ' class="long"' if len(text) >= LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def figure(drawing: Drawing) -> str:
    """A figure with its alternative text, its caption, and the numbers behind it.

    One of many panels keeps their size, and scrolls where the page is narrow.
    """
    width = drawing.figure.get_figwidth()
    # 5 rem, 80 pixels, an inch: labels of 9 points are then 9 / 72 * 80 = 10 pixels high
    wide = f' class="scroll wide" tabindex="0" style="--width:{5 * width:.0f}rem"' if width > WIDE else ""
    said = f"<figcaption>{escape(drawing.caption)}</figcaption>" if drawing.caption else ""
    label, numbers = escape(drawing.alt, quote=True), table(drawing.head, drawing.rows)
    return (
        f'<figure><div role="img" aria-label="{label}"{wide}>{svg(drawing.figure, drawing.name)}</div>{said}'
        f"{folded('Numbers', numbers)}</figure>"
    )


def figures(shown: Iterable[Drawing]) -> Section:
    """Figures side by side, where the page is wide enough."""
    return Section("Figures", f'<div class="figures">{"".join(map(figure, shown))}</div>')


def folded(title: str, body: str) -> str:
    """Safe HTML that is shown when its title is touched."""
    return f"<details><summary>{title}</summary>{body}</details>"


def svg(drawn: Figure, name: str) -> str:
    """The figure as SVG that fits the page's width and colours, with ids that begin with `name`."""
    text = _drawing(drawn, name)
    if len(text) > HEAVY:
        # axes, ticks and words stay sharp
        for axes in drawn.axes:
            for artist in (*axes.lines, *axes.collections):
                artist.set_rasterized(True)
        text = _drawing(drawn, name)
    # what precedes <svg, and metadata with its links, belongs to a file of its own, not into a page
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], count=1, flags=re.S)
    # without width and height in points the style sheet decides; a reader of screens has the alternative text
    text = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', text, count=1)
    # two figures of one page would otherwise share the ids of their clip paths and markers
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(r"#000000\b", "currentColor", text)
    for color, (variable, _, _) in COLORS.items():
        text = re.sub(rf"{color}\b", f"var(--{variable})", text)
    return text


def _drawing(drawn: Figure, name: str) -> str:
    drawing = io.StringIO()
    # words stay text, in the page's font; fixed salt and no date: equal Records give equal pages
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "svg.image_inline": True}):
        drawn.savefig(drawing, format="svg", transparent=True, dpi=150, metadata={"Date": None})
    return drawing.getvalue()
