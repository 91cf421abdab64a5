"""What we penalise, and when."""

from lyaptorch.flossing.loss import flossing_loss
from lyaptorch.flossing.schedule import FitPhase, FlossPhase, Phase, Schedule

__all__ = ["FitPhase", "FlossPhase", "Phase", "Schedule", "flossing_loss"]
