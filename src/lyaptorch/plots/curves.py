"""Figures of spectra, trainings, sweeps and benchmarks; and curves as TensorBoard's events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lyaptorch._units import Clock
from lyaptorch.plots.primitives import (
    BLUE,
    GREEN,
    GREY,
    NO_ERROR,
    ORANGE,
    Rows,
    Told,
    bundle,
    finite_mean,
    label_accuracy,
    level,
    look,
    picture,
    scores,
    smooth,
)
from lyaptorch.record import Record


@picture(2)
def spectrum_figure(record: Record, axes: list[Axes]) -> None:
    """The exponents, and the running estimates of a few of them."""
    draw_exponents(record, axes[0])
    draw_convergence(record, axes[1])


def draw_exponents(record: Record, axes: Axes) -> Told:
    """lambda_i against i: one trajectory with error bars, or several and their mean; what is lost hollow."""
    k, clock = record["exponents"].shape[-1], Clock(record.config["dt"])
    exponents, stderr, reliable = (
        record[name].reshape(-1, k) for name in ("exponents", "stderr", "reliable")
    )
    index = np.arange(1, k + 1)
    # dead ones are -inf, which would stretch the axis to nothing
    rows = np.where(np.isfinite(exponents), exponents, np.nan)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if len(rows) == 1:
        error = np.where(np.isfinite(stderr), stderr, np.nan)
        axes.errorbar(index, rows[0], yerr=error[0], color=BLUE, marker=".", markersize=4, linewidth=1)
        # without a bar they would look exact
        unknown = np.isfinite(rows[0]) & np.isnan(error[0])
        if unknown.any():
            axes.plot(index[unknown], rows[0, unknown], "x", color=GREY, markersize=5, label=NO_ERROR)
            axes.legend()
    else:
        axes.plot(index, rows.T, color=BLUE, alpha=0.25, linewidth=0.8)
        axes.plot(index, finite_mean(rows, axis=0), color=BLUE, linewidth=1.8)
    lost = ~reliable & np.isfinite(rows)
    if lost.any():
        at = np.nonzero(lost)
        axes.plot(
            index[at[1]], rows[at], "o", mfc="white", color=ORANGE, markersize=4, label="lost to round-off"
        )
        axes.legend()
    axes.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ ({clock.rate})", title="Lyapunov spectrum")
    means, error = finite_mean(exponents, 0), error_of_mean(record)
    # a dead exponent is known for certain, but an index at which all are dead is not above round-off
    trusted = np.all(reliable | np.isinf(exponents), axis=0) & reliable.any(0)
    words = ["yes" if one else "no" for one in trusted]
    return (
        "Hollow circles: not reliable, lost to round-off or to steps that are too long.",
        f"{k} Lyapunov exponents, the first {means[0]:.3g} and the last {means[-1]:.3g} {clock.rate}.",
        ("i", "λ", "± error", "reliable"),
        list(zip(range(1, k + 1), means.tolist(), error.tolist(), words, strict=True)),
    )


def error_of_mean(record: Record) -> Rows:
    """`(k,)`, of the mean of all trajectories of a spectrum."""
    if "error_of_mean" in record:
        return record["error_of_mean"]
    # Records of earlier versions hold single errors alone: var(mean) = sum_i var_i / rows^2 if independent
    stderr = record["stderr"].reshape(-1, record["stderr"].shape[-1])
    return np.asarray(np.sqrt((stderr**2).mean(0) / len(stderr)))


def draw_convergence(record: Record, axes: Axes) -> Told:
    """Running estimates of a few exponents over time, means of all trajectories."""
    k, clock, elapsed = record["exponents"].shape[-1], Clock(record.config["dt"]), record["elapsed"]
    shown = sorted({0, k // 4, k // 2, k - 1})
    curves = finite_mean(record["running"].reshape(-1, len(elapsed), k)[..., shown], 0)
    for i, curve, dash in zip(shown, curves.T, ("-", "--", "-.", ":"), strict=False):
        axes.plot(elapsed, curve, dash, color=BLUE, alpha=1 - 0.5 * i / k, label=rf"$\lambda_{{{i + 1}}}$")
    axes.set(xlabel=clock.span, ylabel="running estimate", title="Convergence", xscale="log")
    axes.legend()
    return (
        "An estimate that still drifts at the end asks for a longer run.",
        f"Running estimates of {len(shown)} exponents over time; they end at "
        f"{', '.join(f'{v:.3g}' for v in curves[-1])}.",
        ("time", *(f"λ {i + 1}" for i in shown)),
        [(float(t), *row) for t, row in zip(elapsed, curves.tolist(), strict=True)],
    )


@picture(2)
def covariant_figure(record: Record, axes: list[Axes]) -> None:
    """The spread of growth along each covariant vector, and how often neighbours enclose an angle."""
    left, right = axes
    k = record["local"].shape[-1]
    local, angles = record["local"].reshape(-1, k), record["angles"].reshape(-1, k, k)
    # quantiles interpolate, and between two values of -inf that is NaN
    index, alive = np.arange(1, k + 1), np.isfinite(local).all(0)
    low, high = np.quantile(local[:, alive], [0.1, 0.9], axis=0)
    left.axhline(0, color=GREY, linewidth=0.8)
    left.fill_between(index[alive], low, high, color=BLUE, alpha=0.25, linewidth=0)
    left.plot(index[alive], local[:, alive].mean(0), color=BLUE, marker=".", markersize=4)
    left.set(
        xlabel="index $i$",
        ylabel=f"growth ({Clock(record.config['dt']).rate})",
        title="Along covariant vectors: mean, 10-90%",
    )
    # k vectors have k - 1 pairs of neighbours: first, middle and last
    for i in sorted({0, (k - 1) // 2, k - 2} & set(range(k - 1))):
        counts, edges = np.histogram(np.degrees(angles[:, i, i + 1]), bins=45, range=(0, 90), density=True)
        label = f"$v_{{{i + 1}}}, v_{{{i + 2}}}$"
        right.stairs(counts, edges, color=BLUE, alpha=1 - 0.7 * i / k, label=label)
    right.set(xlabel="angle (degrees)", ylabel="density", title="Angle between neighbours")
    if k > 1:
        right.legend()


@picture(lambda record: 3 if "exponents" in record else 2)
def training_figure(record: Record, axes: list[Axes]) -> None:
    """Accuracy and loss of every member over task epochs, and the exponents over flossing epochs."""
    for panel, name in zip(axes, ("accuracy", "loss"), strict=False):
        panel.plot(smooth(record[name]).T, color=BLUE, alpha=0.6, linewidth=1)
        panel.set(xlabel="epoch", ylabel=name, title=name.capitalize())
    for panel in axes[2:]:
        draw_flossing(record, panel, BLUE)


@picture(2)
def flossing_figure(record: Record, axes: list[Axes]) -> None:
    """The flossing loss and the exponents over flossing epochs."""
    left, right = axes
    left.semilogy(record["floss_loss"].T, color=BLUE, alpha=0.6, linewidth=1)
    left.set(xlabel="flossing epoch", ylabel=r"mean $(\lambda_i - \lambda^*)^2$", title="Flossing loss")
    draw_flossing(record, right, BLUE)


@picture(3)
def demo_figure(record: Record, axes: list[Axes]) -> None:
    """The spectrum before training, plain and flossed; the exponents during flossing; the accuracy."""
    left, middle, right = axes
    flossed = record["flossed"]
    left.axhline(0, color=GREY, linewidth=0.8)
    draw_flossing(record, middle, ORANGE, flossed)
    for on, color, label in ((False, BLUE, "plain"), (True, ORANGE, "preflossed")):
        rows = record["spectrum"][flossed == on]
        index, curves = np.arange(1, rows.shape[-1] + 1), smooth(record["accuracy"][flossed == on])
        looks: dict[str, Any] = {"alpha": 0.4, "thin": 0.8, "linewidth": 1.8}
        bundle(left, rows, color, label, x=index, thick=finite_mean, **looks)
        bundle(right, curves, color, label, **looks)
    k = record["exponents"].shape[-1]
    left.axvline(k, color=GREY, linestyle=":", linewidth=0.8)
    left.annotate(f"$k = {k}$", (k, left.get_ylim()[0]), ha="right", va="bottom", color=GREY)
    left.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Spectrum before training")
    level(right, 0.5)
    label_accuracy(right, "training epoch", f"XOR, delay {record.config['delay']}")
    left.legend(loc="lower left")
    right.legend(loc="center right")


def draw_flossing(record: Record, axes: Axes, color: str, who: Rows | None = None) -> None:
    """First, middle and last exponent over flossing, of the members `who` or of all."""
    exponents = record["exponents"] if who is None else record["exponents"][who]
    rate = record.variables["exponents"].attributes.get("units", "nats per step")
    k = exponents.shape[-1]
    axes.axhline(0, color=GREY, linewidth=0.8)
    for i, dash in zip(sorted({0, k // 2, k - 1}), ("-", "--", ":"), strict=False):
        label = rf"$\lambda_{{{i + 1}}}$"
        bundle(axes, exponents[:, :, i], color, label, thick=finite_mean, thin=0.8, dash=dash)
    axes.set(xlabel="flossing epoch", ylabel=rf"$\lambda_i$ ({rate})", title="Flossing")
    axes.legend()


def _scores(record: Record) -> list[str]:
    """What is drawn of a sweep: a number of each run."""
    numbers = [n for n, v in record.variables.items() if set(v.dims) <= record.config["axes"].keys()]
    return [n for n in ("final_accuracy", "final_loss") if n in record] or numbers[:2]


@picture(lambda record: max(1, len(_scores(record))), width=4.0)
def sweep_figure(record: Record, axes: list[Axes]) -> None:
    """Scores of all networks, and their mean, against the first setting by name that is varied."""
    settings = {name: values for name, values in record.config["axes"].items() if name != "network"}
    across = next((n for n, values in settings.items() if len(values) > 1), next(iter(settings), None))
    ticks = np.zeros(1) if across is None else record[across]
    numeric = ticks.dtype.kind in "iuf"
    x = ticks if numeric else np.arange(len(ticks))
    others = [n for n in settings if n != across]
    for panel, name in zip(axes, _scores(record), strict=False):
        # the setting on the axis next to last, networks last: a curve for each index of what is left
        dims = record.variables[name].dims
        values = record[name].transpose([dims.index(n) for n in (*others, across, "network") if n in dims])
        values = values if "network" in dims else values[..., None]
        values = values[..., None, :] if across is None else values
        for count, index in enumerate(np.ndindex(*values.shape[:-2])):
            color, dash = look(count)
            label = ", ".join(f"{n} {settings[n][i]}" for n, i in zip(others, index, strict=True))
            scores(panel, x, values[index], color, label or None, thick=finite_mean, dash=dash)
        if not numeric:
            panel.set_xticks(x, [str(t) for t in ticks])
        panel.set(xlabel=across or "", ylabel=name.replace("_", " "))
        if others:
            panel.legend()


COLORS = {"loop": BLUE, "torch": ORANGE, "rnn": GREEN}


@picture(1, width=6.4, height=lambda record: 1.0 + 0.4 * len(record["row"]))
def bench_figure(record: Record, axes: list[Axes]) -> None:
    """Median time of each method over that of the kernels, a group of bars for each row."""
    # not the mean: another process disturbs a few rounds, and only upwards
    seconds, methods = np.median(record["seconds"], axis=-1), record["method"].tolist()
    ratios = seconds / seconds[:, [methods.index("fused")]]
    places = np.arange(len(ratios))
    (panel,) = axes
    for i, (method, color) in enumerate(COLORS.items()):
        values = np.nan_to_num(ratios[:, methods.index(method)])
        panel.barh(places + 0.26 * (i - 1), values, 0.26, color=color, label=method)
    panel.axvline(1, color=GREY, linewidth=0.8)
    panel.set_yticks(places, record["row"].tolist())
    panel.invert_yaxis()
    panel.set(xlabel="time / time of the kernels", title="Forward and backward")
    panel.legend()


def write_events(record: Record, folder: Path | str) -> int:
    """Write every curve of a Record as scalars, each member as a run of its own; return how many curves.

    A curve is a variable `(member, step)`; of one `(member, step, index)` the first, the middle and the last
    index are written. Measurements stand at the epochs of `measured_at`, where the Record has these.

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
            steps = np.arange(len(own))
            if "measured_at" in record and record.variables[name].dims[1] == "measurement":
                at = record["measured_at"]
                steps = at if at.ndim == 1 else at[member]
            # NaN where a member took no part
            there = np.isfinite(own) & np.isfinite(steps)
            for step, value in zip(steps[there], own[there], strict=True):
                writer.add_scalar(tag, float(value), int(step))
        writer.close()
    return members * len(curves)
