"""Models that loop over depth: a state (tokens, features), sublayer by sublayer, with fused attention."""

import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt
from lyaptorch.cells import Depth

T, WIDTH, LOOPS = 3, 4, 2


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = (
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (2, -1)).transpose(1, 2) for z in self.qkv(self.norm(h)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return h + self.out(mixed.transpose(1, 2).flatten(2))


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(nn.functional.gelu(self.up(h)))


@pytest.fixture
def sublayers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Attention().double(), Mixing().double()


@pytest.fixture
def tokens():
    return torch.linspace(-1, 1, 2 * T * WIDTH, dtype=torch.float64).sin().reshape(2, T, WIDTH)


def dense(module, h: Tensor) -> Tensor:
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        J = torch.autograd.functional.jacobian(lambda z: module(z[None])[0], h)
    return J.reshape(T * WIDTH, T * WIDTH)


def test_growth_of_a_looped_transformer_is_split_by_sublayer(sublayers, tokens):
    k = 4
    spec = lt.depth_spectrum([*sublayers] * LOOPS, tokens, k=k)
    split = spec.growth.log_r.unflatten(0, (LOOPS, 2))
    # exponents per example, and per loop over both sublayers
    step = lambda x, h: sublayers[1](sublayers[0](h))  # noqa: E731
    cell = lt.as_cell(step)
    frame = lt.tangent.Stepper(Depth(sublayers, (T, WIDTH)), tokens, k=k).Q
    whole = lt.lyapunov_spectrum(cell, torch.zeros(LOOPS, 2, 1, dtype=torch.float64), h0=tokens, k=k)
    torch.testing.assert_close(split.sum(1), whole.growth.log_r, rtol=0, atol=1e-10)
    assert cell.unpack(whole.final_state).shape == (2, T, WIDTH)
    # each example against dense Jacobians
    h, Q = tokens, frame
    for i, grown in enumerate(spec.growth.log_r):
        module = sublayers[i % 2]
        Q, R = torch.linalg.qr(torch.stack([dense(module, one) for one in h]) @ Q)
        torch.testing.assert_close(R.diagonal(dim1=-2, dim2=-1).abs().log(), grown, rtol=0, atol=1e-10)
        h = module(h)


def test_fused_attention_is_flossed_by_its_plain_form(sublayers, tokens):
    weight = sublayers[0].qkv.weight
    cell = lt.as_cell(lambda x, h: sublayers[1](sublayers[0](h)))
    inputs = torch.zeros(2, 2, 1, dtype=torch.float64)

    def loss():
        return lt.lyapunov_spectrum(cell, inputs, h0=tokens, k=2).exponents.square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    assert cell.unfused
    assert not cell.reverse_mode
    with torch.no_grad():
        weight[5, 1] += 1e-5
        above = loss()
        weight[5, 1] -= 2e-5
        below = loss()
        weight[5, 1] += 1e-5
    torch.testing.assert_close((above - below) / 2e-5, gradient[5, 1], rtol=1e-5, atol=1e-9)
