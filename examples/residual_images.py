# %% [markdown]
# # Weakly coupled residual networks read images
#
# Pixel by pixel, row after row; the class comes last. A residual that turns by one full circle for each row
# of pixels sees a column of the picture as a phase, and keeps it. One ensemble, three residuals, trained at
# once: the identity, a rotation, and a rotation with heterogeneous decays (Dubinin & Effenberger 2024,
# *Fading memory as inductive bias in residual recurrent networks*).
#
#     python examples/residual_images.py
#     python examples/residual_images.py --mnist   # digits, from LYAPTORCH_DATA or the net; takes long
#
# Without `--mnist` the images are made here: a bright bar in the upper half, in one of seven places, and
# noise. `--smoke` runs all of it at tiny size.

# %%
import math
import sys

import torch

import lyaptorch as lt
from lyaptorch.tasks.batch import Draw

SMOKE, MNIST = "--smoke" in sys.argv, "--mnist" in sys.argv
UNITS, BATCH, STEPS = (4, 4, 2) if SMOKE else (48, 32, 250)
SIDE, CLASSES = (28, 10) if MNIST else (14, 7)
torch.set_num_threads(1)  # small products: threads would only wait
generator = torch.Generator().manual_seed(0)


def bars(count):
    """Images as sequences `(SIDE^2, count, 1)`, and the place of each bar `(count,)`."""
    place = torch.randint(CLASSES, (count,), generator=generator)
    image = 0.2 * torch.rand(count, SIDE, SIDE, generator=generator)
    columns = torch.arange(SIDE) // 2 == place[:, None]
    image[:, : SIDE // 2] += 0.8 * columns[:, None]
    return image.reshape(count, -1).T[..., None], place


def digits(count, epoch=[0]):  # noqa: B006
    """The same of MNIST, another batch each time."""
    epoch[0] += 1
    task = lt.tasks.SequentialImages("mnist")
    batch = task.draw(Draw(0, task.length, count, epoch=epoch[0]))
    return batch.inputs, batch.targets[-1, :, 0].long()


draw = digits if MNIST else bars

# %% [markdown]
# ## Three residuals in one ensemble
#
# Angles are one for each pair of units, decays and couplings one for each unit.

# %%
NAMES = ("identity", "rotation", "heterogeneous")
turn = 2 * math.pi / SIDE
angles = torch.stack(
    [
        torch.zeros(UNITS // 2),
        torch.full((UNITS // 2,), turn),
        2 * turn * torch.rand(UNITS // 2, generator=generator),
    ]
)
decays = torch.ones(3, UNITS)
decays[2] = 0.98 + 0.02 * torch.rand(UNITS, generator=generator)
cell = lt.ResidualCell(
    1,
    UNITS,
    residual=lt.residuals.rotation(angles) @ lt.residuals.decay(decays),
    coupling=0.03,
    ensemble=(3,),
    member_ids=torch.zeros(3, dtype=torch.int64),  # the same weights in all three
)
readout = lt.Readout(
    UNITS,
    CLASSES,
    scale=(3 * UNITS) ** -0.5,
    ensemble=(3,),
    member_ids=torch.zeros(3, dtype=torch.int64),
)
model = lt.Model(cell, readout, loss="cross_entropy")

# %% [markdown]
# ## What the residual says of memory, before training
#
# Exponents lie close to the logarithms of the residual's decays: by design they are neither far above zero
# nor far below.

# %%
with torch.no_grad():
    exponents = lt.lyapunov_spectrum(cell, draw(2)[0], k=2).exponents.mean(1)
for name, rates in zip(NAMES, exponents, strict=True):
    print(f"{name:14} lambda_1 {rates[0]:+.4f}")

# %% [markdown]
# ## Train
#
# The losses of independent networks are summed, and Adam treats each number apart: each trains as it would
# alone.

# %%
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(STEPS):
    x, label = draw(BATCH)
    answers = readout(model.states(x, first=len(x) - 1)[-1])
    loss = -answers.log_softmax(-1)[:, torch.arange(BATCH), label].mean(-1).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
x, label = draw(8 if SMOKE else 400)
with torch.no_grad():
    right = (readout(model.states(x, first=len(x) - 1)[-1]).argmax(-1) == label).float().mean(-1)
for name, share in zip(NAMES, right, strict=True):
    print(f"{name:14} accuracy {share:.2f} (chance {1 / CLASSES:.2f})")
