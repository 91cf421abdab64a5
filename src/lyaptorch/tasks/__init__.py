"""What is learned: batches drawn from counter-based streams."""

from lyaptorch.tasks.batch import Batch, Task
from lyaptorch.tasks.lagged import DelayedCopy, SpatialXOR, TemporalXOR
from lyaptorch.tasks.recall import Recall

TASKS = {
    "delayed_copy": DelayedCopy,
    "recall": Recall,
    "spatial_xor": SpatialXOR,
    "temporal_xor": TemporalXOR,
}

__all__ = ["TASKS", "Batch", "DelayedCopy", "Recall", "SpatialXOR", "Task", "TemporalXOR"]
