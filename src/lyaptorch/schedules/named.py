"""Named schedules: those of the papers, by the names that the command line knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from lyaptorch.schedules.phases import FitPhase, FlossPhase, Schedule, Trigger
from lyaptorch.schedules.triggers import At, Every, Moment, Scale, When, gradient_norm, lambda1


def none(epochs: int, floss: FlossPhase) -> Schedule:
    """The task alone."""
    return (FitPhase(epochs),)


def pre(epochs: int, floss: FlossPhase) -> Schedule:
    """Preflossing (Gradient Flossing, section 6)."""
    return (floss, FitPhase(epochs))


def adaptive(
    epochs: int,
    floss: FlossPhase,
    *,
    episode_epochs: int | None = None,
    check_every: int = 10,
    at: tuple[int, ...] = (100, 200, 300, 400, 500),
    after: int = 501,
    highest: float = 0.2,
    lowest: float = -math.inf,
    factor: float = 1.1,
) -> Schedule:
    """Episodes every 100 epochs until 500, then whenever lambda_1 > 0.2 or |dL/dW| > 1.

    Each late episode multiplies the sharpness of a surrogate by 1.1 where the model has one. The length
    of episodes and the increment are ours: the paper gives none.

    Args:
        epochs: of the task.
        floss: what is done before the task.
        episode_epochs: length of every later episode; as the first when missing.
        check_every: task epochs between evaluations of the conditions.
        at: task epochs of the episodes that come in any case.
        after: the first task epoch at which conditions count.
        highest: lambda_1 beyond which there is an episode and a sharper surrogate.
        lowest: lambda_1 below which there is an episode; the paper has none.
        factor: of the sharpness.

    Source: Surrogate Gradient Flossing, sections 5 and 6.
    """
    episode = floss if episode_epochs is None else replace(floss, epochs=episode_epochs)
    late = When((lambda1 > highest, gradient_norm > 1.0), after=after)
    scale = Scale("cell.activation.sharpness", factor, optional=True)
    triggers: tuple[Trigger, ...] = (Trigger(At(*at), episode), Trigger(late, episode, scale))
    if lowest > -math.inf:
        triggers += (Trigger(When(lambda1 < lowest, after=after), episode),)
    return (floss, FitPhase(epochs, triggers=triggers, check_every=check_every))


def joint(epochs: int, floss: FlossPhase) -> Schedule:
    """Preflossing, then task and flossing loss together, with weight 0.1 (ours)."""
    return (floss, FitPhase(epochs, flossing_weight=0.1, flossing=replace(floss, epochs=0)))


def episodes(when: Moment) -> Callable[[int, FlossPhase], Schedule]:
    """Preflossing and episodes at these moments."""

    def schedule(epochs: int, floss: FlossPhase) -> Schedule:
        return (floss, FitPhase(epochs, triggers=(Trigger(when, floss),)))

    return schedule


SCHEDULES: dict[str, Callable[[int, FlossPhase], Schedule]] = {
    "none": none,
    "pre": pre,
    # Gradient Flossing, Fig 4
    "during": episodes(At(500)),
    # Gradient Flossing, Fig 8: the episode at epoch 0 is the preflossing
    "episodes": episodes(At(100, 200, 300, 400)),
    # Gradient Flossing, Fig 12: episodes to the end, which harm
    "periodic": episodes(Every(100)),
    "adaptive": adaptive,
    "joint": joint,
}
"""`(task epochs, flossing phase) -> schedule`."""
