"""My LSTM does not learn 200 steps: from the first loss curve to the solved task, in a plain loop of torch.

Eight pulses, each up or down, then 200 steps of silence; at the end the network says what each of them was,
in their order. As torch starts an LSTM its loss stays at chance. The diagnosis says why; another start solves
the task. Prints what is found, and draws docs/images/lstm_200_steps.png:

    python examples/lstm_200_steps.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import lyaptorch as lt

PULSES, SILENCE, UNITS, BATCH = 8, 200, 64, 16
FIGURE = Path(__file__).parents[1] / "docs/images/lstm_200_steps.png"
torch.set_num_threads(1)  # small products: threads would only wait
torch.set_flush_denormal(True)  # gradients that vanish are slow to compute: a step takes ten times as long


def trials(generator: torch.Generator, silence: int) -> tuple[Tensor, Tensor]:
    """Inputs `(t, b, 1)` and which pulses were up, `(b, PULSES)`."""
    up = torch.randint(0, 2, (BATCH, PULSES), generator=generator).float()
    inputs = torch.zeros(PULSES + silence, BATCH, 1)
    inputs[:PULSES, :, 0] = 6 * up.T - 3
    return inputs, up


def network(seed: int, units: int) -> tuple[nn.LSTM, nn.Linear]:
    """The same LSTM and readout for a seed, as torch starts them."""
    torch.manual_seed(seed)
    return nn.LSTM(1, units), nn.Linear(units, PULSES)


def fit(lstm: nn.LSTM, readout: nn.Linear, seed: int, steps: int, silence: int) -> tuple[list[float], float]:
    """A loop like any other: the loss of each step, and the share of right answers to fresh trials."""
    generator = torch.Generator().manual_seed(seed)
    groups = [{"params": lstm.parameters(), "lr": 3e-4}, {"params": readout.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    losses = []
    for _ in range(steps):
        inputs, up = trials(generator, silence)
        loss = nn.functional.binary_cross_entropy_with_logits(readout(lstm(inputs)[0][-1]), up)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*lstm.parameters(), *readout.parameters()], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.no_grad():
        fresh = [trials(generator, silence) for _ in range(20)]
        right = [((readout(lstm(inputs)[0][-1]) > 0) == (up > 0.5)).float().mean() for inputs, up in fresh]
    return losses, torch.stack(right).mean().item()


def as_torch_starts_it(lstm: nn.LSTM, inputs: Tensor, seed: int) -> None:
    """Nothing is changed."""


def gates_opened(lstm: nn.LSTM, inputs: Tensor, seed: int) -> None:
    """Forget gates that hold, each unit for another time of up to the horizon."""
    n = lstm.hidden_size
    lstm.bias_hh_l0.data[n : 2 * n] = torch.linspace(2, len(inputs), n).log()


def mixing(lstm: nn.LSTM, inputs: Tensor, seed: int) -> None:
    """The cure: gates that let the candidate pass, which turns the state and keeps its size."""
    generator = torch.Generator().manual_seed(seed)
    lt.weights.mixing_(lstm, horizon=len(inputs), generator=generator)


Start = Callable[[nn.LSTM, Tensor, int], None]
STARTS: dict[str, tuple[Start, str]] = {
    "as torch starts it": (as_torch_starts_it, "#777777"),
    "gates opened": (gates_opened, "#D55E00"),
    "mixing": (mixing, "#0072B2"),
}


def smooth(values: Tensor, width: int = 20) -> Tensor:
    """Means over as many training steps."""
    width = min(width, values.shape[-1])
    return values.unfold(-1, width, 1).mean(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="of training")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each start")
    parser.add_argument("--silence", type=int, default=SILENCE, help="steps before the answer")
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    options = parser.parse_args()
    silence = options.silence
    inputs, _ = trials(torch.Generator().manual_seed(1), silence)

    lstm, _ = network(0, options.units)
    print(lt.diagnose(lstm, inputs, k=min(16, options.units), horizon=silence, name="lstm"))
    print(f"\nloss at chance: {math.log(2):.3f}")

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    curves, spectra, memories = figure.subplots(1, 3)
    lags = torch.arange(silence + 1)
    for name, (start, color) in STARTS.items():
        losses, right, rates, held = [], [], [], []
        for seed in range(options.seeds):
            lstm, readout = network(seed, options.units)
            start(lstm, inputs, seed)
            spectrum = lt.lyapunov_spectrum(
                lstm, inputs[:, :2], k=options.units, tangent_transient=silence // 10
            )
            rates.append(spectrum.exponents.mean(0).detach())
            held.append(lt.analysis.memory_capacity(lstm, silence + 1, inputs=inputs))
            curve, accuracy = fit(lstm, readout, seed, options.steps, silence)
            losses.append(torch.tensor(curve))
            right.append(accuracy)
        rate, capacity, loss = (torch.stack(values).mean(0) for values in (rates, held, losses))
        half = options.units // 2
        print(
            f"{name:20} lambda_1 {rate[0]:+.3f}; lambda_{half} {rate[half - 1]:+.3f};",
            f"loss {loss[-20:].mean():.3f}; accuracy", *[f"{share:.3f}" for share in right],
        )  # fmt: skip
        for one in losses:
            curves.plot(smooth(one), color=color, alpha=0.35, linewidth=0.8)
        curves.plot(smooth(loss), color=color, label=name)
        spectra.plot(torch.arange(1, options.units + 1), rate, color=color)
        memories.plot(lags, capacity.clamp(min=0).cumsum(0), color=color)
    curves.axhline(math.log(2), color="black", linestyle=":", linewidth=0.8)
    curves.set(xlabel="training step", ylabel="loss", ylim=(0, 0.8), title="training")
    curves.legend(loc="center right", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    spectra.axhline(0, color="black", linewidth=0.5)
    spectra.set(xlabel="index", ylabel="exponent per step", title="exponents, before")
    memories.set(xlabel="lag", ylabel="capacity, summed up to it", title="memory, before")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)


if __name__ == "__main__":
    main()
