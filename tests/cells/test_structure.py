"""States of any shape: matrices, complex numbers, half precision, caches; what is said where they fail."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import lyaptorch as lt
import reference

F64 = torch.float64
B = 3


class Cache:
    """Two layers' memories, a counter that moves, and what a cache has besides."""

    def __init__(self, layers, seen=0):
        self.layers, self.seen, self.dtype, self.full = layers, seen, torch.float64, False


@pytest.fixture
def keys():
    return torch.nn.functional.normalize(torch.randn(7, B, 4, dtype=F64), dim=-1)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


def delta(x: Tensor, S: Tensor) -> Tensor:
    """S (b, d_v, d_k) forgets along the key."""
    along = torch.einsum("bvk,bk->bv", S, x)
    return S - 0.6 * torch.einsum("bv,bk->bvk", along, x)


def flat(x, S):
    return delta(x, S.reshape(len(x), 2, 4)).flatten(1)


def in_place(x, cache):
    for S in cache.layers.values():
        S.copy_(delta(x, S))
    cache.seen += 1
    return cache


@dataclasses.dataclass
class Pair:
    S: Tensor
    position: Tensor


def test_a_matrix_state_has_the_exponents_of_its_numbers(keys):
    S, frame = torch.randn(B, 2, 4, dtype=F64), reference.random_frame(8, 8)
    expected = lt.lyapunov_spectrum(flat, keys, h0=S.flatten(1), frame=frame)
    cell = lt.as_cell(delta)
    found = lt.lyapunov_spectrum(cell, keys, h0=S, frame=frame)
    assert torch.equal(found.exponents, expected.exponents)
    assert cell.unpack(found.final_state).shape == (B, 2, 4)
    # tangent vectors come apart as states do
    assert cell.unpack(found.final_frame.mT).shape == (B, 8, 2, 4)
    packed = lt.as_cell(delta, state=S[:1])
    again = lt.lyapunov_spectrum(packed, keys, h0=S.flatten(1), frame=frame).exponents
    assert torch.equal(again, expected.exponents)


