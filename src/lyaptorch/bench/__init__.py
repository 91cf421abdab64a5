"""How fast: the fused kernels beside what everybody writes, and beside what the core can do at most."""

from lyaptorch.bench.rows import METHODS, ROWS, Row, runs
from lyaptorch.bench.run import Benchmark, summary

__all__ = ["METHODS", "ROWS", "Benchmark", "Row", "runs", "summary"]
