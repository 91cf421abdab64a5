"""What we penalise, and when."""

from lyaptorch.flossing.loss import flossing_loss
from lyaptorch.flossing.presets import SCHEDULES
from lyaptorch.flossing.schedule import (
    At,
    Every,
    FitPhase,
    FlossPhase,
    Phase,
    Scale,
    Schedule,
    Trigger,
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
