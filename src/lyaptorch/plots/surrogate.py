"""The figures of Surrogate Gradient Flossing, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREY, ORANGE, panels, style
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record

PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PER_STEP = "(nats per step)"


def fig1b(record: Record) -> Figure:
    """Spectra with free probability (dashed) and triangle law (dotted); the first exponent against g."""
    with style():
        figure, (spectra, first) = panels(2, width=4.4, height=3.4)
        n = record["spectrum"].shape[-1]
        x = (np.arange(n) + 0.5) / n
        for group, g in enumerate(record["sharpness"]):
            color = PALETTE[group % len(PALETTE)]
            spectra.plot(x, record["spectrum"][group], color=color, linewidth=1.6, label=f"$g = {g:g}$")
            spectra.plot(x, record["free"][group], color="black", linewidth=0.8, linestyle="--")
            spectra.plot(x, record["triangle"][group], color=color, linewidth=0.8, linestyle=":")
        spectra.set(
            xlabel="$i/n$", ylabel=rf"$\lambda_i$ {PER_STEP}", ylim=(-12, 0.5), title="Surrogate spectra"
        )
        spectra.legend()
        rows = record["lambda1"]
        first.semilogx(record["sharpness"], rows, "o", color=BLUE, alpha=0.4, markersize=3)
        first.semilogx(record["sharpness"], record["theory"], "--", color="black", label="mean field")
        first.set(xlabel="sharpness $g$", ylabel=rf"$\lambda_1$ {PER_STEP}", title="First exponent")
        first.legend()
    return figure


def fig1d(record: Record) -> Figure:
    """The Jacobian as a picture, its columns by slope, and the share of active columns."""
    with style():
        figure, (matrix, slopes, share) = panels(3)
        logs = np.log10(np.maximum(np.abs(record["jacobian"]), 1e-12))
        drawn = matrix.imshow(logs, cmap="magma", vmin=-8, vmax=0, interpolation="nearest")
        figure.colorbar(drawn, ax=matrix, label=r"$\log_{10} |D_{ij}|$")
        matrix.set(xlabel="$j$", ylabel="$i$", title="Surrogate Jacobian")
        rank = (np.arange(len(record["slopes"])) + 0.5) / len(record["slopes"])
        slopes.semilogy(rank, np.maximum(record["slopes"], 1e-30), color=BLUE)
        slopes.axvline(record["expected"][0], color=GREY, linestyle=":")
        slopes.set(xlabel="columns, sorted", ylabel=r"$\phi'_g(h_j)$", title="Slopes")
        share.plot(record["active"], color=BLUE, label="simulation")
        share.plot(record["expected"], color="black", linestyle="--", label="theory")
        share.set(xlabel="step", ylabel="share with $|h| < 1/g$", title="Active columns", ylim=(0, None))
        share.legend()
    return figure


def fig2a(record: Record) -> Figure:
    """lambda_1 against flossing epochs, a colour for each sharpness."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        axes.axhline(0, color=GREY, linestyle=":", linewidth=0.8)
        for group, g in enumerate(record["sharpness"]):
            rows, color = record["exponents"][group, :, :, 0], PALETTE[group]
            axes.plot(rows.T, color=color, alpha=0.25, linewidth=0.7)
            axes.plot(rows.mean(0), color=color, linewidth=1.8, label=f"$g = {g:g}$")
        axes.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {PER_STEP}", title="Control of $\\lambda_1$")
        axes.legend()
    return figure


