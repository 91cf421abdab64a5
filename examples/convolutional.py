"""The leading exponents of a convolutional recurrent network with 20 000 states, without its Jacobian.

The Jacobian would have 4e8 entries, 1.6 GB; tangent vectors are pushed through the convolution
instead.

    python examples/convolutional.py
    python examples/convolutional.py --side 25 --steps 20 --k 2
"""

from __future__ import annotations

import argparse
import resource
import sys

import torch
from torch import Tensor, nn

import lyaptorch as lt

CHANNELS = 2


class Convolutional(nn.Module):
    """h' = tanh(kernel * h + x): two channels on a torus, h as one vector per trajectory."""

    def __init__(self, side: int, gain: float) -> None:
        super().__init__()
        self.side = side
        self.kernel = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, padding_mode="circular", bias=False)
        with torch.no_grad():
            self.kernel.weight.normal_(std=gain / self.kernel.weight[0].numel() ** 0.5)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """The next state `(b, n)`."""
        field = self.kernel(h.reshape(-1, CHANNELS, self.side, self.side))
        return torch.tanh(field.reshape(h.shape) + x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--k", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = Convolutional(options.side, gain=2.0)
    n = CHANNELS * options.side**2
    inputs, h0 = 0.1 * torch.randn(options.steps + 50, 1, 1), torch.randn(1, n)
    spectrum = lt.lyapunov_spectrum(network, inputs, k=options.k, h0=h0, transient=50)
    loss = lt.flossing_loss(spectrum.exponents)
    (gradient,) = torch.autograd.grad(loss, network.kernel.weight)
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{n} states, {options.steps} steps")
    print("exponents", *[f"{rate:+.4f}" for rate in spectrum.exponents[0].tolist()])
    print(f"gradient of the flossing loss: norm {gradient.norm():.3g}")
    print(f"peak memory {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
