"""A network for `lyap`, to be filled in. It runs as it is.

    lyap spectrum mynet.py:network                             its Lyapunov spectrum, on white noise
    lyap spectrum mynet.py:network --inputs mynet.py:inputs    the same on your inputs
    lyap diagnose mynet.py:network --inputs mynet.py:inputs    what is wrong, and what to try
    lyap diagnose mynet.py:step --n 32 --inputs mynet.py:inputs    the same of a step of your own

`network` may have any name, and there may be many: lyap loads this file, and measures the one that you name.
"""

import torch
from torch import Tensor, nn

CHANNELS, UNITS = 1, 32  # of your inputs, of your network


def network() -> nn.Module:
    """Make the network; lyap calls what takes no arguments.

    It may be a torch.nn.RNN, LSTM or GRU, a module `forward(x, state) -> state`, a cell of lyaptorch, or a
    model with one of these in it, of which you name the part: mynet.py:network.rnn
    """
    torch.manual_seed(0)
    net = nn.LSTM(CHANNELS, UNITS)  # yours
    # net.load_state_dict(torch.load("weights.pt", weights_only=True))  # once it is trained
    return net.eval()


weight = torch.randn(UNITS, UNITS, generator=torch.Generator().manual_seed(0)) / UNITS**0.5


def step(x: Tensor, h: Tensor) -> Tensor:
    """One step of your own: inputs (b, CHANNELS) and states (b, n) to the next states; lyap is told --n."""
    return torch.tanh(h @ weight.T + x)


def inputs() -> Tensor:
    """What your network sees, (time, trajectories, channels): time first."""
    return torch.randn(1000, 4, CHANNELS, generator=torch.Generator().manual_seed(1))  # yours
