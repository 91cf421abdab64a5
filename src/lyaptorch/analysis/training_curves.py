"""Learning curves: how fast and how well networks learned, and curves aligned to an event."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.record import Record


def best_so_far(record: Record, name: str = "test_accuracy") -> Float[np.ndarray, "member measurement"]:
    """The best score until each measurement: the largest, or of a loss the smallest; NaN before the first.

    Cost O(members x measurements).

    Args:
        record: of `train(..., metrics=("test",))`.
        name: "test_accuracy" or "test_loss".

    Example:
        >>> from lyaptorch import Record
        >>> scores = {"test_accuracy": (("member", "measurement"), [[0.5, 0.8, 0.7]])}
        >>> best_so_far(Record("training", {}, scores)).tolist()
        [[0.5, 0.8, 0.8]]

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    # fmin and fmax pass over a NaN: of a member that had stopped, or of a measurement not made
    best = np.fmin if name.endswith("loss") else np.fmax
    scores: np.ndarray = best.accumulate(record[name], axis=1)
    return scores


def iterations_to(
    record: Record, threshold: float, name: str = "test_accuracy"
) -> Float[np.ndarray, " member"]:
    """Task steps until a score was first measured to reach a threshold, NaN where it never did.

    Cost O(members x measurements).

    Args:
        record: of `train(..., metrics=("test",))`.
        threshold: what counts as minimal performance; a loss reaches it from above.
        name: "test_accuracy" or "test_loss".

    Example:
        >>> from lyaptorch import Record
        >>> both = ("member", "measurement")
        >>> found = {"test_accuracy": (both, [[0.5, 0.8, 0.7]]), "measured_at": (both, [[0, 100, 200]])}
        >>> iterations_to(Record("training", {}, found), 0.75).tolist()
        [100.0]

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    scores = best_so_far(record, name)
    reached = scores <= threshold if name.endswith("loss") else scores >= threshold
    # argmax of truth values is the first that is true; where none is, it says 0, and is not asked
    when = record["measured_at"][np.arange(len(scores)), reached.argmax(1)]
    return np.where(reached.any(1), when, np.nan)


WHICH = ("first", "last")


def onset(
    curves: Float[Tensor, "*e epochs"], level: float = 0.6, width: int = 10, which: str = "first"
) -> Float[Tensor, "*e"]:
    """The epoch at which a curve rises beyond `level`, by the mean of the `width` epochs from it on.

    Cost O(epochs) per curve.

    Args:
        curves: such as accuracy; NaN never exceeds anything, and a curve ends before those at its end.
        level: between chance and success.
        width: epochs averaged, against lucky batches.
        which: "first", the first epoch of a window above the level; "last", the one after the last window
            that is not, the last epoch at chance.

    Returns:
        float64; NaN where it never happens, and for "last" also where the last window is below.

    Example:
        >>> accuracy = torch.cat([torch.full((30,), 0.5), torch.full((30,), 1.0)])
        >>> onset(accuracy).item(), onset(torch.full((60,), 0.5)).item()
        (23.0, nan)

    Source: Gradient Flossing, Fig 9 (last epoch at chance).
    """
    _checks.integer("width", width, 1)
    _checks.choice("which", which, WHICH)
    if curves.shape[-1] < width:
        return torch.full(curves.shape[:-1], torch.nan, dtype=torch.float64, device=curves.device)
    above = curves.double().unfold(-1, width, 1).mean(-1) > level
    # window e holds the epochs e .. e + width - 1
    index = torch.arange(above.shape[-1], dtype=torch.float64, device=curves.device)
    if which == "first":
        epoch = torch.where(above, index, torch.inf).amin(-1)
    else:
        # rows end in NaN where others went on: the last window is that of the last epoch that is there
        places = torch.arange(1, curves.shape[-1] + 1, device=curves.device)
        last = torch.where(torch.isnan(curves), 0, places).amax(-1, keepdim=True) - width
        # behind the last window that is not above; if that is the very last one, it never rose for good
        epoch = torch.where(above | (index > last), -1.0, index).amax(-1) + 1
        epoch = torch.where(epoch <= last.squeeze(-1), epoch, torch.inf)
    return torch.where(torch.isfinite(epoch), epoch, torch.nan)


def aligned(
    curves: Float[Tensor, "*e epochs"], events: Float[Tensor, "*e"], before: int, after: int
) -> Float[Tensor, "*e window"]:
    """The curves from `before` epochs before to `after` epochs after each one's own event.

    Cost O(before + after) per curve.

    Args:
        curves: one row for each network.
        events: epochs (or places along the curve); NaN for no event.
        before: epochs shown before.
        after: epochs shown after.

    Returns:
        `(*e, before + 1 + after)`, the event in column `before`; NaN beyond the ends and without an event.

    Example:
        >>> aligned(torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.0, 7.0]]), torch.tensor([1.0, 2.0]), 1, 1)
        tensor([[0., 1., 2.],
                [6., 7., nan]])

    Source: Gradient Flossing, Fig 9.
    """
    _checks.integer("before", before, 0)
    _checks.integer("after", after, 0)
    _checks.shape("events", events, tuple(curves.shape[:-1]), "*e", do="give one event for each curve")
    known = torch.isfinite(events)
    offsets = torch.arange(-before, after + 1, device=curves.device)
    at = torch.where(known, events, 0.0).long().unsqueeze(-1) + offsets
    last = curves.shape[-1] - 1
    inside = (at >= 0) & (at <= last) & known.unsqueeze(-1)
    return torch.where(inside, torch.gather(curves, -1, at.clamp(0, last)), torch.nan)
