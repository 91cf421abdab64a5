"""`lyap spectrum` and `lyap diagnose`: measurements of a network and of a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.networks import Subject
from lyaptorch.cli.output import save, save_page, show
from lyaptorch.diagnosis import Diagnosis
from lyaptorch.diagnosis import diagnose as diagnosed
from lyaptorch.record import Record
from lyaptorch.tangent import Spectrum, lyapunov_spectrum, mean_over_trajectories

SHOWN = 12
"""Most exponents in the table; all are in the Record."""


def spectrum(
    subject: tyro.conf.OmitArgPrefixes[Subject],
    *,
    interval: int | Literal["auto"] = 1,
    k: int | None = None,
    dt: float | None = None,
    report: bool = False,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Measure the Lyapunov spectrum of a network, with error bars.

    Args:
        subject: The network, and what drives it.
        interval: Steps between reorthonormalisations, or auto.
        k: How many exponents; all when missing.
        dt: Time per step; missing, that of a Flow, 1 for all others.
        report: Also write a page of HTML.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    path, start = run_path(runs, "spectrum"), time.monotonic()
    driven = subject.prepare()
    with torch.no_grad():
        measured = lyapunov_spectrum(
            driven.cell,
            driven.inputs,
            k=k,
            h0=driven.h0,
            transient=driven.transient,
            tangent_transient=driven.tangent_transient,
            interval=interval,
            dt=dt,
            generator=subject.generator(),
        )
    config = {**subject.config(driven), "interval": measured.interval, "dt": measured.dt}
    record = Record("spectrum", config, *measured.variables())
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds)
    page = save_page(path, record.page()) if report else None
    show(
        json,
        {**_of_spectrum(measured), **driven.counts()},
        [_table(measured), *driven.lines()],
        path,
        figure,
        seconds,
        page,
    )


def _of_spectrum(measured: Spectrum) -> dict[str, Any]:
    return {
        "interval": measured.interval,
        "units": measured.clock.rate,
        "exponents": measured.exponents.tolist(),
        "stderr": measured.stderr().tolist(),
        "reliable": measured.reliable.tolist(),
        "kaplan_yorke": measured.kaplan_yorke().tolist(),
        "entropy": measured.entropy().tolist(),
    }


def _why_not(measured: Spectrum, i: int) -> str:
    """Why column i is not reliable."""
    died = None if measured.died_at is None else measured.died_at[..., i]
    if died is not None and died.any():
        return f"died after step {int(died[died > 0].min())}"
    if measured.resolved is not None and not measured.resolved[..., i].all():
        return "the time step is too long; take a smaller dt"
    return "lost to round-off"


def _reliable(measured: Spectrum) -> Tensor:
    """Which means to trust: of what lives in any trajectory, and is reliable wherever it does."""
    alive = measured.growth.healthy[-1]
    return (measured.reliable | ~alive).all(0) & alive.any(0)


def _table(measured: Spectrum) -> Table:
    b, k = measured.exponents.shape
    table = Table(title=f"Lyapunov spectrum, mean of {b} trajectories" if b > 1 else "Lyapunov spectrum")
    for name in ("i", f"λ ({measured.clock.rate})", "± error", ""):
        table.add_column(name, justify="right")
    value, reliable = mean_over_trajectories(measured.exponents), _reliable(measured)
    error = measured.stderr_of_mean()
    head = range(k) if k <= SHOWN else [*range(SHOWN // 2), *range(k - SHOWN // 2, k)]
    for i in head:
        if k > SHOWN and i == k - SHOWN // 2:
            table.add_row("…", "…", "…", "")
        note = "" if reliable[i] else _why_not(measured, i)
        table.add_row(str(i + 1), f"{value[i]:+.4f}", f"{error[i]:.2g}", note)
    dimension, entropy = measured.kaplan_yorke().mean(), measured.entropy().mean()
    table.caption = (
        f"Kaplan-Yorke dimension {dimension:.2f}, entropy rate ≤ {entropy:.4f}; interval {measured.interval}"
    )
    return table


def diagnose(
    subject: tyro.conf.OmitArgPrefixes[Subject],
    *,
    horizon: int | None = None,
    k: int | None = None,
    dt: float | None = None,
    runs: Path = Path("runs"),
    json: bool = False,
    threads: int = 1,
) -> None:
    """Say what ails the gradients of a network, and what to try, in words and on a page of HTML.

    Args:
        subject: The network, and what drives it.
        horizon: Over how many steps gradients should survive; all that are counted, when missing.
        k: How many exponents; 32, or n where that is less, when missing.
        dt: Time per step; missing, that of a Flow, 1 for all others. The horizon is in steps.
        runs: Folder for the Record and the page.
        json: Print one JSON object instead of words.
        threads: Threads of torch; small networks are fastest with one.
    """
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    path, start = run_path(runs, "diagnose"), time.monotonic()
    driven = subject.prepare()
    found = diagnosed(
        driven.network,
        driven.inputs,
        k=k,
        h0=driven.h0,
        horizon=horizon,
        dt=dt,
        transient=driven.transient,
        tangent_transient=driven.tangent_transient,
        generator=subject.generator(),
        name=_name(subject, driven.network),
    )
    variables = found.variables()
    record = Record("diagnose", {**subject.config(driven), **found.config}, *variables)
    seconds = time.monotonic() - start
    path = record.save(path, host={"seconds": seconds}, fresh=True)
    page = save_page(path, record.page())
    show(
        json,
        {**_of_diagnosis(found), **driven.counts()},
        [Text(found.summary()), "", *driven.lines()],
        path,
        None,
        seconds,
        page,
    )


def _name(subject: Subject, network: object) -> str:
    """What the lines of Python call it."""
    name = subject.target.rpartition(":")[2]
    whole = all(part.isidentifier() for part in name.split("."))
    return name if whole and isinstance(network, nn.Module) else "network"


def _of_diagnosis(found: Diagnosis) -> dict[str, object]:
    s = found.measured
    rates = dict(zip(s.parts.names, s.parts.rates.tolist(), strict=True))
    return {
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
        "growth_of_parts": rates,
    }
