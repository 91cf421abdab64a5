import itertools
import statistics

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyaptorch import _random
from lyaptorch._random import DEFAULT_SEED, Stream, bits, ids_of, seed_from

STREAM = Stream(seed=7, name="weight_hh")
WORD = (1 << 64) - 1

DRAWS = {
    "bits": lambda members, epoch=0: STREAM.bits((3, 5), member_ids=members, epoch=epoch),
    "uniform": lambda members, epoch=0: STREAM.uniform((3, 5), member_ids=members, epoch=epoch),
    "normal": lambda members, epoch=0: STREAM.normal((3, 5), member_ids=members, epoch=epoch),
    "bernoulli": lambda members, epoch=0: STREAM.bernoulli((3, 5), member_ids=members, epoch=epoch),
    "permutation": lambda members, epoch=0: STREAM.permutation(15, member_ids=members, epoch=epoch),
}


def finaliser(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def splitmix64(state: int) -> int:
    return finaliser((state + 0x9E3779B97F4A7C15) & WORD)


def key_of_integers(seed: int, stream: str, member: int, epoch: int) -> int:
    key = splitmix64(seed)
    for part in [*stream.encode(), 256, member, epoch]:
        key = splitmix64((key + part) & WORD)
    return key


def bits_of_integers(seed: int, stream: str, member: int, epoch: int, index: int) -> int:
    key = key_of_integers(seed, stream, member, epoch)
    return finaliser((finaliser((key + index) & WORD) + key) & WORD)


def unsigned(words: torch.Tensor) -> np.ndarray:
    return words.numpy().view(np.uint64)


def signs(words: torch.Tensor) -> torch.Tensor:
    """Every bit of every word as -1 or 1, in a matrix (words, 64)."""
    return ((words.reshape(-1, 1) >> torch.arange(64)) & 1).double() * 2 - 1


def normal_of(words: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtri(_random._OF_BITS["midpoints"](words, torch.float64))


# Identities


def test_mix_gives_the_published_splitmix64_sequence():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [(1234567 + i * 0x9E3779B97F4A7C15) & WORD for i in range(5)]
    assert [splitmix64(s) for s in states] == published
    assert [_random._mix(s) & WORD for s in states] == published
    tensor = torch.from_numpy(np.array(states, dtype=np.uint64).view(np.int64))
    assert unsigned(_random._mix(tensor)).tolist() == published


def test_mix_leaves_its_argument_alone():
    states = torch.arange(5)
    _random._mix(states)
    assert states.tolist() == [0, 1, 2, 3, 4]


@given(
    seed=st.integers(0, WORD),
    name=st.text(max_size=8),
    counters=st.tuples(*[st.integers(-(1 << 63), (1 << 63) - 1)] * 3),
)
@settings(deadline=None)
def test_bits_of_tensors_and_of_ints_equal_big_integer_arithmetic(seed, name, counters):
    expected = bits_of_integers(seed, name, *counters)
    for kinds in itertools.product([int, torch.tensor], repeat=3):
        parts = [kind(c) for kind, c in zip(kinds, counters, strict=True)]
        drawn = bits(seed, name, *parts)
        assert drawn.shape == ()
        assert drawn.item() & WORD == expected


def test_every_draw_is_its_formula_of_the_bits():
    words = [bits_of_integers(7, "weight_hh", 3, 2, i) for i in range(15)]
    drawn = {kind: draw(3, 2).flatten().tolist() for kind, draw in DRAWS.items()}
    assert [word & WORD for word in drawn["bits"]] == words
    assert drawn["uniform"] == [(word >> 40) / 2**24 for word in words]
    assert drawn["bernoulli"] == [word >> 63 for word in words]
    # Signed order: words from 2^63 on are negative and come first
    assert drawn["permutation"] == sorted(range(15), key=lambda i: words[i] ^ (1 << 63))
    quantiles = [statistics.NormalDist().inv_cdf(((word >> 12) + 0.5) / 2**52) for word in words]
    assert drawn["normal"] == pytest.approx(quantiles, rel=1e-6)  # float32


def test_streams_are_no_shifted_pieces_of_one_sequence():
    # Where the keys differ by s, F(key + index) of one is that of the other at index + s
    shift = (key_of_integers(0, "x", 0, 0) - key_of_integers(0, "x", 1, 0) + (1 << 63)) % (1 << 64) - (
        1 << 63
    )
    assert (key_of_integers(0, "x", 1, 0) + shift) & WORD == key_of_integers(0, "x", 0, 0)
    index = torch.arange(50)
    both = torch.cat([bits(0, "x", 0, 0, index), bits(0, "x", 1, 0, index + shift)])
    assert both.unique().numel() == 100


def test_bits_broadcasts_its_parts():
    members, epochs, index = torch.arange(3).view(3, 1, 1), torch.arange(4).view(4, 1), torch.arange(5)
    drawn = bits(1, "x", members, epochs, index)
    assert drawn.shape == (3, 4, 5)
    assert drawn[2, 3, 4] == bits(1, "x", 2, 3, 4)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(
    "ids",
    [[0, 1, 2, 3, 4], [[0, 1, 2], [3, 4, 5]], [4, 0, 4, 9, 1], [[[3]]], [-1, 1 << 40]],
    ids=["5", "2x3", "repeated", "1x1x1", "far"],
)
def test_member_alone_equals_member_in_ensemble(kind, ids):
    members = torch.tensor(ids)
    together = DRAWS[kind](members, epoch=11)
    for place in np.ndindex(*members.shape):
        alone = DRAWS[kind](int(members[place]), epoch=11)
        assert torch.equal(together[place], alone)
        assert torch.equal(together[place], DRAWS[kind](members[place], epoch=11))


@pytest.mark.parametrize("kind", DRAWS)
def test_epoch_per_member_equals_each_epoch_alone(kind):
    members, epochs = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[9, 8, 7], [7, 8, 9]])
    together = DRAWS[kind](members, epochs)
    for place in np.ndindex(2, 3):
        assert torch.equal(together[place], DRAWS[kind](int(members[place]), int(epochs[place])))
    assert torch.equal(DRAWS[kind](members, torch.tensor(7)), DRAWS[kind](members, 7))


