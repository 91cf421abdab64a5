"""Phases and triggers, the flossing loss, and penalties: what is minimised, and when."""

from lyaptorch.schedules.loss import flossing_loss
from lyaptorch.schedules.named import SCHEDULES
from lyaptorch.schedules.phases import FitPhase, FlossPhase, Phase, Schedule, Trigger
from lyaptorch.schedules.triggers import (
    At,
    Every,
    Scale,
    When,
    accuracy,
    gradient_norm,
    lambda1,
    task_loss,
)

__all__ = [
    "SCHEDULES",
    "At",
    "Every",
    "FitPhase",
    "FlossPhase",
    "Phase",
    "Scale",
    "Schedule",
    "Trigger",
    "When",
    "accuracy",
    "flossing_loss",
    "gradient_norm",
    "lambda1",
    "task_loss",
]
