"""The figure of a benchmark: how many times faster the kernels are."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREEN, GREY, ORANGE, panels, style
from lyaptorch.record import Record

COLORS = {"loop": BLUE, "torch": ORANGE, "rnn": GREEN}


def bench_figure(record: Record) -> Figure:
    """Median time of each method over that of the kernels, a group of bars for each row."""
    seconds, methods = np.median(record["seconds"], axis=-1), record["method"].tolist()
    ratios = seconds / seconds[:, [methods.index("fused")]]
    places = np.arange(len(ratios))
    with style():
        figure, (axes,) = panels(1, width=6.4, height=1.0 + 0.4 * len(ratios))
        for i, (method, color) in enumerate(COLORS.items()):
            values = np.nan_to_num(ratios[:, methods.index(method)])
            axes.barh(places + 0.26 * (i - 1), values, 0.26, color=color, label=method)
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.set_yticks(places, record["row"].tolist())
        axes.invert_yaxis()
        axes.set(xlabel="time / time of the kernels", title="Forward and backward")
        axes.legend()
    return figure
