# %% [markdown]
# # A sweep, on processes of this machine or on Ray
#
# Which gain should a network start with to copy over a delay? A grid of gains and delays; runs that may
# share an ensemble do, and workers share the rest. Kill it at any moment: the same command does what is
# missing.
#
#     python examples/sweep_gain.py            # two processes
#     python examples/sweep_gain.py --ray      # Ray, started on this machine (pip install lyaptorch[ray])
#
# For a grid of the tasks that are there, `lyap sweep` needs no script. `--smoke` runs all of it at tiny
# size.

# %%
import sys
from pathlib import Path

import torch

import lyaptorch as lt
from lyaptorch.sweep import Processes, Ray, gather, grid, sweep

SMOKE = "--smoke" in sys.argv
AXES = {"gain": [0.8, 1.2], "delay": [2]} if SMOKE else {"gain": [0.5, 0.8, 1.1, 1.4], "delay": [5, 10, 15]}
COMMON = {"units": 8, "steps": 2} if SMOKE else {"units": 48, "steps": 400}
FOLDER = Path("runs/sweep-gain-smoke" if SMOKE else "runs/sweep-gain")

# %% [markdown]
# ## One pack of runs
#
# It gets the configurations of an ensemble, and returns one Record with a dimension `member`. Gains and
# delays may differ within an ensemble; sizes may not.

# %%


def copies(configs, checkpoint):
    """Train one network for each configuration, all at once, and say how well each copies."""
    torch.set_num_threads(1)
    settings, e = configs[0], (len(configs),)
    gains = torch.tensor([config["gain"] for config in configs])
    task = lt.tasks.DelayedCopy(torch.tensor([config["delay"] for config in configs]), binary=True)
    model = lt.presets.gf2023(task, hidden_size=settings["units"], gain=gains, ensemble=e)
    record = lt.train(
        model, task, (lt.FitPhase(settings["steps"]),), steps=60, clip=1.0, checkpoint=checkpoint
    )
    exponents = lt.lyapunov_spectrum(model.cell, torch.zeros(200, 1, 1), k=1, transient=100).exponents
    return lt.Record(
        "copies",
        {},
        {
            "accuracy": (("member",), record["accuracy"][:, -10:].mean(1)),
            "lambda1": (("member",), exponents[:, 0, 0].detach()),
        },
    )


def same_sizes(config):
    """Runs for which this is the same text may share an ensemble."""
    return f"{config['units']} {config['steps']}"


# %% [markdown]
# ## The grid
#
# What is finished lies in the folder as Records, and is not done again.

# %%
if __name__ == "__main__":
    workers = Ray("local") if "--ray" in sys.argv else Processes(2)
    plan = sweep(
        copies, grid(COMMON, AXES), FOLDER, name="copies", together=same_sizes, most=4, workers=workers
    )
    table = gather(plan, COMMON, AXES, name="copies")
    print("accuracy", "".join(f"  delay {delay:3}" for delay in AXES["delay"]))
    for gain, row in zip(AXES["gain"], table["accuracy"], strict=True):
        print(f"gain {gain:.1f}", "".join(f"{value:11.2f}" for value in row))
