"""Three added lines in a loop with Accelerate: bfloat16 products, gradients accumulated over two batches.

A network learns the XOR of bits 15 and 30 steps ago. Prints its accuracy on fresh bits, without and with the
lines that are marked (pip install lyaptorch[transformers]); `accelerate launch` runs it on many processes:

    python examples/accelerate_delayed_xor.py
"""

import argparse

import accelerate
import torch

import lyaptorch as lt
from lyaptorch.integrations import Flosser  # added, 1 of 3

DELAY, LENGTH, BATCH, UNITS = 30, 120, 8, 80


def bits(count: int, seed: int) -> torch.utils.data.TensorDataset:
    """Random bits `(count, t, 1)`, and the XOR of those 15 and 30 steps before, once both were shown."""
    x = torch.randint(0, 2, (count, LENGTH, 1), generator=torch.Generator().manual_seed(seed)).float()
    return torch.utils.data.TensorDataset(x, (x[:, DELAY // 2 : -DELAY // 2] - x[:, :-DELAY]).abs())


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(1, UNITS, batch_first=True)
        self.readout = torch.nn.Linear(UNITS, 1)
        torch.nn.init.normal_(self.rnn.weight_ih_l0)  # strong enough that the units are not all linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.rnn(x)[0][:, DELAY:])


def train(steps: int, floss: bool) -> float:
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
    accelerate.utils.set_seed(0)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loader = torch.utils.data.DataLoader(bits(2 * steps * BATCH, seed=1), BATCH)
    before = [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(500, clip=1.0))] if floss else []
    flosser = Flosser(model.rnn, lt.tasks.TemporalXOR(DELAY), before)  # added, 2 of 3
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    flosser.step()  # added, 3 of 3: once, because all flossing is before training
    for x, y in loader:
        with accelerator.accumulate(wrapped):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(wrapped(x), y)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    x, y = bits(100, seed=2).tensors
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