def test_a_cache_that_is_written_into_gives_exponents_and_gradients(keys):
    S, weight = torch.randn(B, 2, 4, dtype=F64), torch.tensor(0.9, dtype=F64, requires_grad=True)

    def loss(step, h0, take):
        cell = lt.as_cell(step)
        spec = lt.lyapunov_spectrum(cell, keys[:4], h0=h0, k=3)
        value = spec.exponents.square().sum()
        return value.detach(), torch.autograd.grad(value, weight)[0], take(cell.unpack(spec.final_state))

    def own(x, cache):
        for S in cache.layers.values():
            S.mul_(weight).copy_(torch.tanh(delta(x, S)))
            S[:, 0] += 0.1 * weight * S[:, 1]
        cache.seen += 1
        return cache

    def plain(x, S):
        T = torch.tanh(delta(x, S * weight))
        return torch.stack([T[:, 0] + 0.1 * weight * T[:, 1], T[:, 1]], 1)

    cache = Cache({0: S.clone()}, seen=5)
    for one, two in zip(loss(own, cache, lambda c: c.layers[0]), loss(plain, S, lambda z: z), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    # nothing was written into what the user has
    assert torch.equal(cache.layers[0], S)
    assert cache.seen == 5


def test_what_is_no_number_travels_and_has_no_tangent(keys):
    S = torch.randn(B, 2, 4, dtype=F64)
    cell = lt.as_cell(in_place)
    spec = lt.lyapunov_spectrum(cell, keys, h0=Cache({0: S, 1: 2 * S}))
    assert spec.exponents.shape == (B, 16)
    assert torch.isfinite(spec.exponents).all()
    last = cell.unpack(spec.final_state)
    assert (last.seen, last.full, sorted(cell.parts())) == (7, False, ["layers.0", "layers.1"])
    assert not spec.final_frame[:, 16:].any()

    def late(x, s):
        # the key of a step is chosen by the trajectory's own position
        return Pair(torch.where((s.position > 4)[:, None, None], s.S, delta(x, s.S)), s.position + 1)

    h0 = Pair(S, torch.tensor([0, 3, 20]))
    found = lt.lyapunov_spectrum(late, keys, h0=h0, k=8)
    assert found.exponents.shape == (B, 8)
    torch.testing.assert_close(found.exponents[2], torch.zeros(8, dtype=F64), rtol=0, atol=1e-14)
    assert (found.exponents[0].min() < found.exponents[1].min()).all()


def test_a_complex_part_counts_real_and_imaginary():
    rate = torch.tensor([0.9, 0.5 + 0.3j], dtype=torch.complex128)
    cell = lt.as_cell(lambda x, s: {"z": rate * s["z"] + x, "r": 0.7 * s["r"]})
    h0 = {"z": torch.ones(1, 2, dtype=torch.complex128), "r": torch.ones(1, 1, dtype=F64)}
    spec = lt.lyapunov_spectrum(cell, torch.zeros(40, 1, 1, dtype=F64), h0=h0, frame=torch.eye(5, dtype=F64))
    expected = torch.cat([rate.abs().log().repeat_interleave(2), torch.tensor([0.7], dtype=F64).log()])
    torch.testing.assert_close(spec.exponents[0], expected, rtol=0, atol=1e-12)
    assert cell.unpack(spec.final_state)["z"].dtype == torch.complex128
    alone = lt.lyapunov_spectrum(lambda x, z: rate * z, torch.zeros(9, 1, 1, dtype=F64), h0=h0["z"])
    torch.testing.assert_close(alone.exponents.sum(), 2 * rate.abs().log().sum(), rtol=0, atol=1e-12)


def test_half_precision_is_computed_in_float32():
    seen = []

    def step(x, s):
        seen.append(s[0].dtype)
        return 0.5 * s[0] + x, s[1]

    h0 = torch.ones(1, 2, dtype=torch.bfloat16), torch.ones(1, 1)
    found = lt.lyapunov_spectrum(step, torch.zeros(5, 1, 1), h0=h0, frame=torch.eye(3)).exponents
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(found[0], torch.tensor([0.5, 0.5, 1.0]).log())
    alone = lt.lyapunov_spectrum(lambda x, h: 0.5 * h, torch.zeros(5, 1, 1), h0=h0[0], k=1).exponents
    torch.testing.assert_close(alone[0], torch.tensor([0.5]).log())


A, N = torch.ones(B, 2, dtype=F64), torch.ones(B, 2, 4, dtype=F64)


@pytest.mark.parametrize(
    ("step", "h0", "message"),
    [
        (
            lambda x, s: s,
            {"keys": A, "values": A.to("meta")},
            r"^the parts of a state must be on one device, got keys on cpu, values on meta of a dict ",
        ),
        (
            lambda x, s: {"keys": torch.cat([s["keys"], s["keys"][:, :1]], 1)},
            {"keys": N},
            r"^part keys of the state must keep its shape \(3, 2, 4\), got \(3, 3, 4\); a cache that grows",
        ),
        (
            lambda x, s: {**s, "extra": A},
            {"h": A},
            r"^the state must remain a dict of h: \(..., 2,\), got a dict of .* \(new extra\)",
        ),
        (
            lambda x, s: {"h": s["h"].to(torch.complex128)},
            {"h": A},
            r"^part h of the state must remain real, torch.float64 as in h0, got complex numbers, ",
        ),
        (
            lambda x, s: {"z": s["z"].real},
            {"z": A + 1j},
            r"^part z of the state must remain complex, .* got real numbers, torch.float64",
        ),
        (
            lambda x, s: (s[0].half(), s[1]),
            (A, A),
            r"^part 0 of the state must come back in torch.float64, .* got torch.float16; leave casts out",
        ),
        (
            lambda x, s: SimpleNamespace(h=s.h, on=True),
            SimpleNamespace(h=A, on=False),
            r"^what is no tensor in a state must stay as it is, got it.on False before a step and True after",
        ),
        (
            lambda x, s: {"h": s["h"], "t": s["t"] / 2},
            {"h": A, "t": torch.ones(B, dtype=torch.int64)},
            r"^part t of the state must remain \(3,\) torch.int64, got \(3,\) torch.float",
        ),
        (
            lambda x, s: {"h": s["h"], "t": s["t"] + 1},
            {"h": A.float(), "t": 2**24},
            r"^part t of the state must hold whole numbers that torch.float32 holds exactly, up to 2\^24",
        ),
        (
            lambda x, s: s,
            {"h": A, "scale": torch.ones((), dtype=F64)},
            r"^the floating parts of a state must have .* with \(3,\) in front, .* scale: \(\)",
        ),
        (
            lambda x, s: s,
            torch.ones(B, B, 2, dtype=F64),
            r"^the state must tell trajectories from an ensemble, got \(3, 3, 2\) .* fit in two ways",
        ),
        (
            lambda x, s: s + x.unsqueeze(1) @ x,
            N,
            r"^step\(x, h\) failed for x \(3, 1\) and h \(3, 2, 4\)",
        ),
    ],
)
def test_a_state_that_cannot_be_is_refused(step, h0, message):
    dtype = torch.float32 if isinstance(h0, dict) and h0.get("h", A).dtype == torch.float32 else F64
    with pytest.raises(ValueError, match=message):
        lt.lyapunov_spectrum(step, torch.zeros(3, B, 1, dtype=dtype), h0=h0)


def test_a_frame_moves_nothing_that_only_travels(keys):
    h0, k = Cache({0: torch.randn(B, 2, 4, dtype=F64)}), 8
    with pytest.raises(
        ValueError, match=r"k must be an integer in 1..8, got 9; a state of size 9, 1 of which"
    ):
        lt.lyapunov_spectrum(in_place, keys, h0=h0, k=9)
    with pytest.raises(ValueError, match=r"frame must be zero in the last 1 entries of the state"):
        lt.lyapunov_spectrum(in_place, keys, h0=h0, frame=reference.random_frame(9, k))


def test_a_list_of_modules_takes_states_of_any_shape():
    class Memory(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.rand((), dtype=F64))

        def forward(self, x, s):
            return {"S": self.gain * s["S"], "t": s["t"] + 1}

    modules = [Memory(), Memory()]
    h0 = {"S": torch.ones(2, B, 2, 2, dtype=F64), "t": torch.zeros(2, B, dtype=torch.int64)}
    found = lt.lyapunov_spectrum(modules, torch.zeros(5, B, 1, dtype=F64), h0=h0).exponents
    assert found.shape == (2, B, 4)
    expected = torch.stack([m.gain.log() for m in modules])[:, None, None].expand(2, B, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_diagnose_tells_the_parts_of_a_cache_apart(keys):
    def step(x, s):
        return {"kept": 0.99 * s["kept"], "lost": 0.2 * s["lost"], "t": s["t"] + 1}

    h0 = {"kept": torch.ones(B, 1, 2, dtype=F64), "lost": torch.ones(B, 2, dtype=F64), "t": 0}
    found = lt.diagnose(step, keys, h0=h0)
    assert found.measured.parts.names == ("kept", "lost")
    assert "kept carries the memory" in str(found)
