"""Three added lines in a Lightning script: a network learns the XOR of bits 15 and 30 steps ago.

Trains torch.nn.RNN twice from the same weights, without and with flossing, and prints the accuracy of both on
fresh bits. The lines that are marked are all that flossing adds (pip install lyaptorch[lightning]):

    python examples/lightning_delayed_xor.py
"""

import argparse
import logging
import warnings

import lightning
import torch

import lyaptorch as lt
from lyaptorch.integrations.lightning import FlossingCallback  # added, 1 of 3

DELAY, LENGTH, BATCH, UNITS = 30, 120, 16, 80


class Bits(torch.utils.data.Dataset):
    """Random bits `(t, 1)`, and the XOR of those 15 and 30 steps before, once both were shown."""

    def __init__(self, count: int, seed: int) -> None:
        x = torch.randint(0, 2, (count, LENGTH, 1), generator=torch.Generator().manual_seed(seed)).float()
        self.x, self.y = x, (x[:, DELAY // 2 : -DELAY // 2] - x[:, :-DELAY]).abs()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[i], self.y[i]


class Network(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(1, UNITS, batch_first=True)
        self.readout = torch.nn.Linear(UNITS, 1)
        torch.nn.init.normal_(self.rnn.weight_ih_l0)  # strong enough that the units are not all linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.rnn(x)[0][:, DELAY:])

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.binary_cross_entropy_with_logits(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def train(steps: int, floss: bool) -> float:
    lightning.seed_everything(0, verbose=False)
    model = Network()
    before = [lt.Trigger(lt.At(0), lt.FlossPhase(500, clip=1.0))] if floss else []
    flosser = lt.integrations.Flosser(model.rnn, lt.tasks.TemporalXOR(DELAY), before)  # added, 2 of 3
    trainer = lightning.Trainer(
        max_steps=steps,
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FlossingCallback(flosser)],  # added, 3 of 3
    )
    trainer.fit(model, torch.utils.data.DataLoader(Bits(steps * BATCH, seed=1), BATCH))
    test = Bits(100, seed=2)
    with torch.no_grad():
        return ((model(test.x) > 0) == (test.y > 0.5)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    for floss in (False, True):
        print(f"{'flossed' if floss else 'plain':8} accuracy {train(arguments.steps, floss):.3f}", flush=True)


if __name__ == "__main__":
    main()
