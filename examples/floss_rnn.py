# %% [markdown]
# # Floss a vanilla recurrent network
#
# The binary temporal XOR: say whether the bits 12 and 24 steps ago differ. Two networks, trained twice from
# the same weights: plain, and after gradient flossing (Engelken 2023, *Gradient Flossing*).
#
#     python examples/floss_rnn.py
#
# `--smoke` runs all of it at tiny size.

# %%
import sys

import torch

import lyaptorch as lt

SMOKE = "--smoke" in sys.argv
DELAY, UNITS, K, FLOSS, FIT = (4, 8, 4, 3, 3) if SMOKE else (24, 64, 60, 150, 300)
torch.set_num_threads(1)  # small products: threads would only wait

task = lt.tasks.TemporalXOR(DELAY)


def network():
    """Two networks of the published setting, the same ones every time."""
    return lt.presets.gf2023(task, hidden_size=UNITS, ensemble=(2,))


# %% [markdown]
# ## Before: the spectrum

# %%
bits = torch.randint(0, 2, (300, 1, 1), generator=torch.Generator().manual_seed(0)).float()


def spectrum(model):
    """The first K exponents on the task's inputs, one row for each network."""
    with torch.no_grad():
        found = lt.lyapunov_spectrum(model.cell, bits, k=K, transient=50, tangent_transient=50)
    return found.exponents[:, 0]


plain, flossed = network(), network()
print("plain     lambda_1, lambda_k:", *(f"{row[0]:+.2f} {row[-1]:+.2f};" for row in spectrum(plain)))

# %% [markdown]
# ## Floss, and look again

# %%
record = lt.floss(flossed.cell, task, k=K, epochs=FLOSS, lr=3e-3, clip=1.0)
print("flossed   lambda_1, lambda_k:", *(f"{row[0]:+.2f} {row[-1]:+.2f};" for row in spectrum(flossed)))

# %% mystnb={"image": {"alt": "Flossing loss and exponents over epochs"}}
record.plot()

# %% [markdown]
# ## Train both

# %%
for name, model in (("plain", plain), ("flossed", flossed)):
    trained = lt.train(model, task, (lt.FitPhase(FIT),), steps=100, clip=1.0)
    print(f"{name:9} accuracy", *(f"{value:.3f}" for value in trained["accuracy"][:, -20:].mean(1)))