def test_shorter_draw_is_a_prefix_in_row_major_order():
    members = torch.arange(3)
    long = STREAM.bits((4, 6), member_ids=members)
    assert torch.equal(STREAM.bits((17,), member_ids=members), long.flatten(1)[:, :17])
    assert torch.equal(STREAM.bits((2, 3, 4), member_ids=members).flatten(1), long.flatten(1))
    assert torch.equal(STREAM.bits((), member_ids=members), long[:, 0, 0])
    assert torch.equal(STREAM.bits((), member_ids=1), long[1, 0, 0])
    assert STREAM.bits((0, 3), member_ids=members).shape == (3, 0, 3)


def test_every_part_of_the_address_changes_all_numbers():
    names = ["", "a", "ab", "ba", "b"]
    index = torch.arange(-8, 8)
    members, epochs = torch.arange(-8, 8).view(-1, 1, 1), torch.arange(-8, 8).view(-1, 1)
    grid = [bits(seed, name, members, epochs, index) for seed in (0, 1, 2, WORD) for name in names]
    # 81920 words of 64 bits: two of them agree by chance with probability 2e-10
    assert torch.stack(grid).unique().numel() == len(grid) * 16**3


def test_name_does_not_run_into_the_member():
    b = ord("b")
    assert not torch.equal(bits(0, "a", b, 0, torch.arange(4)), bits(0, "ab", 0, 0, torch.arange(4)))
    assert not torch.equal(bits(0, "a", 256, 0, torch.arange(4)), bits(0, "a", 0, 256, torch.arange(4)))


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)])
def test_uniform_of_a_shorter_dtype_is_the_float64_truncated(dtype, digits):
    members = torch.arange(50)
    full = STREAM.uniform((401,), member_ids=members, dtype=torch.float64)
    short = STREAM.uniform((401,), member_ids=members, dtype=dtype)
    assert short.dtype == dtype
    assert torch.equal(short.double(), torch.floor(full * 2**digits) / 2**digits)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 63, 65, 127, 129, 257])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normal_of_one_element_has_the_bits_it_has_in_a_batch(n, dtype):
    batch = STREAM.normal((n,), member_ids=3, dtype=dtype)
    ahead = STREAM.normal((1000,), member_ids=3, dtype=dtype)
    words = STREAM.bits((n,), member_ids=3)
    alone = torch.cat([normal_of(words[i : i + 1].clone()) for i in range(n)]).to(dtype)
    assert torch.equal(batch, ahead[:n])
    assert torch.equal(batch, alone)


