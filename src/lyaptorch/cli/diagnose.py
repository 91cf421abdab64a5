"""`lyap diagnose`."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro
from rich.text import Text
from torch import nn

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.networks import Subject
from lyaptorch.cli.output import save_page, show
from lyaptorch.diagnosis import Diagnosis
from lyaptorch.diagnosis import diagnose as diagnosed
from lyaptorch.record import Record


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
        {**_summary(found), **driven.counts()},
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


def _summary(found: Diagnosis) -> dict[str, object]:
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
