"""Curves over epochs or settings: training, sweeps, benchmarks; and their export to TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import BLUE, DASHES, GREEN, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]


def training_figure(record: Record) -> Figure:
    """Accuracy and loss of every member over task epochs, and the exponents over flossing epochs."""
    flossed = "exponents" in record
    with style():
        figure, axes = panels(3 if flossed else 2)
        for panel, name in zip(axes, ("accuracy", "loss"), strict=False):
            panel.plot(smooth(record[name]).T, color=BLUE, alpha=0.6, linewidth=1)
            panel.set(xlabel="epoch", ylabel=name, title=name.capitalize())
        if flossed:
            exponents_panel(axes[2], record["exponents"], BLUE, _rate(record))
    return figure


def flossing_figure(record: Record) -> Figure:
    """The flossing loss and the exponents over flossing epochs."""
    with style():
        figure, (left, right) = panels(2)
        left.semilogy(record["floss_loss"].T, color=BLUE, alpha=0.6, linewidth=1)
        left.set(xlabel="flossing epoch", ylabel=r"mean $(\lambda_i - \lambda^*)^2$", title="Flossing loss")
        exponents_panel(right, record["exponents"], BLUE, _rate(record))
    return figure


def demo_figure(record: Record) -> Figure:
    """Three panels: the spectrum before and after flossing, the exponents during it, the accuracy."""
    flossed = record["flossed"]
    with style():
        figure, (left, middle, right) = panels(3)
        left.axhline(0, color=GREY, linewidth=0.8)
        exponents_panel(middle, record["exponents"][flossed], ORANGE)
        for on, color, label in ((False, BLUE, "plain"), (True, ORANGE, "preflossed")):
            rows = record["spectrum"][flossed == on]
            index = np.arange(1, rows.shape[-1] + 1)
            left.plot(index, rows.T, color=color, alpha=0.4, linewidth=0.8)
            left.plot(index, finite_mean(rows, axis=0), color=color, linewidth=1.8, label=label)
            curves = smooth(record["accuracy"][flossed == on])
            right.plot(curves.T, color=color, alpha=0.4, linewidth=0.8)
            right.plot(curves.mean(0), color=color, linewidth=1.8, label=label)
        k = record["exponents"].shape[-1]
        left.axvline(k, color=GREY, linestyle=":", linewidth=0.8)
        left.annotate(f"$k = {k}$", (k, left.get_ylim()[0]), ha="right", va="bottom", color=GREY)
        left.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Spectrum before training")
        right.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        right.set(xlabel="training epoch", ylabel="accuracy", title=f"XOR, delay {record.config['delay']}")
        right.set_ylim(0.42, 1.03)
        left.legend(loc="lower left")
        right.legend(loc="center right")
    return figure


def _rate(record: Record) -> str:
    """The unit of its exponents."""
    return record.variables["exponents"].attributes.get("units", "nats per step")


def exponents_panel(axes: Axes, exponents: Array, color: str, rate: str = "nats per step") -> None:
    """First, middle and last exponent `(member, floss_epoch, k)` over flossing."""
    k = exponents.shape[-1]
    axes.axhline(0, color=GREY, linewidth=0.8)
    for i, style_of in zip(sorted({0, k // 2, k - 1}), ("-", "--", ":"), strict=False):
        rows = exponents[:, :, i]
        axes.plot(rows.T, style_of, color=color, alpha=0.3, linewidth=0.8)
        axes.plot(
            finite_mean(rows, axis=0), style_of, color=color, linewidth=1.6, label=rf"$\lambda_{{{i + 1}}}$"
        )
    axes.set(xlabel="flossing epoch", ylabel=rf"$\lambda_i$ ({rate})", title="Flossing")
    axes.legend()


def smooth(rows: Array, width: int = 10) -> Array:
    """A running mean over the last `width` epochs, of those in which a member took part."""
    present = ~np.isnan(rows)
    epochs, shape = rows.shape[-1], (*rows.shape[:-1], min(width, rows.shape[-1]))
    total, count = (
        sums - np.concatenate([np.zeros(shape), sums], -1)[..., :epochs]
        for sums in (np.cumsum(np.nan_to_num(rows), axis=-1), np.cumsum(present, axis=-1))
    )
    return np.where(present, total / np.maximum(count, 1), np.nan)


FIRST = ("final_accuracy", "final_loss")
"""What is drawn, where it is there."""


def sweep_figure(record: Record) -> Figure:
    """Scores of all networks, and their mean, against the first setting that is varied."""
    axes = {name: values for name, values in record.config["axes"].items() if name != "network"}
    names = [n for n in FIRST if n in record] or list(record.variables)[:2]
    across = next((n for n, values in axes.items() if len(values) > 1), next(iter(axes), None))
    with style():
        figure, drawn = panels(max(1, len(names)), width=4.0)
        for panel, name in zip(drawn, names, strict=False):
            dims = record.variables[name].dims
            values = record[name] if "network" in dims else record[name][..., None]
            if across is not None:
                values = np.moveaxis(values, dims.index(across), -2)
            else:
                values = values[..., None, :]
            ticks = record[across] if across is not None else np.zeros(1)
            numeric = ticks.dtype.kind in "iuf"
            x = ticks if numeric else np.arange(len(ticks))
            others = [n for n in axes if n != across]
            for count, index in enumerate(np.ndindex(*values.shape[:-2])):
                color, dash = PALETTE[count % len(PALETTE)], DASHES[count // len(PALETTE) % len(DASHES)]
                label = ", ".join(f"{n} {axes[n][i]}" for n, i in zip(others, index, strict=True))
                panel.plot(x, values[index], "o", color=color, alpha=0.3, markersize=3)
                panel.plot(
                    x, finite_mean(values[index], -1), dash, marker="o", color=color, label=label or None
                )
            if not numeric:
                panel.set_xticks(x, [str(t) for t in ticks])
            panel.set(xlabel=across or "", ylabel=name.replace("_", " "))
            if others:
                panel.legend()
    return figure


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
