# %% [markdown]
# # Where a deep stack loses its gradient
#
# Blocks of a deep network are what steps are of a recurrent one: an exponent says how a gradient shrinks from
# block to block on its way back. A stack of 30 tanh layers, as torch starts it, loses the gradient; flossing
# over depth brings it back, and the stack learns.
#
#     python examples/deep_stack.py
#
# `--smoke` runs all of it at tiny size.

# %%
import sys

import torch
from torch import nn

import lyaptorch as lt

SMOKE = "--smoke" in sys.argv
DEPTH, WIDTH, K, FLOSS, FIT = (6, 8, 4, 4, 3) if SMOKE else (30, 32, 16, 60, 200)
torch.set_num_threads(1)  # small products: threads would only wait
torch.manual_seed(0)

blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(DEPTH))
readout = nn.Linear(WIDTH, 1)


def examples(count):
    """Normal numbers, and whether the first two of them differ in sign."""
    x = torch.randn(count, WIDTH)
    return x, ((x[:, 0] > 0) != (x[:, 1] > 0)).float()


def loss_of(x, target):
    """What each block gets, the loss, and the share of right answers."""
    layers = [x.requires_grad_()]
    for block in blocks:
        layers.append(block(layers[-1]))
    logits = readout(layers[-1])[:, 0]
    right = ((logits > 0) == (target > 0.5)).float().mean().item()
    return layers, nn.functional.binary_cross_entropy_with_logits(logits, target), right


# %% [markdown]
# ## Where it is lost
#
# Exponents over depth, and the gradient that a loss really sends back.


# %%
def report(name):
    """Exponents, and the gradient at some blocks as a part of that behind the last."""
    x, target = examples(32)
    with torch.no_grad():
        found = lt.depth_spectrum(blocks, x[:4], k=K)
    first, last = found.exponents.mean(0)[[0, -1]].tolist()
    layers, loss, _ = loss_of(x, target)
    norms = [gradient.norm() for gradient in torch.autograd.grad(loss, layers)]
    print(f"{name:8} lambda_1 {first:+.2f}; lambda_{K} {last:+.2f} nats per block")
    for i in range(0, DEPTH, DEPTH // 3):
        print(f"         gradient at block {i + 1:2}: {norms[i] / norms[-1]:.0e} of that behind the last")


report("plain")

# %% [markdown]
# ## Train it as it is
#
# The same steps for both, from the same weights.


# %%
def accuracy_after_training():
    """Adam for some steps; the weights are put back afterwards."""
    parts = nn.ModuleList([blocks, readout])
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    optimizer, rights = torch.optim.Adam(parts.parameters(), lr=1e-3), []
    for _ in range(FIT):
        _, loss, right = loss_of(*examples(128))
        rights.append(right)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
    parts.load_state_dict(before)
    return sum(rights[-20:]) / len(rights[-20:])


print(f"plain    accuracy {accuracy_after_training():.2f}")

# %% [markdown]
# ## Floss over depth
#
# `lt.cells.Depth` is the stack as a cell, so that whatever works on cells works on it.

# %%
x, _ = examples(4)
cell = lt.cells.Depth(blocks, (WIDTH,))
lt.floss(cell, cell.numbers(x), h0=x, k=K, steps=DEPTH, tangent_transient=0, epochs=FLOSS, lr=5e-3, clip=1.0)
report("flossed")
print(f"flossed  accuracy {accuracy_after_training():.2f}")
