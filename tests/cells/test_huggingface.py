"""Recurrent models of transformers against dense Jacobians of the models' own steps."""

import importlib.util
import resource
import time

import pytest
import torch
from torch import Tensor

import lyaptorch as lt
from lyaptorch.cells.adapt.functional import Functional
from lyaptorch.tangent.start import first_frame

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None, reason="transformers (extra) is not installed"
    ),
]
SMALL = {"vocab_size": 11, "num_hidden_layers": 2}
SSM = {"hidden_size": 4, "state_size": 2, "expand": 1, "conv_kernel": 3, "time_step_rank": 2}
HEADS = {"hidden_size": 4, "state_size": 2, "expand": 1, "num_heads": 2, "head_dim": 2, "n_groups": 1}
CONFIGS = {
    "Mamba": SSM,
    "FalconMamba": SSM,
    "Mamba2": {**HEADS, "chunk_size": 4, "conv_kernel": 2},
    "Rwkv": {"hidden_size": 6, "context_length": 32, "attention_hidden_size": 6},
    # its widths are multiples of 64
    "xLSTM": {
        "hidden_size": 64,
        "num_heads": 32,
        "num_hidden_layers": 1,
        "num_blocks": 1,
        "qk_dim_factor": 1.0,
    },
    "RecurrentGemma": {
        "hidden_size": 6,
        "lru_width": 6,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "block_types": ["recurrent"],
    },
}
QUICK = ("Mamba", "Mamba2")
LONG = [pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS if kind not in QUICK]


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def make(kind: str, **changes):
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **CONFIGS[kind], **changes})
    model = getattr(transformers, f"{kind}Model")(config).eval()
    # what starts at zero would leave layers and gates unconnected
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name and "A_log" not in name:
                p.add_(0.2 * torch.randn_like(p))
            # as it starts, RWKV forgets up to 20 nats in a step, below the float32 of some of its operations
            if name.endswith("time_decay"):
                p.clamp_(max=0.5)
    model = model.double()
    # which scales its weights at its first call
    if kind == "Rwkv":
        model(inputs_embeds=torch.zeros(1, 1, model.config.hidden_size, dtype=torch.float64))
    return model


def linear_caches(model, x: Tensor, parts: list[list[Tensor]]) -> list[Tensor]:
    """One token of a model on transformers' cache of convolutions and memories."""
    with torch.no_grad():
        cache = model(inputs_embeds=x[:, None], use_cache=True).cache
    for layer, (convolved, memory) in zip(cache.layers, parts, strict=True):
        layer.conv_states[0], layer.recurrent_states[0] = convolved.clone(), memory.clone()
    model(inputs_embeds=x[:, None], cache=cache, use_cache=True)
    return [z for layer in cache.layers for z in (layer.conv_states[0], layer.recurrent_states[0])]


def rwkv(model, x: Tensor, parts: list[list[Tensor]]) -> list[Tensor]:
    shifts, memories, maxima = [p[:2] for p in parts], [p[2:4] for p in parts], [p[4] for p in parts]
    state = [torch.stack([s[i] for s in shifts], -1) for i in range(2)]
    # numerator and denominator are kept divided by e^m
    scaled = [[z * (-m).exp() for z in own] for own, m in zip(memories, maxima, strict=True)]
    state += [torch.stack([s[i] for s in scaled], -1) for i in range(2)] + [torch.stack(maxima, -1)]
    after = model(inputs_embeds=x[:, None], state=[z.clone() for z in state], use_cache=True).state
    found = []
    for i in range(len(parts)):
        first, second, top, below, m = (z[..., i] for z in after)
        found += [first, second, top * m.exp(), below * m.exp(), m]
    return found


def xlstm(model, x: Tensor, parts: list[list[Tensor]]) -> list[Tensor]:
    found = []
    y = x[:, None]
    for block, (C, n, m) in zip(model.blocks, parts, strict=True):
        scale = (-m).exp()
        # in float64 transformers mixes dtypes
        with Functional([], wide=True):
            y, (C, n, m) = block(y, (C * scale[..., None], n * scale, m))
        found += [C * m.exp()[..., None], n * m.exp(), m]
    return found


def gemma(model, x: Tensor, parts: list[list[Tensor]]) -> list[Tensor]:
    y = x * model.normalizer.double()
    found = []
    for layer, (convolved, memory) in zip(model.layers, parts, strict=True):
        block = layer.temporal_block
        inside = block.linear_x(layer.temporal_pre_norm(y))
        window = torch.cat([convolved, inside[..., None]], -1)
        u = (window * block.conv_1d.weight[:, 0]).sum(-1) + block.conv_1d.bias
        block.rg_lru.recurrent_states = memory
        positions = torch.ones(len(x), 1, dtype=torch.int64)
        mixed = block.rg_lru(u[:, None], positions)[:, 0]
        found += [window[..., 1:], block.rg_lru.recurrent_states]
        block.rg_lru.recurrent_states = None
        gate = block.act_fn(block.linear_y(layer.temporal_pre_norm(y)))
        y = block.linear_out(mixed * gate) + y
        y = layer.mlp_block(layer.channel_pre_norm(y)) + y
    return found


