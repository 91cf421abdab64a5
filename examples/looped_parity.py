# %% [markdown]
# # Which instances does a looped model get wrong?
#
# One block, run again and again on the same input, learns to say for each bit of a row whether the ones up
# to there are odd in number. It is trained on rows of 5 to 10 bits and asked about rows of 14, with twice as
# many passes as bits. Each instance is a trajectory of the loop, and has a first exponent of its own: whether
# its computation settles (below 0) or still moves (above 0). Does that tell solved ones from failed ones?
#
#     python examples/looped_parity.py
#
# prints, for three networks, how often a solved instance has the lower exponent of a solved and a failed one
# (.50: it says nothing), the range of the same in 19 of 20 shuffles of who failed, and, as a rival that costs
# nothing, the same of the size of the last step. `--smoke` runs all of it at tiny size.

# %%
import sys

import torch
from torch import Tensor, nn

import lyaptorch as lt

SMOKE = "--smoke" in sys.argv
WIDTH, FIT, SEEDS, INSTANCES, TRAINED, ASKED = (8, 60, 1, 60, 4, 4) if SMOKE else (16, 400, 3, 400, 10, 14)
SHUFFLES = 400


# %%
class Looped(nn.Module):
    """A gated convolution over the row, `forward(bits (b, l), h (b, width, l))`: one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new = (nn.Conv1d(WIDTH + 1, WIDTH, 3, padding=1) for _ in range(2))
        self.readout = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, bits: Tensor, h: Tensor) -> Tensor:
        """The state after one more pass."""
        seen = torch.cat([bits[:, None], h], 1)
        return h + torch.sigmoid(self.gate(seen)) * (torch.tanh(self.new(seen)) - h)

    def answers(self, h: Tensor) -> Tensor:
        """Logits `(b, l)`."""
        logits: Tensor = self.readout(h)[:, 0]
        return logits


def rows(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Bits as -1 and 1, and the parity up to each."""
    bits = torch.randint(2, (count, length))
    return 2.0 * bits - 1, (bits.cumsum(1) % 2).float()


def fit(net: Looped) -> None:
    """Train on short rows, with four passes more than bits."""
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(FIT):
        length = int(torch.randint(TRAINED // 2, TRAINED + 1, ()))
        (bits, parity), h = rows(64, length), torch.zeros(64, WIDTH, length)
        for _ in range(length + 4):
            h = net(bits, h)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net.answers(h), parity).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


# %% [markdown]
# ## One exponent for each instance
#
# The input of every pass is the row itself, so the inputs are that row, repeated.


# %%
def measured(net: Looped) -> tuple[Tensor, Tensor, Tensor]:
    """Who is solved, the first exponent in nats per pass, and the size of the last step, each `(b,)`."""
    bits, parity = rows(INSTANCES, ASKED)
    passes = bits.expand(2 * ASKED, *bits.shape)
    with torch.no_grad():
        spec = lt.lyapunov_spectrum(net, passes, h0=torch.zeros(len(bits), WIDTH, ASKED), k=1)
        h = spec.final_state.reshape(len(bits), WIDTH, ASKED)
        solved = ((net.answers(h) > 0) == (parity > 0)).all(1)
        return solved, spec.exponents[:, 0], (net(bits, h) - h).flatten(1).norm(dim=1)


def lower(score: Tensor, solved: Tensor) -> float:
    """How often, of a solved and a failed instance, the solved one has the lower score."""
    a, b = score[solved][:, None], score[~solved]
    return ((a < b).float() + 0.5 * (a == b)).mean().item()


# %%
if __name__ == "__main__":
    torch.set_num_threads(1)  # small products: threads would only wait
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = Looped()
        fit(net)
        solved, exponents, last = measured(net)
        apart = exponents[solved].mean(), exponents[~solved].mean()
        print(
            f"seed {seed}: solved {solved.float().mean():.2f}; lambda_1 of solved ones {apart[0]:+.3f}, ",
            end="",
        )
        print(f"of failed ones {apart[1]:+.3f} nats per pass")
        shuffled = torch.tensor(
            [lower(exponents, solved[torch.randperm(len(solved))]) for _ in range(SHUFFLES)]
        )
        low, high = shuffled.quantile(torch.tensor([0.025, 0.975]))
        print(
            f"    told apart by lambda_1 {lower(exponents, solved):.2f} (shuffled {low:.2f} to {high:.2f})",
            end="",
        )
        print(f", by the last step {lower(last, solved):.2f}")
