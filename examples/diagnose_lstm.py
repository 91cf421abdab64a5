# %% [markdown]
# # Diagnose an LSTM
#
# An LSTM should repeat bits that it saw 25 steps before. As torch starts it, it stays at chance. We ask
# why, take the advice, and train again.
#
#     python examples/diagnose_lstm.py
#
# A script in the percent format: `jupytext --to ipynb` makes a notebook of it. `--smoke` runs all of it at
# tiny size.

# %%
import sys

import torch

import lyaptorch as lt

SMOKE = "--smoke" in sys.argv
DELAY, LENGTH, BATCH, UNITS, STEPS = (4, 12, 4, 8, 3) if SMOKE else (25, 80, 16, 32, 400)
torch.set_num_threads(1)  # small products: threads would only wait


def bits(generator):
    """Random bits `(t, b, 1)`, time first."""
    return torch.randint(0, 2, (LENGTH, BATCH, 1), generator=generator).float()


def network():
    """The same LSTM and readout every time."""
    torch.manual_seed(0)
    return torch.nn.LSTM(1, UNITS), torch.nn.Linear(UNITS, 1)


# %% [markdown]
# ## Why does it not learn?
#
# Before training, on inputs like those of the task. The horizon is how far back a gradient should reach.

# %%
lstm, readout = network()
inputs = torch.cat([bits(torch.Generator().manual_seed(i)) for i in range(5)])
found = lt.diagnose(lstm, inputs, k=min(16, 2 * UNITS), horizon=DELAY, name="lstm")
print(found)

# %% [markdown]
# The gradient is gone long before step 25: the forget gates stand at one half. One advice is to open them,
# each unit for another time.

# %%


def advised(lstm):
    """What the diagnosis says, for all trials of this length."""
    lstm.bias_hh_l0.data[..., UNITS : 2 * UNITS] = torch.linspace(2, LENGTH, UNITS).log()
    return lstm


# %% [markdown]
# ## Train, as it was and as advised


# %%
def train(lstm, readout):
    """The share of right answers on fresh bits, after training."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam([*lstm.parameters(), *readout.parameters()], lr=3e-3)
    for _ in range(STEPS):
        x = bits(generator)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(readout(lstm(x)[0])[DELAY:], x[:-DELAY])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*lstm.parameters(), *readout.parameters()], 1.0)
        optimizer.step()
    x = bits(generator)
    with torch.no_grad():
        return ((readout(lstm(x)[0])[DELAY:] > 0) == (x[:-DELAY] > 0.5)).float().mean().item()


lstm, readout = network()
print(f"as torch starts it: accuracy {train(lstm, readout):.2f}")
lstm, readout = network()
print(f"gates opened:       accuracy {train(advised(lstm), readout):.2f}")