STEPS = {"Rwkv": rwkv, "xLSTM": xlstm, "RecurrentGemma": gemma}


def own_step(kind, model, cell, x: Tensor, z: Tensor, steady: Tensor) -> tuple[Tensor, Tensor]:
    """The model's own step: states (b, n) with a tangent, and those without, in the order of the cell."""
    parts = [(name, part) for name, part in cell._structure.parts.items() if part.dtype.is_floating_point]
    by_layer = {}
    taken = {False: 0, True: 0}
    for name, part in parts:
        source, start = (steady, z)[not part.travels], taken[part.travels]
        taken[part.travels] += part.size
        piece = source[:, start : start + part.size].reshape(len(z), *part.trailing)
        by_layer.setdefault(next(int(word) for word in name.split(".") if word.isdigit()), []).append(piece)
    after = STEPS.get(kind, linear_caches)(model, x.expand(len(z), -1), list(by_layer.values()))
    # the model tells layer by layer, the cell has at the end what travels
    per_layer = len(after) // len(by_layer)
    layered = [piece.flatten(1) for piece in after]
    moved = [p for i, p in enumerate(layered) if not (steady.shape[-1] and i % per_layer == per_layer - 1)]
    held = [p for i, p in enumerate(layered) if steady.shape[-1] and i % per_layer == per_layer - 1]
    return torch.cat(moved, -1), torch.cat([*held, steady[:, :0]], -1)


def dense(kind, model, cell, inputs: Tensor) -> Tensor:
    """The dense Jacobians of all steps, (t, n, n)."""
    n = cell.state_size - cell.travelling
    h, found = cell.rest(inputs[0]), []
    z, steady = h[:, :n], h[:, n:][:, : sum(p.size for p in cell._structure.parts.values() if p.steady)]
    for x in inputs:
        if kind == "RecurrentGemma":

            def move(y, x=x, m=steady):
                return own_step(kind, model, cell, x, y[None], m)[0][0]

            # of its roots transformers knows the backward pass alone
            found.append(torch.autograd.functional.jacobian(move, z[0]))
            z = move(z[0]).detach()[None]
            continue
        # transformers' RWKV mixes trajectories: one at a time
        rows = torch.eye(n, dtype=z.dtype)
        jvps = [
            torch.func.jvp(
                lambda y, x=x, m=steady: own_step(kind, model, cell, x, y, m.expand(len(y), -1)),
                (z.expand(len(own), -1).contiguous(),),
                (own,),
            )
            for own in (rows.split(1) if kind == "Rwkv" else [rows])
        ]
        found.append(torch.cat([tangents[0] for _, tangents in jvps]).mT)
        z, steady = (after[:1] for after in jvps[0][0])
    return torch.stack(found)


@pytest.mark.parametrize("kind", [*QUICK, *LONG])
def test_exponents_are_those_of_the_dense_jacobian_of_the_models_own_step(kind):
    model = make(kind)
    cell = lt.as_cell(model)
    n = cell.state_size - cell.travelling
    left = n - cell.nilpotent
    assert n <= 200
    assert list(cell.parts()) == [f"layer {i + 1}" for i in range(model.config.num_hidden_layers)]
    inputs = torch.randn(6, 1, cell.input_size, dtype=torch.float64)
    found = lt.lyapunov_spectrum(cell, inputs).exponents.detach()[0]
    # convolutions and shifts are nilpotent: as many exponents as they have entries are -inf, exactly
    assert torch.isinf(found[left:]).all()
    assert len(found) == n
    frame = first_frame(None, n, cell.rest(inputs[0]), None, cell)[0]
    jacobians = dense(kind, model, cell, inputs)
    Q, grown = frame[:n, :left], []
    for D in jacobians:
        Q, R = torch.linalg.qr(D @ Q)
        grown.append(R.diagonal().abs().log())
    expected = torch.stack(grown).mean(0)
    alive = found[:left] > found.max() - 16
    assert alive.sum() > left / 2
    torch.testing.assert_close(found[:left][alive], expected[alive], rtol=0, atol=1e-6)
    # and they are nilpotent: in each layer's own block so many directions are gone after some steps
    for where in cell.parts().values():
        own = torch.linalg.multi_dot([D[where, where] for D in jacobians.flip(0)])
        assert torch.linalg.matrix_rank(own, rtol=1e-11) == (~cell.registers()[where]).sum()


