"""Three added lines in a training loop of one's own: a network learns the XOR of bits 15 and 30 steps ago.

Trains torch.nn.RNN twice from the same weights, without and with the lines that are marked, and prints the
accuracy of both on fresh bits:

    python examples/plain_delayed_xor.py
"""

import argparse

import torch

import lyaptorch as lt
from lyaptorch.integrations import Flosser  # added, 1 of 3

DELAY, LENGTH, BATCH, UNITS = 30, 120, 16, 80


def bits(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random bits `(count, t, 1)`, and the XOR of those 15 and 30 steps before, once both were shown."""
    x = torch.randint(0, 2, (count, LENGTH, 1), generator=generator).float()
    return x, (x[:, DELAY // 2 : -DELAY // 2] - x[:, :-DELAY]).abs()


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(1, UNITS, batch_first=True)
        self.readout = torch.nn.Linear(UNITS, 1)
        torch.nn.init.normal_(self.rnn.weight_ih_l0)  # strong enough that the units are not all linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.rnn(x)[0][:, DELAY:])


def train(steps: int, floss: bool) -> float:
    torch.manual_seed(0)
    model, generator = Network(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(500, clip=1.0))] if floss else []
    flosser = Flosser(model.rnn, lt.tasks.TemporalXOR(DELAY), before)  # added, 2 of 3
    for _ in range(steps):
        flosser.step()  # added, 3 of 3
        x, y = bits(BATCH, generator)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    x, y = bits(100, generator)
    with torch.no_grad():
        return ((model(x) > 0) == (y > 0.5)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    for floss in (False, True):
        print(f"{'flossed' if floss else 'plain':8} accuracy {train(arguments.steps, floss):.3f}", flush=True)


if __name__ == "__main__":
    main()
