"""Diagnosis of the gradients of a network: measured, put into words, with suggestions tried on copies."""

from lyaptorch.diagnosis.report import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
