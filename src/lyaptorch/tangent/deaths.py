"""Deaths of tangent vectors: after which step each was found dead, and a warning where none is left."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.tangent.scan import Span

CAUSE = (
    "the Jacobian is singular there: a slope of exactly 0, of a unit at a kink, saturated or dead, or a reset"
)
_told: ContextVar[bool] = ContextVar("told", default=True)


def died_at(healthy: Tensor, over: Sequence[Span], transient: int) -> Tensor | None:
    """After how many inputs each column `(*e, b, k)` was found dead, 0 where it lives; None if none died.

    Args:
        healthy: `(spans, *e, b, k)`, whether a column was alive at the end of each span.
        over: the spans.
        transient: inputs before the first of them.
    """
    if not _checks.can_look() or healthy[-1].all():
        return None
    stops = torch.tensor([transient + span.stop for span in over] + [0], device=healthy.device)
    return stops[healthy.sum(0)]


def tell_of_deaths(when: Tensor | None) -> None:
    """Warn where every tangent vector of every trajectory of a network died."""
    if when is None or not _told.get():
        return
    members = (when > 0).flatten(-2).all(-1)
    if members.any():
        steps = when.flatten(-2).amax(-1)[members]
        warnings.warn(
            f"every tangent vector has died after step {int(steps.max())}, transients counted, so all "
            f"exponents are -inf: {CAUSE}; start from another h0, or add noise to it or to the inputs; "
            "died_at of the Spectrum tells when each died",
            stacklevel=4,
        )


@contextmanager
def untold() -> Iterator[None]:
    """Within a loop that tells of deaths in its own words."""
    before = _told.set(False)
    try:
        yield
    finally:
        _told.reset(before)
