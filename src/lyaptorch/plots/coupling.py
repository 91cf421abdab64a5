"""Figures of weakly coupled residual networks, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lyaptorch.plots.style import GREY, PALETTE, panels, style
from lyaptorch.record import Record


def fig2(record: Record) -> Figure:
    """Trajectories, exponents, gradients over time and Hessian eigenvalues; a colour for each r."""
    with style():
        figure, (states, spectra, norms, hessian) = panels(4)
        for i, r in enumerate(record["r"]):
            color, label = PALETTE[i % len(PALETTE)], f"$r = {r:g}$"
            states.plot(record["trajectory"][i], color=color, linewidth=0.8)
            spectra.axhline(np.log(r), color=color, linestyle=":", linewidth=0.8)
            spectra.plot(record["before"][i], color=color, label=label)
            spectra.plot(record["after"][i], color=color, linestyle="--", linewidth=0.8)
            norms.semilogy(record["gradient_norm"][i], color=color, label=label)
            hessian.semilogy(np.abs(record["hessian"][i]), "o-", color=color, markersize=3, label=label)
        states.set(xlabel="step", ylabel="state", title="Trajectories", yscale="symlog")
        spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
        norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
        hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
        spectra.legend(title="dashed: trained")
    return figure


def images(record: Record) -> Figure:
    """Test accuracy over task steps for each condition at its best learning rate."""
    orders = record["permuted"]
    with style():
        figure, axes = panels(2 * len(orders))
        for order, permuted in enumerate(orders):
            _curves(axes[2 * order], record, order, "permuted" if permuted else "in order")
            _power(axes[2 * order + 1], record, order)
    return figure


def fig4(record: Record) -> Figure:
    """Best test accuracy against the angle, with the spectrum of the data."""
    orders, multiples = record["permuted"], record.config["multiples"]
    with style():
        figure, axes = panels(2 * len(orders))
        for order, permuted in enumerate(orders):
            left, right = axes[2 * order], axes[2 * order + 1]
            for j, lr in enumerate(record["learning_rate"]):
                scores = record["best_accuracy"][order][:, j]
                left.plot(multiples, scores, ".", color=PALETTE[j], alpha=0.4)
                left.plot(multiples, scores.mean(-1), "o-", color=PALETTE[j], label=f"{lr:g}")
            left.set(
                xlabel=r"angle / $\omega_0$",
                ylabel="best test accuracy",
                title="permuted" if permuted else "in order",
            )
            left.legend(title="learning rate")
            _power(right, record, order)
    return figure


def fig5(record: Record) -> Figure:
    """Accuracy, exponents, fading memory, gradients and Hessian, a colour for each spread of the decays."""
    with style():
        figure, (accuracy, spectra, memory, norms, hessian) = panels(5, width=3.0)
        _curves(accuracy, record, 0, "Learning")
        for i, name in enumerate(record["condition"]):
            color, label = PALETTE[i % len(PALETTE)], rf"$\delta = {name}$"
            spectra.plot(record["exponents"][i].mean(0), "o-", color=color, markersize=3, label=label)
            memory.semilogy(record["fading_memory"][i].mean(0), color=color, label=label)
            norms.semilogy(record["gradient_norm"][i].mean(0), color=color)
            hessian.semilogy(np.abs(record["hessian"][i]).mean(0), "o-", color=color, markersize=3)
        spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
        memory.set(xlabel="steps", ylabel="perturbation left", title="Fading memory")
        norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
        hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
        memory.legend()
    return figure


def table1(record: Record) -> Figure:
    """Error over task steps, a line for each network, a colour for each kind."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        for i, name in enumerate(record["network_name"]):
            curves = record["test_loss"][i]
            axes.plot(record["measured_at"], curves.T, color=PALETTE[i], alpha=0.3, linewidth=0.7)
            axes.plot(record["measured_at"], np.median(curves, 0), color=PALETTE[i], label=str(name))
        axes.axhline(6**-0.5, color=GREY, linestyle=":", linewidth=0.8)
        axes.set(xlabel="task step", ylabel="RMS error", title="Adding problem", ylim=(0, 0.8))
        axes.legend()
    return figure


def _curves(axes: Axes, record: Record, order: int, title: str) -> None:
    for i, name in enumerate(record["condition"]):
        scores = np.nan_to_num(record["best_accuracy"][order][i]).mean(-1)
        best = int(scores.argmax())
        curves = record["test_accuracy"][order][i, best]
        axes.plot(record["measured_at"], curves.T, color=PALETTE[i % len(PALETTE)], alpha=0.3, linewidth=0.7)
        axes.plot(record["measured_at"], curves.mean(0), color=PALETTE[i % len(PALETTE)], label=str(name))
    axes.set(xlabel="task step", ylabel="test accuracy", title=title, ylim=(0, 1.03))
    axes.legend()


def _power(axes: Axes, record: Record, order: int) -> None:
    power = record["power"][order][1:]
    bins = np.arange(1, len(power) + 1)
    axes.semilogy(bins, power / power.mean(), color=GREY, linewidth=0.8)
    axes.axhline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    axes.set(xlabel="bin", ylabel="power / mean", title="Spectrum of the data")
