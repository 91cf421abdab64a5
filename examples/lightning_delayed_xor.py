# %% [markdown]
# # Three added lines in a Lightning script
#
# A network learns the XOR of the bits 15 and 30 steps ago. It is trained twice from the same weights, without
# and with flossing, and says how often it is right on fresh bits. The lines that are marked are all that
# flossing adds (`pip install lyaptorch[lightning]`):
#
#     python examples/lightning_delayed_xor.py
#
# `--smoke` runs all of it at tiny size.

# %%
import logging
import sys
import warnings

import lightning
import torch

import lyaptorch as lt
from lyaptorch.integrations.lightning import FlossingCallback  # added, 1 of 3

SMOKE = "--smoke" in sys.argv
DELAY, LENGTH, BATCH, UNITS = 30, 120, 16, 80
STEPS, FLOSS = (2, 2) if SMOKE else (500, 500)
torch.set_num_threads(1)  # small products: threads would only wait
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*does not have many workers.*")

# %% [markdown]
# ## Data and network, as anybody would write them


# %%
class Bits(torch.utils.data.Dataset):
    """Random bits `(t, 1)`, and the XOR of those 15 and 30 steps before, once both were shown."""

    def __init__(self, count, seed):
        x = torch.randint(0, 2, (count, LENGTH, 1), generator=torch.Generator().manual_seed(seed)).float()
        self.x, self.y = x, (x[:, DELAY // 2 : -DELAY // 2] - x[:, :-DELAY]).abs()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.RNN(1, UNITS, batch_first=True)
        self.readout = torch.nn.Linear(UNITS, 1)
        torch.nn.init.normal_(self.rnn.weight_ih_l0)  # strong enough that the units are not all linear

    def forward(self, x):
        return self.readout(self.rnn(x)[0][:, DELAY:])

    def training_step(self, batch, index):
        x, y = batch
        return torch.nn.functional.binary_cross_entropy_with_logits(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


# %% [markdown]
# ## Train, without and with flossing before the first step


# %%
def train(floss):
    """The share of right answers on fresh bits, after training."""
    lightning.seed_everything(0, verbose=False)
    model = Network()
    before = [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(FLOSS, clip=1.0))] if floss else []
    flosser = lt.integrations.Flosser(model.rnn, lt.tasks.TemporalXOR(DELAY), before)  # added, 2 of 3
    trainer = lightning.Trainer(
        max_steps=STEPS,
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FlossingCallback(flosser)],  # added, 3 of 3
    )
    trainer.fit(model, torch.utils.data.DataLoader(Bits(STEPS * BATCH, seed=1), BATCH))
    test = Bits(100, seed=2)
    with torch.no_grad():
        return ((model(test.x) > 0) == (test.y > 0.5)).float().mean().item()


# %%
for floss in (False, True):
    print(f"{'flossed' if floss else 'plain':8} accuracy {train(floss):.3f}", flush=True)
