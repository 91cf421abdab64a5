# %% [markdown]
# # A spiking network of snntorch that learns to remember
#
# One of two groups of channels spikes for 5 steps; after 30 silent steps the network must say which. A
# recurrent layer as snntorch starts it, with a leak of 0.5, falls silent and forgets (lambda_1 = -0.65 nats
# per step): no spike and no gradient crosses the delay. Two exponents are flossed, and the same script
# trains:
#
#     python examples/snntorch_delayed.py
#
# Needs snntorch (`pip install lyaptorch[snn]`). `--smoke` runs all of it at tiny size.

# %%
import sys

import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

import lyaptorch as lt

SMOKE = "--smoke" in sys.argv
DELAY, FLOSS, FIT, SEEDS = (15, 2, 2, 2) if SMOKE else (30, 60, 240, 5)
CHANNELS, CUE, ANSWER, BATCH = 20, 5, 5, 32

# %% [markdown]
# ## The network and its task, as anybody would write them


# %%
class Net(nn.Module):
    """A recurrent spiking layer, one step at a time, and a readout of its spikes."""

    def __init__(self, n: int = 48, leak: float = 0.5) -> None:
        super().__init__()
        self.inputs = nn.Linear(CHANNELS, n)
        slope = surrogate.fast_sigmoid(5.0)
        self.spiking = snn.RLeaky(beta=leak, linear_features=n, spike_grad=slope, init_hidden=True)
        self.readout = nn.Linear(n, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The spikes `(batch, n)` of one step."""
        spikes: Tensor = self.spiking(self.inputs(x))
        return spikes

    def answer(self, x: Tensor) -> Tensor:
        """Logits `(batch, 2)` from the mean rates of the last steps of a trial `(steps, batch, channels)`."""
        rest = torch.zeros(x.shape[1], self.readout.in_features)
        self.spiking.mem, self.spiking.spk = rest, rest
        spikes = torch.stack([self(step) for step in x])
        logits: Tensor = self.readout(spikes[-ANSWER:].mean(0))
        return logits


def trials(count: int, delay: int) -> tuple[Tensor, Tensor]:
    """Spikes `(steps, count, channels)` and which group it was `(count,)`."""
    group = torch.randint(2, (count,))
    called = torch.arange(CHANNELS) // (CHANNELS // 2) == group[:, None]
    cue = called & (torch.rand(CUE, count, CHANNELS) < 0.5)
    return torch.cat([cue.float(), torch.zeros(delay + ANSWER, count, CHANNELS)]), group


# %% [markdown]
# ## What flossing adds


# %%
def floss(net: Net, delay: int, epochs: int = FLOSS) -> None:
    """What a user adds: push two exponents of the network, on its own inputs, to 0."""
    x = torch.cat([trials(2, delay)[0] for _ in range(2)])
    lt.floss(net, x, k=2, epochs=epochs, lr=1e-2, steps=45, tangent_transient=5, clip=1.0)


# %% [markdown]
# ## Training, and the first exponent


# %%
def fit(net: Net, delay: int, epochs: int) -> float:
    """Train in the ordinary way; the accuracy on fresh trials."""
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        x, group = trials(BATCH, delay)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.answer(x), group).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        x, group = trials(20 * BATCH, delay)
        return (net.answer(x).argmax(-1) == group).float().mean().item()


def exponent(net: Net, delay: int) -> float:
    """Lambda_1 over a trial, in nats per step."""
    with torch.no_grad():
        return lt.lyapunov_spectrum(net, trials(1, delay)[0], k=1).exponents.item()


# %% [markdown]
# ## Both, from the same seeds

# %%
if __name__ == "__main__":
    torch.set_num_threads(1)  # small products: threads would only wait
    for name in ("plain", "flossed"):
        scores = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            net = Net()
            if name == "flossed":
                floss(net, DELAY)
            before = exponent(net, DELAY)
            scores.append(fit(net, DELAY, FIT))
            print(f"{name:8} seed {seed}: lambda_1 {before:.2f} before training, accuracy {scores[-1]:.2f}")
        accuracy = torch.tensor(scores)
        print(f"{name:8} accuracy {accuracy.mean():.2f} +- {accuracy.std():.2f}, {SEEDS} seeds")
