"""What is learned: batches drawn from counter-based streams."""

from lyaptorch import _checks
from lyaptorch.tasks.adding import Adding
from lyaptorch.tasks.batch import Batch, Task
from lyaptorch.tasks.images import SequentialImages
from lyaptorch.tasks.lagged import DelayedCopy, SpatialXOR, TemporalXOR
from lyaptorch.tasks.noise import Noise
from lyaptorch.tasks.recall import Recall

TASKS = {
    "delayed_copy": DelayedCopy,
    "recall": Recall,
    "spatial_xor": SpatialXOR,
    "temporal_xor": TemporalXOR,
}


def make_task(name: str, *, delay: int, items: int = 1) -> Task:
    """The task called `name`.

    Raises:
        ValueError: for an unknown name (the nearest one is named).
    """
    make = TASKS[_checks.choice("task", name, TASKS)]
    return Recall(items, delay) if make is Recall else make(delay)


__all__ = [
    "TASKS",
    "Adding",
    "Batch",
    "DelayedCopy",
    "Noise",
    "Recall",
    "SequentialImages",
    "SpatialXOR",
    "Task",
    "TemporalXOR",
    "make_task",
]
