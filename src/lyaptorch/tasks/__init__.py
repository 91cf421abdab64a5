"""What is learned: batches drawn from counter-based streams."""

from lyaptorch.tasks.batch import Batch, Task
from lyaptorch.tasks.xor import TemporalXOR

TASKS = {"temporal_xor": TemporalXOR}

__all__ = ["TASKS", "Batch", "Task", "TemporalXOR"]
