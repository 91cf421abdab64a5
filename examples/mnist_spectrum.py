"""The Lyapunov spectrum of a torch.nn.RNN that reads MNIST digits pixel by pixel.

Save some digits as a .npy file, then measure the network on them:

    python examples/mnist_spectrum.py t10k-images-idx3-ubyte.gz mnist.npy
    lyap spectrum examples/mnist_spectrum.py:network --inputs mnist.npy --k 16
"""

from __future__ import annotations

import gzip
import sys

import numpy as np
import torch

DIGITS = 16


def network() -> torch.nn.RNN:
    """A freshly initialised recurrent network, as PyTorch makes it."""
    torch.manual_seed(0)
    return torch.nn.RNN(input_size=1, hidden_size=128)


def save_digits(source: str, target: str) -> None:
    """Write the first digits as `(784 steps, DIGITS trajectories, 1 channel)`, pixels in 0..1."""
    with gzip.open(source) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    np.save(target, pixels[:DIGITS].T[:, :, None] / 255.0)


if __name__ == "__main__":
    save_digits(*sys.argv[1:3])