@pytest.mark.slow
def test_token_ids_are_embedded_and_diagnose_names_the_layer_that_forgets():
    model = make("Mamba").float()
    # the second layer discretises in steps so long that nothing is kept
    with torch.no_grad():
        model.layers[1].mixer.dt_proj.bias.fill_(6.0)
        model.layers[0].mixer.A_log.fill_(-8.0)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    ids = torch.randint(0, 11, (1, 14))
    found = lt.diagnose(model.train(), ids, k=4)
    assert found.verdict == "blocked"
    assert "not in layer 2" in str(found)
    assert "24 of 40 variables only hand on what they take up" in str(found)
    # dead is the memory of the second layer alone, which takes up nothing
    assert "8 of 40 units are dead" in str(found)
    # the same by embeddings, time first
    embeddings = model.get_input_embeddings()(ids).transpose(0, 1)
    again = lt.lyapunov_spectrum(model, embeddings, k=4).exponents
    assert torch.equal(again, lt.lyapunov_spectrum(model, ids, k=4).exponents)
    # and the model is as it was
    assert model.training
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.slow
def test_half_precision_is_measured_in_float32_and_a_cache_is_a_state():
    model, ids = make("Mamba").float(), torch.randint(0, 11, (1, 9))
    # weights that bfloat16 holds exactly
    model = model.bfloat16()
    half = lt.lyapunov_spectrum(model, model.get_input_embeddings()(ids).transpose(0, 1).float(), k=3)
    model = model.float()
    x = model.get_input_embeddings()(ids).transpose(0, 1)
    full = lt.lyapunov_spectrum(model, x, k=3)
    assert torch.equal(half.exponents.detach(), full.exponents.detach())
    cell = lt.as_cell(model)
    with torch.no_grad():
        cache = model(ids[:, :5], use_cache=True).cache
        whole = model(ids, use_cache=True).cache
    final = cell.unpack(lt.lyapunov_spectrum(cell, x[5:].detach(), h0=cache, k=1).final_state)
    for one, two in zip(final.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.recurrent_states[0], two.recurrent_states[0])
        torch.testing.assert_close(one.conv_states[0], two.conv_states[0])


@pytest.mark.slow
def test_five_lines_of_a_users_script_floss_a_model():
    from transformers import MambaConfig, MambaModel

    torch.manual_seed(0)
    model = MambaModel(MambaConfig(vocab_size=64, hidden_size=16, state_size=8, num_hidden_layers=2))
    ids = torch.randint(0, 64, (1, 60))
    x = model.get_input_embeddings()(ids).transpose(0, 1).detach()
    record = lt.floss(model, x, k=16, epochs=30, steps=8, tangent_transient=0, lr=3e-2)
    loss = record["floss_loss"][0]
    assert loss[-1] < loss[0] / 10


def test_models_without_a_state_of_fixed_size_are_refused():
    from transformers import BambaConfig, BambaModel, GPT2Config, GPT2Model

    gpt = GPT2Model(GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=16))
    with pytest.raises(
        ValueError,
        match=r"^GPT2Model must have a state of fixed size, got a cache that grows .* in layers 1, 2 .*: "
        r"attention keeps all of the past",
    ):
        lt.as_cell(gpt)
    hybrid = BambaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        attn_layer_indices=[1],
        mamba_n_heads=2,
        mamba_d_head=8,
        mamba_d_state=2,
        mamba_n_groups=1,
    )
    with pytest.raises(ValueError, match=r"^BambaModel must have a state of fixed size, .* in layers 2 "):
        lt.as_cell(BambaModel(hybrid))
    with pytest.raises(
        ValueError, match=r"got attention in layers 1, whose window .*block_types=\[.recurrent.\]"
    ):
        lt.as_cell(make("RecurrentGemma", block_types=["attention", "recurrent"]))


def test_token_ids_that_are_none_are_refused(unchecked):
    cell = lt.as_cell(make("Mamba"))
    with pytest.raises(ValueError, match=r"token ids must be integers \(b, t\), .* got \(3,\) torch.int64"):
        lt.lyapunov_spectrum(cell, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"inputs must have 4 channels for this cell, got 5"):
        lt.lyapunov_spectrum(cell, torch.zeros(3, 1, 5, dtype=torch.float64))


@pytest.mark.slow
def test_a_model_of_published_width_is_measured_with_eight_vectors(capsys):
    from transformers import MambaConfig, MambaModel

    model = MambaModel(MambaConfig(num_hidden_layers=24))
    cell = lt.as_cell(model)
    assert cell.state_size == 24 * 1536 * (16 + 4)
    x = torch.randn(3, 1, 768)
    with torch.no_grad():
        lt.lyapunov_spectrum(cell, x, k=8)
        before = time.process_time()
        found = lt.lyapunov_spectrum(cell, x, k=8).exponents
    seconds = (time.process_time() - before) / len(x)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with capsys.disabled():
        print(f"24 layers of width 768, state 737280, k = 8: {seconds:.2f} s a step, {memory:.1f} GiB")
    assert torch.isfinite(found).all()
