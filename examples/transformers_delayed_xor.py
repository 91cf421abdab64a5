"""Three added lines with transformers' Trainer: a network learns the XOR of bits 15 and 30 steps ago.

Trains a model on torch.nn.RNN twice from the same weights, without and with flossing, and prints the accuracy
of both on fresh bits. The lines that are marked are all that flossing adds
(pip install lyaptorch[transformers]):

    python examples/transformers_delayed_xor.py
"""

import argparse
import tempfile

import torch
import transformers

import lyaptorch as lt
from lyaptorch.integrations.transformers import FlossingCallback  # added, 1 of 3

DELAY, LENGTH, BATCH, UNITS = 30, 120, 16, 80


def bits(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Random bits `(t, 1)`, and the XOR of those 15 and 30 steps before, once both were shown."""
    x = torch.randint(0, 2, (count, LENGTH, 1), generator=torch.Generator().manual_seed(seed)).float()
    y = (x[:, DELAY // 2 : -DELAY // 2] - x[:, :-DELAY]).abs()
    return [{"x": one, "labels": answer} for one, answer in zip(x, y, strict=True)]


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(1, UNITS, batch_first=True)
        self.readout = torch.nn.Linear(UNITS, 1)
        torch.nn.init.normal_(self.rnn.weight_ih_l0)  # strong enough that the units are not all linear

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.readout(self.rnn(x)[0][:, DELAY:])
        return {
            "loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels),
            "logits": logits,
        }


def train(steps: int, floss: bool, folder: str) -> float:
    transformers.set_seed(0)
    model = Network()
    before = [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(500, clip=1.0))] if floss else []
    flosser = lt.integrations.Flosser(model.rnn, lt.tasks.TemporalXOR(DELAY), before)  # added, 2 of 3
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=False,
        ),
        train_dataset=bits(steps * BATCH, seed=1),
        callbacks=[FlossingCallback(flosser)],  # added, 3 of 3
    )
    trainer.train()
    test = torch.utils.data.default_collate(bits(100, seed=2))
    with torch.no_grad():
        return ((model(**test)["logits"] > 0) == (test["labels"] > 0.5)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small products: threads would only wait
    with tempfile.TemporaryDirectory() as folder:
        for floss in (False, True):
            accuracy = train(arguments.steps, floss, folder)
            print(f"{'flossed' if floss else 'plain':8} accuracy {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
