"""`lyap spectrum`, `diagnose` and `bench`: measurements of a network, of a run, and of time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table
from rich.text import Text
from torch import nn

from lyaptorch.bench import METHODS, Benchmark, summary
from lyaptorch.cli.output import Outputs, Work, Works
from lyaptorch.cli.subject import Subject
from lyaptorch.cli.tables import markdown, tabulated
from lyaptorch.diagnosis import diagnose as diagnosed
from lyaptorch.record import Record
from lyaptorch.tangent import Spectrum, lyapunov_spectrum, mean_over_trajectories

SHOWN = 12
"""Most exponents in the table; all are in the Record."""


def spectrum(
    subject: tyro.conf.OmitArgPrefixes[Subject],
    *,
    interval: int | Literal["auto"] = 1,
    segments: int = 1,
    k: int | None = None,
    dt: float | None = None,
    report: bool = False,
    work: Works,
) -> None:
    """Measure the Lyapunov spectrum of a network, with error bars.

    Args:
        subject: The network, and what drives it.
        interval: Steps between reorthonormalisations, or auto.
        segments: Pieces into which a long orbit is cut, to carry their tangent vectors side by side.
        k: How many exponents; all when missing.
        dt: Time per step; missing, that of a Flow, 1 for all others.
        report: Also write a page of HTML.
        work: Where the result goes, and how.
    """
    job, driven = work.job("spectrum"), subject.prepare()
    with torch.no_grad():
        measured = lyapunov_spectrum(
            driven.cell, k=k, interval=interval, segments=segments, dt=dt, **driven.arguments
        )
    chosen = {name: getattr(measured, name) for name in ("interval", "segments", "warm_up")}
    config = {**subject.config(driven), **chosen, "dt": measured.dt}
    record = Record("spectrum", config, *measured.variables())
    facts = {
        **chosen,
        "units": measured.clock.rate,
        "exponents": measured.exponents.tolist(),
        "stderr": measured.stderr().tolist(),
        "reliable": measured.reliable.tolist(),
        "kaplan_yorke": measured.kaplan_yorke().tolist(),
        "entropy": measured.entropy().tolist(),
        **driven.counts(),
    }
    files = ("figure", "page") if report else ("figure",)
    job.conclude(record, facts, [_exponents(measured), *driven.said], files=files)


def _why_not(measured: Spectrum, i: int) -> str:
    """Why column i is not reliable."""
    died = None if measured.died_at is None else measured.died_at[..., i]
    if died is not None and died.any():
        return f"died after step {int(died[died > 0].min())}"
    if measured.resolved is not None and not measured.resolved[..., i].all():
        return "the time step is too long; take a smaller dt"
    # it lives and its steps are short enough: it has drowned in what the larger exponents left behind
    return "lost to round-off"


def _exponents(measured: Spectrum) -> Table:
    b, k = measured.exponents.shape
    value, alive = mean_over_trajectories(measured.exponents), measured.growth.healthy[-1]
    # means of what lives in any trajectory, and is reliable wherever it does; what died is left out of them
    reliable = (measured.reliable | ~alive).all(0) & alive.any(0)
    error, rows = measured.stderr_of_mean(), []
    for i in range(k):
        note = "" if reliable[i] else _why_not(measured, i)
        rows.append((str(i + 1), f"{value[i]:+.4f}", f"{error[i]:.2g}", note))
    if k > SHOWN:
        rows[SHOWN // 2 : SHOWN // 2 - SHOWN] = [("…", "…", "…", "")]
    dimension, entropy = measured.kaplan_yorke().mean(), measured.entropy().mean()
    title = f"Lyapunov spectrum, mean of {b} trajectories" if b > 1 else "Lyapunov spectrum"
    caption = f"Kaplan-Yorke dimension {dimension:.2f}, entropy rate ≤ {entropy:.4f}"
    caption = f"{caption}; interval {measured.interval}"
    if measured.segments > 1:
        caption = f"{caption}; {measured.segments} segments, each after {measured.warm_up} steps of another"
    return tabulated(("i", f"λ ({measured.clock.rate})", "± error", ""), rows, title, caption=caption)


def diagnose(
    subject: tyro.conf.OmitArgPrefixes[Subject],
    *,
    horizon: int | None = None,
    k: int | None = None,
    dt: float | None = None,
    work: Works,
) -> None:
    """Say what is wrong with the gradients of a network, and what to try, in words and on a page of HTML.

    Args:
        subject: The network, and what drives it.
        horizon: Over how many steps gradients should survive; all that are counted, when missing.
        k: How many exponents; 32, or n where that is less, when missing.
        dt: Time per step; missing, that of a Flow, 1 for all others. The horizon is in steps.
        work: Where the result goes, and how.
    """
    job, driven = work.job("diagnose"), subject.prepare()
    name = _name(subject, driven.network)
    found = diagnosed(driven.network, k=k, horizon=horizon, dt=dt, name=name, **driven.arguments)
    record = Record("diagnose", {**subject.config(driven), **found.config}, *found.variables())
    s = found.measured
    facts = {
        "verdict": found.verdict,
        "findings": {finding.name: finding.text for finding in found.findings},
        "suggestions": [vars(suggestion) for suggestion in found.suggestions],
        "horizon": s.horizon,
        "units": s.clock.rate,
        "trajectories": s.trajectories,
        "died": s.died,
        "surviving": s.surviving,
        "exponents": s.exponents.tolist(),
        "stderr": s.error.tolist(),
        "reliable": s.reliable.tolist(),
        "capacity": s.memory.shares.tolist(),
        "capacity_error": s.memory.error,
        "capacity_older_half": s.memory.held,
        "growth_of_parts": dict(zip(s.parts.names, s.parts.rates.tolist(), strict=True)),
        **driven.counts(),
    }
    job.conclude(record, facts, [Text(found.summary()), "", *driven.said], files=("page",))


def _name(subject: Subject, network: object) -> str:
    """What the lines of Python call it."""
    name = subject.target.rpartition(":")[2]
    whole = all(part.isidentifier() for part in name.split("."))
    return name if whole and isinstance(network, nn.Module) else "network"


COLUMNS = ("", *METHODS, *(f"{method}/fused" for method in METHODS[:-1]), "of limit")


def bench(
    config: Annotated[Benchmark, tyro.conf.arg(name="")] = Benchmark(),  # noqa: B008
    *,
    markdown_table: Annotated[bool, tyro.conf.arg(name="markdown")] = False,
    output: Outputs,
) -> None:
    """Time exponents with their gradient, and training, against a plain loop and the core's limit.

    Args:
        config: What to time.
        markdown_table: Print the table in Markdown.
        output: Where the result goes.
    """
    if markdown_table and output.json:
        raise ValueError("the table is printed in Markdown or as JSON, got --markdown and --json; drop one")
    # here with one thread, for making inputs: while a row is timed it has its own number
    job = Work(**vars(output)).job("bench")
    record = config.run(output.show_progress)
    rows = summary(record)
    cells = [_timed(entry) for entry in rows]
    if markdown_table and not output.quiet:
        job.save(record)
        rule = ("---", *["---:"] * (len(COLUMNS) - 1))
        print(f"{markdown(COLUMNS, rule, *cells)}\n\n{_caption(record)}")
        return
    limit = [round(float(z) / 1e9, 1) for z in record["limit"]]
    facts = {"rows": rows, "limit_gflops": limit, "load": record["load"].tolist()}
    job.conclude(record, facts, [tabulated(COLUMNS, cells, words=("",), caption=_caption(record))])


def _timed(entry: dict[str, Any]) -> list[str]:
    times = [entry[f"{method}_ms"] for method in METHODS]
    ratios = [entry[f"{method}_ratio"] for method in METHODS[:-1]]
    return [
        entry["row"],
        *("" if z is None else f"{z:.2f}" for z in times),
        *("" if z is None else f"{z:.1f}x" for z in ratios),
        f"{entry['share_of_limit']:.0%}",
    ]


def _caption(record: Record) -> str:
    config, cores = record.config, record["cores"]
    limit = float((record["limit"] / record["threads"]).max()) / 1e9
    return (
        f"ms per network, forward and backward, {config['dtype']}, median of {config['rounds']}; "
        f"{record['instruction_set']}, "
        f"limit {limit:.0f} GFLOP/s a core; load {record['load'].max():.1f} on {cores} cores"
    )