def fig2b(record: Record) -> Figure:
    """The whole spectrum before, and after flossing k exponents."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        axes.axhline(0, color=GREY, linewidth=0.8)
        index = np.arange(1, record["after"].shape[-1] + 1)
        axes.plot(index, record["before"][0].mean(0), color=GREY, linewidth=1.4, label="before")
        for group, k in enumerate(record["k"]):
            axes.plot(index, record["after"][group].T, color=PALETTE[group], alpha=0.25, linewidth=0.7)
            mean = record["after"][group].mean(0)
            axes.plot(index, mean, color=PALETTE[group], linewidth=1.8, label=f"$k = {k}$")
        axes.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {PER_STEP}", title="Spectrum after flossing")
        axes.legend()
    return figure


def fig3(record: Record) -> Figure:
    """Accuracy and |dL/dh0| over epochs at the longest delay, and both against the delay."""
    delays = record["delay"]
    with style():
        figure, axes = panels(4, width=3.0)
        for i, (condition, color) in enumerate(zip(record["condition"], (BLUE, ORANGE), strict=True)):
            _curves(axes[0], smooth(record["accuracy"][i, -1], 20), color, condition)
            final = record["final_accuracy"][i]
            axes[1].plot(delays, final, "o", color=color, alpha=0.3, markersize=3)
            axes[1].plot(delays, np.median(final, -1), "o-", color=color, label=condition)
            norms = np.maximum(record["gradient_norm"][i], 1e-30)
            # of networks whose gradients overflow the other epochs count
            norms = np.where(np.isinf(norms), np.nan, norms)
            epochs = np.arange(norms.shape[-1]) * record.config["every"]
            axes[2].semilogy(epochs, norms[-1].T, color=color, alpha=0.4, linewidth=0.8)
            axes[3].semilogy(delays, np.exp(np.nanmean(np.log(norms), (-2, -1))), "o-", color=color)
        axes[0].set(xlabel="epoch", ylabel="accuracy", title=f"delay {delays[-1]}", ylim=(0.42, 1.03))
        axes[1].set(xlabel="delay", ylabel="final accuracy", title="After training", ylim=(0.42, 1.03))
        axes[1].legend()
        axes[2].set(xlabel="epoch", ylabel=r"$|dL/dh_0|$", title=f"delay {delays[-1]}")
        axes[3].set(xlabel="delay", ylabel=r"$|dL/dh_0|$", title="Mean over epochs")
    return figure


def fig4(record: Record) -> Figure:
    """Errors of the analytic Jacobian, and the spectra of the six conventions."""
    with style():
        figure, (errors, spectra) = panels(2, width=4.6, height=3.4)
        place = np.arange(len(record["mode"]))
        for name, color, label in (
            ("jacobian_error", BLUE, "one step"),
            ("product_error", ORANGE, "product, relative"),
        ):
            errors.semilogy(place, np.maximum(record[name], 1e-18), "o", color=color, label=label)
        errors.set_xticks(place, record["mode"], rotation=30, ha="right", fontsize=7)
        errors.set(ylabel="largest deviation", title="Analytic against autodiff")
        errors.legend()
        for i, mode in enumerate(record["mode"]):
            spectra.plot(record["spectrum"][i], color=PALETTE[i], linewidth=1.2, label=mode)
        spectra.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {PER_STEP}", title="Spectra by convention")
        spectra.legend(fontsize=6)
    return figure


def app_c_copy(record: Record) -> Figure:
    """Accuracy against the delay, and over epochs at the longest."""
    delays = record["delay"]
    with style():
        figure, (final, curves) = panels(2)
        for i, (condition, color) in enumerate(zip(record["condition"], (BLUE, ORANGE), strict=True)):
            rows = record["final_accuracy"][i]
            final.plot(delays, rows, "o", color=color, alpha=0.3, markersize=3)
            final.plot(delays, rows.mean(-1), "o-", color=color, label=f"flossed: {condition}")
            _curves(curves, smooth(record["accuracy"][i, -1], 20), color, condition)
        final.set(xlabel="delay", ylabel="accuracy", title="Delayed copy", ylim=(0.42, 1.03))
        final.legend()
        curves.set(xlabel="epoch", ylabel="accuracy", title=f"delay {delays[-1]}", ylim=(0.42, 1.03))
    return figure


def app_f(record: Record) -> Figure:
    """Log norms of gradients over the steps, with the slope lambda_1."""
    return _growth(record, "log_norm", "lambda1", r"$\log |dL/dh_0|$", r"$\lambda_1 T$")


def app_g(record: Record) -> Figure:
    """Log condition numbers over the steps, with the slope lambda_1 - lambda_m."""
    return _growth(record, "log_kappa", "spread", r"$\log \kappa_m$", r"$(\lambda_1 - \lambda_m) T$")


def convergence(record: Record) -> Figure:
    """Running estimates of a few exponents, weights random or fixed, and the scatter of all of them."""
    time, running = record["time"], record["running"]
    n = running.shape[-1]
    with style():
        figure, axes = panels(3)
        for panel, weights, rows, mean in zip(axes, record["weights"], running, (BLUE, ORANGE), strict=False):
            for color, i in zip(PALETTE, np.linspace(0, n - 1, 6).round().astype(int), strict=True):
                panel.semilogx(time, rows[:, :, i], color=color, linewidth=0.7, alpha=0.6)
                panel.plot([], [], color=color, label=rf"$\lambda_{{{i + 1}}}$")
            panel.set(xlabel="steps", ylabel=rf"$\lambda_i$ {PER_STEP}", title=f"{weights} weights")
            scatter = np.exp(np.log(np.maximum(rows.std(1, ddof=1), 1e-30)).mean(-1))
            axes[2].loglog(time, scatter, color=mean, label=f"{weights} weights")
        axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
        axes[2].loglog(time, scatter[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
        axes[2].set(xlabel="steps", ylabel="standard deviation", title="Scatter")
        axes[2].legend()
    return figure


def limits_g(record: Record) -> Figure:
    """The sharpness that flossing leaves, and accuracy over epochs on both tasks."""
    with style():
        figure, (sharpness, copy, xor) = panels(3)
        for i, (condition, color) in enumerate(zip(record["condition"], (BLUE, ORANGE), strict=True)):
            values = record["sharpness"][i]
            sharpness.plot(np.full(len(values), i), values, "o", color=color, label=condition)
            _curves(copy, smooth(record["copy"][i], 20), color, condition)
            _curves(xor, smooth(record["xor"][i], 20), color, condition)
        sharpness.set(ylabel="sharpness $g$", title="After flossing", ylim=(0, 1.1), xticks=[])
        sharpness.legend()
        copy.set(xlabel="epoch", ylabel="accuracy", title="Delayed copy", ylim=(0.42, 1.03))
        xor.set(xlabel="epoch", ylabel="accuracy", title="Delayed XOR", ylim=(0.42, 1.03))
    return figure


def spiking(record: Record) -> Figure:
    """Accuracy over epochs on each task, and the norm of dL/dh0 on the XOR of the longest delay."""
    names = [name.removesuffix("_accuracy") for name in record.variables if name.endswith("_accuracy")]
    longest = f"xor{record.config['delays'][-1]}"
    with style():
        figure, axes = panels(len(names) + 1, width=3.0)
        for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
            for panel, name in zip(axes, names, strict=False):
                _curves(panel, smooth(record[f"{name}_accuracy"][i], 20), color, condition)
                panel.set(xlabel="epoch", ylabel="accuracy", title=name, ylim=(0.0, 1.03))
            norms = np.maximum(record[f"{longest}_gradient_norm"][i], 1e-30)
            epochs = np.arange(norms.shape[-1]) * record.config["every"]
            axes[-1].semilogy(epochs, norms.T, color=color, alpha=0.5, linewidth=0.8)
        axes[0].legend()
        axes[-1].set(xlabel="epoch", ylabel=r"$|dL/dh_0|$", title=longest)
    return figure


def _curves(axes: Axes, rows: np.ndarray, color: str, label: str) -> None:
    """Thin lines for the networks and a thick one for their median."""
    axes.plot(rows.T, color=color, alpha=0.3, linewidth=0.7)
    axes.plot(np.median(rows, 0), color=color, linewidth=1.6, label=label)


def _growth(record: Record, name: str, slope: str, ylabel: str, theory: str) -> Figure:
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        steps = record["horizon"]
        for group, g in enumerate(record["sharpness"]):
            rows, color = record[name][group], PALETTE[group]
            axes.plot(steps, rows.T, color=color, alpha=0.2, linewidth=0.6)
            mean = rows.mean(0)
            axes.plot(steps, mean, "o-", color=color, markersize=3, label=f"$g = {g:g}$")
            line = mean.mean() + record[slope][group].mean() * (steps - steps.mean())
            axes.plot(steps, line, "--", color="black", linewidth=0.9, label=theory if group == 0 else None)
        axes.set(xlabel="steps $T$", ylabel=ylabel)
        axes.legend()
    return figure


SURROGATE = {
    f"surrogate-flossing {name}": draw
    for name, draw in {
        "fig1b": fig1b,
        "fig1d": fig1d,
        "fig2a": fig2a,
        "fig2b": fig2b,
        "fig3": fig3,
        "fig4": fig4,
        "fig7": convergence,
        "fig8": convergence,
        "appC-copy": app_c_copy,
        "appF": app_f,
        "appG": app_g,
        "limits-g": limits_g,
        "spiking": spiking,
    }.items()
}
"""By the kind of the Record."""
