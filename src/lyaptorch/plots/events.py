"""Curves of a Record for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyaptorch.record import Record


def write_events(record: Record, folder: Path | str) -> int:
    """Write every curve of a Record as scalars, each member as a run of its own; return how many curves.

    A curve is a variable `(member, step)`; of one `(member, step, index)` the first, the middle and the last
    index are written.

    Raises:
        ValueError: if tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("TensorBoard is not installed; pip install 'lyaptorch[tensorboard]'") from error
    curves: list[tuple[str, int]] = []
    for name, v in record.variables.items():
        if v.dims[:1] != ("member",) or len(v.dims) not in (2, 3) or v.values.dtype.kind not in "iuf":
            continue
        size = 1 if len(v.dims) == 2 else v.values.shape[2]
        curves += [(name, i) for i in sorted({0, size // 2, size - 1}) if size]
    members = max((len(record[name]) for name, _ in curves), default=0)
    for member in range(members):
        writer = SummaryWriter(str(Path(folder) / f"member{member}"))
        for name, index in curves:
            values = record[name][member]
            own, tag = (values, name) if values.ndim == 1 else (values[:, index], f"{name}/{index + 1}")
            for step in np.flatnonzero(np.isfinite(own)):
                writer.add_scalar(tag, float(own[step]), int(step))
        writer.close()
    return members * len(curves)
