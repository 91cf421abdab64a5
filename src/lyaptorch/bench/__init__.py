"""Times of the fused kernels beside those of plain loops, and beside what the core can do at most."""

from lyaptorch.bench.benchmark import Benchmark, summary
from lyaptorch.bench.problems import runs
from lyaptorch.bench.rows import METHODS, ROWS, Row

__all__ = ["METHODS", "ROWS", "Benchmark", "Row", "runs", "summary"]
