"""Experiments: configuration in, Record out."""

from lyaptorch.experiments.demo import Demo

__all__ = ["Demo"]
