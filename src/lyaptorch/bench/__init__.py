"""Times of the fused kernels beside those of plain loops, and beside what the core can do at most."""

from lyaptorch.bench.benchmark import Benchmark, summary
from lyaptorch.bench.problems import METHODS, ROWS, Row, runs

__all__ = ["METHODS", "ROWS", "Benchmark", "Row", "runs", "summary"]
