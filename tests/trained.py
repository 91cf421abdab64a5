"""Small networks that train fast, gradients to step with, and what is compared of them."""

import torch

import lyaptorch as lt
from lyaptorch.tasks import TemporalXOR

D, N, ROWS, LENGTH = 4, 8, 3, 16


SCAN = {"steps": 20, "tangent_transient": 5}


TASK = TemporalXOR(D)


MASK = torch.tensor([[False] * 3, [True, True, False]])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make(ensemble=(), members=None, **kw):
    kw = {"hidden_size": N, "rows": ROWS, "generator": seeded(3), **kw}
    return lt.presets.gf2023(TASK, ensemble=ensemble, member_ids=members, **kw)


def run(model, *schedule, task=TASK, **kw):
    kw = {"batch": ROWS, "steps": LENGTH, "generator": seeded(7), "show_progress": False, **kw}
    return lt.train(model, task, schedule, **kw)


def numbers(model, index=()):
    return [p.detach()[index].clone() for p in model.parameters()]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def each(value, index):
    """A member's own hyperparameter."""
    return value[index].item() if isinstance(value, torch.Tensor) else value


SHAPES = [(4, 3), (5,), ()]
"""Of the parameters of one member."""


ENSEMBLES = [(), (3,), (2, 3)]


EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""Both sides round differently at each of some hundred steps of size about lr."""


def indices(ensemble):
    return [tuple(i) for i in torch.ones(ensemble).nonzero().tolist()]


def gradients(ensemble, steps, seed=1):
    """Per step one for each parameter; sizes differ by orders of magnitude between members and steps."""
    g = torch.Generator().manual_seed(seed)
    scale = 10 ** (4 * torch.rand(steps, *ensemble, generator=g) - 2)
    return [
        [
            scale[s].reshape((*ensemble, *[1] * len(shape))) * torch.randn((*ensemble, *shape), generator=g)
            for shape in SHAPES
        ]
        for s in range(steps)
    ]


def parameters(ensemble):
    return [torch.randn((*ensemble, *shape)) for shape in SHAPES]
