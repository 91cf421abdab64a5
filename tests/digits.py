"""Files of MNIST's format, with drawn pixels."""

import torch

TRAIN, TEST, SIDE = 50, 20, 6


PIXELS = SIDE * SIDE


def idx(array):
    head = bytes([0, 0, 8, array.dim()]) + b"".join(int(s).to_bytes(4, "big") for s in array.shape)
    return head + bytes(array.flatten().tolist())


def drawn(*shape, below=256, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


BODIES = [
    idx(drawn(TRAIN, SIDE, SIDE)),
    idx(drawn(TRAIN, below=10, seed=1)),
    idx(drawn(TEST, SIDE, SIDE, seed=2)),
    idx(drawn(TEST, below=10, seed=3)),
]
