"""Tasks: batches drawn from counter-based streams."""

from lyaptorch import _checks
from lyaptorch.tasks.batch import Batch, Draw, Noise, Task
from lyaptorch.tasks.delayed import Adding, DelayedCopy, OneHotXOR, Recall, SpatialXOR, TemporalXOR
from lyaptorch.tasks.images import SequentialImages
from lyaptorch.tasks.sounds import SpokenDigits
from lyaptorch.tasks.spike_trials import SpikePatterns, SpikingXOR

__all__ = [
    "TASKS",
    "Adding",
    "Batch",
    "DelayedCopy",
    "Draw",
    "Noise",
    "OneHotXOR",
    "Recall",
    "SequentialImages",
    "SpatialXOR",
    "SpikePatterns",
    "SpikingXOR",
    "SpokenDigits",
    "Task",
    "TemporalXOR",
    "make_task",
]

TASKS = {
    "delayed_copy": DelayedCopy,
    "one_hot_xor": OneHotXOR,
    "recall": Recall,
    "spatial_xor": SpatialXOR,
    "spike_patterns": SpikePatterns,
    "spiking_xor": SpikingXOR,
    "spoken_digits": SpokenDigits,
    "temporal_xor": TemporalXOR,
}
"""Those that a command line can name."""


def make_task(name: str, *, delay: int, items: int = 1) -> Task:
    """The task called `name`; spoken digits, as frames, have no delay.

    Costs nothing until it draws.

    Raises:
        ValueError: for an unknown name (the nearest one is named).

    Example:
        >>> make_task("delayed_copy", delay=20).delay
        20
    """
    make = TASKS[_checks.choice("task", name, TASKS)]
    if make is SpokenDigits:
        return SpokenDigits()
    return Recall(items, delay) if make is Recall else make(delay)
