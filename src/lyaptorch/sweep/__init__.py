"""Many runs: a grid of configurations, packed into ensembles, on one machine or on many."""

from lyaptorch.sweep.grid import Axes, Config, Group, axis, grid, packs, run_id
from lyaptorch.sweep.plan import Function, Plan, gather, sweep
from lyaptorch.sweep.workers import Processes, Ray, Serial, Workers

__all__ = [
    "Axes",
    "Config",
    "Function",
    "Group",
    "Plan",
    "Processes",
    "Ray",
    "Serial",
    "Workers",
    "axis",
    "gather",
    "grid",
    "packs",
    "run_id",
    "sweep",
]
