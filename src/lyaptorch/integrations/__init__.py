"""Flossing in other people's loops: plain ones here, those of libraries in `lightning` and `transformers`."""

from lyaptorch.integrations.flosser import Flosser
from lyaptorch.integrations.sequences import Sequences

__all__ = ["Flosser", "Sequences"]