def test_default_dtype_is_that_of_torch():
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            for draw in (STREAM.uniform, STREAM.normal, STREAM.bernoulli):
                assert draw((2,), member_ids=0).dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_a_generator_only_seeds():
    generator = torch.Generator().manual_seed(3)
    first, second = seed_from(generator), seed_from(generator)
    again = torch.Generator().manual_seed(3)
    assert [seed_from(again), seed_from(again)] == [first, second]
    assert first != second
    assert seed_from(None) == seed_from(None) == DEFAULT_SEED
    many = [seed_from(generator) for _ in range(200)]
    assert len(set(many)) == 200
    assert all(0 <= seed < 1 << 63 for seed in many)
    # All 63 bits are drawn: the upper one is missing from 200 fair draws with probability 1e-60
    assert max(many) >= 1 << 62


def test_the_global_generator_is_never_touched():
    before = torch.get_rng_state()
    for draw in DRAWS.values():
        draw(torch.arange(3))
    seed_from(None)
    seed_from(torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)


# Captured graphs and other devices


@pytest.mark.parametrize("kind", DRAWS)
def test_no_draw_reads_a_tensor_on_the_host(kind):
    # A meta tensor has no values: .item() and a data-dependent branch raise
    drawn = DRAWS[kind](torch.arange(6, device="meta").view(2, 3), torch.tensor(4, device="meta"))
    assert drawn.device.type == "meta"
    assert drawn.numel() == 6 * 15


@pytest.mark.parametrize("kind", DRAWS)
def test_vmap_over_members_equals_the_ensemble(kind):
    ids, epochs = torch.arange(4), torch.arange(4) + 6
    assert torch.equal(torch.func.vmap(DRAWS[kind])(ids, epochs), DRAWS[kind](ids, epochs))


def test_one_graph_traces_every_epoch():
    def draw(ids, epoch):
        return STREAM.bits((5,), member_ids=ids, epoch=epoch), STREAM.normal(
            (5,), member_ids=ids, epoch=epoch
        )

    graph = torch.compile(draw, fullgraph=True, backend="eager")
    ids = torch.arange(6).view(2, 3)
    for epoch in (torch.tensor(0), torch.tensor(5)):
        for traced, plain in zip(graph(ids, epoch), draw(ids, epoch), strict=True):
            assert torch.equal(traced, plain)


@pytest.mark.gpu
def test_captured_cuda_graph_draws_what_the_cpu_draws():
    ids, epoch = torch.arange(6).view(2, 3).cuda(), torch.zeros((), dtype=torch.int64, device="cuda")
    exact = ("bits", "uniform", "bernoulli", "permutation")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for draw in DRAWS.values():
            draw(ids, epoch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = {kind: draw(ids, epoch) for kind, draw in DRAWS.items()}
    for now in (0, 5):
        epoch.fill_(now)
        graph.replay()
        for kind in exact:
            assert torch.equal(drawn[kind].cpu(), DRAWS[kind](ids.cpu(), now))
        # The logarithms of two devices differ by units in the last place of float64
        torch.testing.assert_close(drawn["normal"].cpu(), DRAWS["normal"](ids.cpu(), now))


def test_device_moves_the_members():
    drawn = STREAM.bits((3,), member_ids=torch.arange(2), epoch=torch.tensor(1), device="meta")
    assert drawn.device.type == "meta"
    assert STREAM.bits((3,), member_ids=2, epoch=torch.tensor(1, device="meta")).device.type == "meta"
    assert STREAM.bits((3,), member_ids=2).device.type == "cpu"


# Quality: fixed seeds, so a failure is a change of the numbers, never chance


def test_moments_of_uniform_and_normal_to_five_standard_errors():
    members = torch.arange(100)
    n = 100 * 2000
    u = STREAM.uniform((2000,), member_ids=members, dtype=torch.float64)
    z = STREAM.normal((2000,), member_ids=members, dtype=torch.float64)
    # E u^p = 1/(p+1), var u^p = 1/(2p+1) - 1/(p+1)^2; E z^p and var z^p from the even moments 1 1 3 15 105
    for p in (1, 2, 3, 4):
        variance = 1 / (2 * p + 1) - 1 / (p + 1) ** 2
        assert abs((u**p).mean() - 1 / (p + 1)) < 5 * (variance / n) ** 0.5
    for p, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**p).mean() - mean) < 5 * (variance / n) ** 0.5


