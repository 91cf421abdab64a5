"""The recipes of docs/bring-your-model.md: copied, made another size, and run; each tells the truth."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt

PAGE = (Path(__file__).parents[1] / "docs" / "bring-your-model.md").read_text()
FOUND = re.findall(r"^## (.*?)\n(?:(?!^## ).)*?```\{code-cell\}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
RECIPES = dict(FOUND[:-1])
"""By title; the last snippet uses what those before it made."""


def recipe(title: str, **sizes: int) -> dict[str, Any]:
    """What a recipe leaves, as a file of its own with other sizes."""
    code = re.sub(r"^:tags: .*\n", "", RECIPES[title])
    line = re.search(r"^[a-z, ]+ = [\d., ]+$", code, re.MULTILINE)
    assert line
    names, values = (side.split(", ") for side in line[0].split(" = "))
    assert sizes.keys() <= set(names)
    chosen = [str(sizes.get(name, value)) for name, value in zip(names, values, strict=True)]
    namespace: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        exec(code.replace(line[0], f"{', '.join(names)} = {', '.join(chosen)}"), namespace)
    return namespace


def packed(it: dict[str, Any]) -> tuple[int, int]:
    cell, x = nn.LSTMCell(it["width"], it["units"]), it["embedded"]
    for name, p in cell.named_parameters():
        p.data = it["lstm"].state_dict()[f"{name}_l0"]
    for i, length in list(enumerate(it["lengths"]))[2:]:
        own = x[i, :length, None]
        alone = lt.lyapunov_spectrum(lambda y, s: cell(y, s), own, h0=_pair(it["units"]), k=4, transient=10)
        torch.testing.assert_close(it["spec"].exponents[i], alone.exponents[0], atol=1e-4, rtol=0)
    return 4, 2 * it["units"]


def _pair(n: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, n), torch.zeros(1, n)


def stack(it: dict[str, Any]) -> tuple[int, int]:
    # the state at the end is that of the network itself
    after = it["gru"](it["batch"])[1].transpose(0, 1).flatten(1)
    torch.testing.assert_close(it["spec"].final_state, after, atol=1e-5, rtol=0)
    return 8, it["layers"] * it["units"]


def swapped(it: dict[str, Any]) -> tuple[int, int]:
    W, n = it["cell"].linear.weight, it["units"]
    x = it["inputs"] @ W[:, n:].T + it["cell"].linear.bias
    by_hand = lt.lyapunov_spectrum(lambda x, h: torch.tanh(h @ W[:, :n].T + x), x, h0=torch.zeros(4, n), k=6)
    torch.testing.assert_close(it["spec"].exponents, by_hand.exponents, atol=1e-4, rtol=0)
    return 4, n


def noisy(it: dict[str, Any]) -> tuple[int, int]:
    n, leak, root = it["units"], it["dt"], it["dt"] ** 0.5
    cell = lt.LeakyRateCell(n, n, leak=leak, bias=False)
    with torch.no_grad():
        cell.weight_hh.copy_(it["W"])
        cell.weight_ih.copy_(it["sigma"] * root / leak * torch.eye(n))
    noise = it["noise"]
    spec = lt.lyapunov_spectrum(cell, noise, h0=noise[0], k=3, dt=leak, transient=500, tangent_transient=300)
    torch.testing.assert_close(it["spec"].exponents, spec.exponents, atol=2e-3, rtol=0)
    return 4, n


def stateful(it: dict[str, Any]) -> tuple[int, int]:
    plain = lt.lyapunov_spectrum(it["net"].cell, it["inputs"], k=4)
    torch.testing.assert_close(it["spec"].exponents, plain.exponents, atol=1e-3, rtol=0)
    return 4, it["units"]


def scans(it: dict[str, Any]) -> tuple[int, int]:
    # the sum of all exponents is the mean log of the determinant
    rest, x = it["rest"], it["inputs"]
    mingru = lt.lyapunov_spectrum(it["mingru"], x, h0=rest).exponents
    lru = lt.lyapunov_spectrum(it["lru"], x, h0=rest + 0j).exponents
    kept = torch.log1p(-torch.sigmoid(it["gate"](it["inputs"]))).mean(0).sum(-1)
    torch.testing.assert_close(mingru.sum(-1), kept, atol=1e-3, rtol=0)
    moduli = 2 * it["eigenvalues"].abs().log().sum()
    torch.testing.assert_close(lru.sum(-1), moduli.expand(4), atol=1e-3, rtol=0)
    return 4, 2 * it["units"]


def selective(it: dict[str, Any]) -> tuple[int, int]:
    steps = nn.functional.softplus(it["project"](it["inputs"])[..., : it["width"]]).mean(0).sum(-1)
    n = it["width"] * it["states"]
    all_of = lt.lyapunov_spectrum(it["step"], it["inputs"], h0=torch.zeros(4, it["width"], it["states"]))
    torch.testing.assert_close(all_of.exponents.sum(-1), steps * it["A"].sum(), atol=1e-2, rtol=0)
    return 4, n


def mamba(it: dict[str, Any]) -> tuple[int, int]:
    config = it["config"]
    inner = config.intermediate_size
    record = lt.floss(it["model"], it["tokens"], k=2, epochs=2, steps=20, tangent_transient=0)
    assert torch.as_tensor(record["floss_loss"]).isfinite().all()
    return 2, it["layers"] * inner * (it["states"] + config.conv_kernel)


def spiking(it: dict[str, Any]) -> tuple[int, int]:
    # the potential, and the spikes that come back
    assert (it["spec"].exponents < 1).all()
    return 4, it["units"]


def ode(it: dict[str, Any]) -> tuple[int, int]:
    flow, y, states = lt.Flow(it["f"], dt=it["dt"], time=True), it["h0"], []
    with torch.no_grad():
        for t in it["times"]:
            states.append(y)
            y = flow.step(t, y)
    slopes = torch.func.jacrev(it["f"], argnums=1)
    D = torch.func.vmap(slopes)(it["times"][100:].flatten(0, 1), torch.cat(states[100:]))
    divergence = D.diagonal(dim1=-2, dim2=-1).sum(-1).reshape(-1, 3).mean(0)
    torch.testing.assert_close(it["spec"].exponents.sum(-1), divergence, atol=2e-2, rtol=0)
    return 3, it["units"]


SIZES: dict[str, tuple[Callable[[dict[str, Any]], tuple[int, int]], list[dict[str, int]]]] = {
    "Embedding, packed LSTM, readout": (packed, [{"words": 7, "width": 3, "units": 10}, {"units": 40}]),
    "A stack, batch first": (stack, [{"channels": 1, "units": 8, "layers": 1}, {"units": 20, "layers": 2}]),
    "State first, input second": (swapped, [{"channels": 9, "units": 9}, {"units": 40}]),
    "Noise in the step": (noisy, [{"units": 8}, {"units": 40, "gain": 1}]),
    "A module that keeps its state": (stateful, [{"channels": 1, "units": 4}, {"channels": 40}]),
    "minGRU and LRU": (scans, [{"channels": 1, "units": 5}, {"channels": 9, "units": 9}]),
    "A selective SSM": (selective, [{"width": 3, "states": 1}, {"width": 5, "states": 2}]),
    "A model of transformers": (mamba, [{"words": 9, "width": 4, "states": 2, "layers": 1}, {"width": 6}]),
    "A network of snntorch": (spiking, [{"channels": 1, "units": 6}, {"channels": 30, "units": 30}]),
    "A neural ODE": (ode, [{"units": 2}, {"units": 9}]),
}
CASES = [
    pytest.param(title, sizes, id=f"{title}-{i}")
    for title, (_, two) in SIZES.items()
    for i, sizes in enumerate(two)
]


def test_there_are_ten_and_each_is_short():
    assert list(RECIPES) == list(SIZES)
    for title, code in RECIPES.items():
        lines = [
            line for line in code.splitlines() if line and not line.startswith((":tags", "import", "from"))
        ]
        assert len(lines) <= 15, title


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("title", "sizes"), CASES)
def test_a_recipe_of_another_size(title, sizes, capsys):
    for library in re.findall(r"needs-(\w+)", RECIPES[title]):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    it = recipe(title, **sizes)
    b, n = SIZES[title][0](it)
    spec = it["spec"]
    assert torch.isfinite(spec.exponents).all()
    assert spec.exponents.shape[0] == b
    assert spec.final_state.shape == (b, n)
    assert spec.exponents.shape[1] in (3, 4, 6, it.get("width"), n)
    assert "Spectrum: " in capsys.readouterr().out
