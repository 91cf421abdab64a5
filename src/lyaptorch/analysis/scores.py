"""How fast and how well networks learned, from a run's Record."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lyaptorch.record import Record


def best_so_far(record: Record, name: str = "test_accuracy") -> Float[np.ndarray, "member measurement"]:
    """The best score until each measurement: the largest, or of a loss the smallest; NaN before the first.

    Args:
        record: of `train(..., metrics=("test",))`.
        name: "test_accuracy" or "test_loss".

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    best = np.fmin if name.endswith("loss") else np.fmax
    scores: np.ndarray = best.accumulate(record[name], axis=1)
    return scores


def iterations_to(
    record: Record, threshold: float, name: str = "test_accuracy"
) -> Float[np.ndarray, " member"]:
    """Task steps until a score was first measured to reach a threshold, NaN where it never did.

    Args:
        record: of `train(..., metrics=("test",))`.
        threshold: what counts as minimal performance; a loss reaches it from above.
        name: "test_accuracy" or "test_loss".

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    scores = best_so_far(record, name)
    reached = scores <= threshold if name.endswith("loss") else scores >= threshold
    when = record["measured_at"][np.arange(len(scores)), reached.argmax(1)]
    return np.where(reached.any(1), when, np.nan)