@pytest.mark.parametrize("draw", [STREAM.uniform, STREAM.normal], ids=["uniform", "normal"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_kolmogorov_smirnov(draw, dtype):
    law = {"uniform": "uniform", "normal": "norm"}[draw.__name__]
    over_index = draw((50_000,), member_ids=3, dtype=dtype)
    over_members = draw((), member_ids=torch.arange(50_000), dtype=dtype)
    over_epochs = draw(
        (), member_ids=torch.zeros(50_000, dtype=torch.int64), epoch=torch.arange(50_000), dtype=dtype
    )
    for drawn in (over_index, over_members, over_epochs):
        assert scipy.stats.kstest(drawn.double().numpy(), law).pvalue > 1e-3


def test_coins_are_fair_in_any_dtype():
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool):
        coins = STREAM.bernoulli((400,), member_ids=torch.arange(250), dtype=dtype)
        assert coins.dtype == dtype
        assert set(coins.unique().tolist()) == {0, 1}
        assert abs(coins.double().mean() - 0.5) < 5 * 0.5 / 100_000**0.5


def test_all_64_bits_are_balanced_and_uncorrelated():
    x = signs(STREAM.bits((200,), member_ids=torch.arange(300)))
    n = len(x)
    assert x.mean(0).abs().max() < 5 / n**0.5
    # 2016 pairs: six standard errors are passed by chance with probability 4e-6
    assert (x.T @ x / n - torch.eye(64)).abs().max() < 6 / n**0.5


@pytest.mark.parametrize("axis", ["member", "epoch", "index"])
@pytest.mark.parametrize("stride", [1, 3, 1 << 20, 1 << 32, 1 << 58], ids=lambda s: f"stride{s}")
def test_neighbours_are_uncorrelated_along(axis, stride):
    # Small counters in the other parts, and a few bits of entropy in this one
    small = torch.arange(25)
    grid = {"member": small.view(-1, 1, 1), "epoch": small.view(-1, 1), "index": small}
    first = bits(0, "", **grid)
    second = bits(0, "", **(grid | {axis: grid[axis] + stride}))
    a, b = signs(first), signs(second)
    n = len(a)
    # A word may stand in two pairs; products of pairs stay uncorrelated, so the standard error is that of n
    correlation = a.T @ b / n
    assert correlation.diagonal().abs().max() < 5 / n**0.5
    assert correlation.abs().max() < 6 / n**0.5
    flips = (1 - a * b).sum(1) / 2
    assert abs(flips.mean() - 32) < 5 * 4 / n**0.5
    assert abs(flips.var() - 16) < 5 * 16 * (2 / n) ** 0.5
    u, v = (_random._uniform(words, torch.float64).flatten() - 0.5 for words in (first, second))
    assert abs(12 * (u * v).mean()) < 5 / n**0.5


@pytest.mark.parametrize("bit", range(0, 64, 7))
@pytest.mark.parametrize("axis", ["seed", "member", "epoch", "index"])
def test_one_flipped_input_bit_flips_half_of_the_output(axis, bit):
    parts = {"seed": 0, "stream": "x", "member": 0, "epoch": 0, "index": torch.arange(500)}
    flipped = parts | {axis: parts[axis] ^ (1 << bit if bit < 63 or axis == "seed" else -(1 << 63))}
    agree = signs(bits(**parts)) * signs(bits(**flipped))
    assert abs(agree.mean()) < 5 / agree.numel() ** 0.5


def test_bytes_are_uniform():
    members = torch.arange(64)
    for words in (STREAM.bits((512,), member_ids=members), STREAM.bits((), member_ids=torch.arange(1 << 15))):
        columns = words.contiguous().numpy().reshape(-1).view(np.uint8).reshape(-1, 8)
        for column in columns.T:
            assert scipy.stats.chisquare(np.bincount(column, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("counter", ["member", "epoch"])
def test_permutations_of_four_are_equally_likely(counter):
    many, zero = torch.arange(24_000), torch.zeros(24_000, dtype=torch.int64)
    members, epochs = (many, zero) if counter == "member" else (zero, many)
    drawn = STREAM.permutation(4, member_ids=members, epoch=epochs)
    assert torch.equal(drawn.sort(-1).values, torch.arange(4).expand(24_000, 4))
    _, counts = torch.unique(drawn, dim=0, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


# Edges


def test_extreme_bits_give_finite_normals_and_uniforms_below_one():
    words = torch.tensor([0, -1, (1 << 63) - 1, -(1 << 63)])
    z = normal_of(words.clone())
    # Quantile of 2^-53, from the asymptotic tail of the normal: 8.2095
    assert torch.allclose(z[:2], torch.tensor([-8.2095, 8.2095], dtype=torch.float64), atol=1e-4)
    assert z[2] < 0 < z[3]
    assert z[2:].abs().max() < 1e-15
    for dtype in _random._DIGITS:
        u = _random._uniform(words.clone(), dtype)
        assert u[0] == 0
        assert u[1] < 1
        assert u[2] < u[3] == 0.5


def test_normal_is_symmetric_under_the_complement_of_its_bits():
    words = STREAM.bits((10_000,), member_ids=0)
    torch.testing.assert_close(normal_of(~words), -normal_of(words), rtol=1e-14, atol=1e-15)


def test_empty_and_single_permutations():
    assert STREAM.permutation(0, member_ids=torch.arange(2)).shape == (2, 0)
    assert STREAM.permutation(1, member_ids=torch.arange(2)).tolist() == [[0], [0]]


def test_member_ids_count_unless_given():
    assert ids_of((2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert ids_of(()).shape == ()
    assert ids_of((), 7).item() == 7
    ids = torch.tensor([5, 5, 2])
    assert torch.equal(ids_of((3,), ids), ids)
    for drawn in (ids_of((2,)), ids_of((), 7), ids_of((3,), ids)):
        assert drawn.dtype == torch.int64
    assert ids_of((2,), device="meta").device.type == "meta"
    assert ids_of((3,), ids, device="meta").device.type == "meta"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bits(-1, "x", 0, 0, 0),
            r"seed must be an integer in 0\.\.18446744073709551615, got -1; take",
        ),
        (lambda: bits(1 << 64, "x", 0, 0, 0), r"seed must be .*, got 18446744073709551616; take it from"),
        (lambda: bits(1.5, "x", 0, 0, 0), r"seed must be .*, got 1\.5"),
        (lambda: bits(0, "x", 1 << 63, 0, 0), r"member must be .*, got 9223372036854775808; use an int"),
        (lambda: bits(0, "x", 0, 0.5, 0), r"epoch must be .*, got 0\.5; use an int or an int64 tensor"),
        (lambda: bits(0, "x", 0, 0, torch.ones(2)), r"index must be .*, got torch\.float32; call \.long\(\)"),
        (
            lambda: STREAM.bits((2,), member_ids=torch.arange(3, dtype=torch.int32)),
            r"member must be an int or an int64 tensor, got torch\.int32; call \.long\(\)",
        ),
        (
            lambda: STREAM.bits((2,), member_ids=torch.arange(3), epoch=torch.arange(2)),
            r"epoch must have shape \*e = \(3,\), got \(2,\); give one epoch, or one per member",
        ),
        (
            lambda: STREAM.bits((2,), member_ids=0, epoch=torch.arange(2)),
            r"epoch must have shape \*e = \(\), got \(2,\)",
        ),
        (
            lambda: STREAM.uniform((2,), member_ids=0, dtype=torch.int64),
            r"unknown dtype .*'torch\.int64'.*known: ",
        ),
        (
            lambda: STREAM.normal((2,), member_ids=0, dtype=torch.int64),
            r"unknown dtype .*'torch\.int64'.*known: ",
        ),
        (
            lambda: seed_from(3),
            r"generator must be a torch\.Generator or None, got int; use torch\.Generator",
        ),
        (
            lambda: ids_of((2, 3), torch.arange(6)),
            r"member_ids must have shape \*e = \(2, 3\), got \(6,\); give one id per network",
        ),
        (
            lambda: ids_of((3,), 4),
            r"member_ids must have shape \*e = \(3,\), got \(\); give one id per network",
        ),
        (lambda: ids_of((2,), torch.ones(2)), r"member_ids must be .*, got torch\.float32; call \.long\(\)"),
    ],
)
def test_errors_say_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
