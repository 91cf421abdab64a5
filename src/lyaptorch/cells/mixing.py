"""A start that keeps gradients by mixing: orthogonal candidate weights, at a gain just below explosion."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._caller import flosses
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Inputs
from lyaptorch.cells.adapt.function import unwrap
from lyaptorch.cells.adapt.torch_rnn import Following, directed
from lyaptorch.cells.cell import Cell, FormCell
from lyaptorch.cells.gates import THROUGH, GatedCell, GRUCell
from lyaptorch.cells.leaky import LeakyRateCell
from lyaptorch.cells.lstm import LSTMCell, URLSTMCell
from lyaptorch.cells.matrices import per_matrix
from lyaptorch.cells.mixing_gain import Layer, leading_exponent, orthogonal, resting_gain, searched, trial
from lyaptorch.cells.stacked import Stacked


@dataclass(frozen=True)
class Mixing:
    """What `mixing_` chose.

    Attributes:
        gains: of each matrix by the name of its parameter, `*e`.
        biases: of the gates that were set, in each of these layers.
        exponents: lambda_1 of each layer on the inputs, nats per step, likewise; empty without inputs.

    Example:
        >>> import lyaptorch as lt
        >>> chosen = lt.weights.mixing_(torch.nn.GRU(1, 8), horizon=100)
        >>> {name: round(gain.item(), 2) for name, gain in chosen.gains.items()}
        {'weight_hh_l0': 1.06}
    """

    gains: dict[str, Tensor]
    biases: dict[str, dict[str, float]] = field(default_factory=dict)
    exponents: dict[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: orthogonal x {_shown(gain)}"
            + "".join(f", {gate} bias {bias:+.3g}" for gate, bias in self.biases[name].items())
            + (f", lambda_1 {_shown(self.exponents[name])} per step" if name in self.exponents else "")
            for name, gain in self.gains.items()
        )


@flosses
@torch.no_grad()
def mixing_(
    module: nn.Module,
    *,
    horizon: int,
    inputs: Inputs | None = None,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Mixing:
    """Start a recurrent network in place so that it keeps gradients by mixing, not by standing still.

    A gate that holds the state keeps gradients, too, but then the state only sums its inputs and cannot tell
    when one came. Here the gates let the candidate through: biases of what holds (forget of an LSTM, update
    of a GRU) become -b, of what lets through (input and output; reset) +b, with b the logarithm of the
    horizon and 3 at least, and the candidate's own 0, in networks that have biases. The weights of the
    candidate (of an LSTM "cell", of a GRU "new", without gates all recurrent weights) become a random
    orthogonal matrix times a gain; all else stays, and everything learns as before.

    A step at rest multiplies tangent vectors by keep + gate * W: `keep` is what the gates hold (f of an LSTM,
    z of a GRU), `gate` what they let through (i o; (1 - z) r; without gates the activation's slope). The gain
    is (1 - keep) / gate of the gates' mean at rest, at which a direction neither grows nor shrinks (1 + 1 /
    horizon or less with these biases, 2 where all gates stand at one half), and beside gates 5% more. The
    eigenvalues of W lie on a circle, those of keep + gate * W on one whose centre is off by keep =
    1 / (1 + e^b): b = log T keeps what that adds up to over T steps, T keep, below 1. Inputs saturate units,
    so that lambda_1 is then below 0 or near it.
    With `inputs` the gain is the smallest at which lambda_1 of each layer, driven by the layers below, is
    -1 / horizon: for units that inputs saturate much, or hardly. Gated networks learned more without.

    Args:
        module: a `torch.nn.RNN`, `GRU` or `LSTM` of any depth, in one direction or two, or one of their
            cells; an `ElmanCell`, `RateCell`, `LeakyRateCell`, `BinaryCell`, `GRUCell`, `LSTMCell`,
            `URLSTMCell`, or a `Stacked` of these; also ensembles.
        horizon: steps over which gradients are to last.
        inputs: `(t, *e, b, m)`, time first, like those that will drive it.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Returns:
        The gains, and with inputs lambda_1 at them. Cost: with inputs some 10 to 15 runs of t steps a layer.

    Raises:
        ValueError: for other networks, with the reason, a horizon below 1, inputs that do not fit, or
            where no gain brings lambda_1 to -1 / horizon. The network is then as it was.

    Example:
        >>> gru = torch.nn.GRU(1, 32)
        >>> print(mixing_(gru, horizon=50))
        weight_hh_l0: orthogonal x 1.07, update bias -3.91, reset bias +3.91
        >>> found = mixing_(gru, horizon=50, inputs=torch.randn(100, 8, 1))
        >>> bool((found.exponents["weight_hh_l0"] + 1 / 50).abs() < 1e-3)
        True

    Source: Henaff, Szlam & LeCun (2016), Recurrent orthogonal networks and long-memory tasks, for networks
    without gates; the gain beside gates by the product rule.
    """
    target = -1 / _checks.integer("horizon", horizon, 1, do="it is in steps")
    levels, seed = list(_levels(module, max(THROUGH, math.log(horizon)))), seed_from(generator)
    mixing, drawn = Mixing({}), []
    if inputs is not None:
        inputs = _fitting(inputs, levels[0][0])
    for level in levels:
        read = []
        for layer in level:
            ids = ids_of(layer.cell.ensemble, member_ids, layer.weight.device)
            stream, gain = Stream(seed, f"mixing {layer.name}"), resting_gain(layer)
            if inputs is None:
                W = per_matrix(gain, gain) * orthogonal(layer, stream, ids)
            else:
                driven = inputs.flip(0) if layer.backwards else inputs
                gain, W = searched(layer, stream, ids, driven, gain, target)
                mixing.exponents[layer.name], seen = leading_exponent(trial(layer, W), driven, stream, ids)
                read.append(seen.flip(0) if layer.backwards else seen)
            mixing.gains[layer.name], mixing.biases[layer.name] = gain, layer.biases
            drawn.append((layer, W))
        inputs = torch.cat(read, -1) if read else None
    for layer, W in drawn:
        layer.put(W)
    return mixing


def _levels(module: nn.Module, strength: float) -> Iterator[list[Layer]]:
    """The layers of a network from the inputs up, each in all its directions."""
    module = unwrap(module)
    if isinstance(module, nn.RNNBase):
        if module.proj_size:
            raise _refused(module, f"its recurrent weights are not square (proj_size={module.proj_size})")
        ends = ("", "_reverse") if module.bidirectional else ("",)
        for i in range(module.num_layers):
            m = module.hidden_size * len(ends) if i else module.input_size
            tails = [f"_l{i}{end}" for end in ends]
            yield [
                _layer(directed(module, m, tail), f"weight_hh{tail}", strength, bool("_reverse" in tail))
                for tail in tails
            ]
    elif isinstance(module, nn.RNNCellBase):
        yield [_layer(directed(module, module.input_size, ""), "weight_hh", strength)]
    elif isinstance(module, Stacked):
        for name, cell in _single(module, ""):
            yield [_layer(cell, f"{name}weight_hh", strength)]
    elif isinstance(module, Cell):
        yield [_layer(module, "weight_hh", strength)]
    else:
        inside = module.named_modules() if isinstance(module, nn.Module) else ()
        kinds = (nn.RNNBase, nn.RNNCellBase, GatedCell, FormCell)
        found = [f"module.{name}" for name, part in inside if isinstance(part, kinds)]
        do = f"it has {', '.join(found)}: pass that" if found else "it has no recurrent part that is known"
        raise _refused(module, do)


def _single(stack: Stacked, at: str) -> Iterator[tuple[str, Cell]]:
    """The cells of a stack, and of stacks in it, and what their parameters' names begin with."""
    for i, cell in enumerate(stack.layers):
        name = f"{at}layers.{i}."
        if isinstance(cell, Stacked):
            yield from _single(cell, name)
        else:
            yield name, cell


def _layer(cell: Cell, name: str, strength: float, backwards: bool = False) -> Layer:
    """A cell's candidate weights.

    Raises:
        ValueError: where it has none, with the reason.
    """
    if isinstance(cell, Following):
        raise _refused(
            cell.source, f"{name} is computed from other weights (a parametrisation); remove it first"
        )
    weight = cell._parameters.get("weight_hh")
    if isinstance(cell, GatedCell) and weight is not None:
        rows, known = cell.rows_of(cell.candidate), type(cell).step in _STEPS
    else:
        form = cell.form() if isinstance(cell, FormCell) else None
        rows, known = slice(0, cell.state_size), form is not None and form.weight_hh is weight
        if form is not None and form.residual is not None and not isinstance(cell, LeakyRateCell):
            raise _refused(cell, "its residual connection keeps the state; choose that, from lt.residuals")
    if weight is None or not known:
        raise _refused(
            cell,
            f"{type(cell).__name__} has no candidate that reads all units' last state by "
            "weights of its own: nothing can mix them; its gates, decays or eigenvalues decide",
        )
    trial = copy.deepcopy(cell)
    biases = trial.let_through(strength) if isinstance(trial, GatedCell) else {}
    return Layer(name, cell, trial, rows, biases, backwards)


_STEPS = (LSTMCell.step, GRUCell.step, URLSTMCell.step)


def _refused(module: object, reason: str) -> ValueError:
    return ValueError(
        "mixing_ takes a torch.nn.RNN, GRU or LSTM, one of their cells, or such a cell of this library, got "
        f"a {type(module).__name__}: {reason}"
    )


def _fitting(inputs: Tensor, first: Layer) -> Tensor:
    """Inputs `(t, *e, b, m)` of a cell."""
    inputs = _checks.tensor("inputs", inputs)
    cell = first.cell
    expected = (*cell.ensemble, cell.input_size)
    shared = inputs.dim() == 3 and inputs.shape[-1] == cell.input_size
    own = (*inputs.shape[1:-2], *inputs.shape[-1:]) == expected
    if inputs.dim() < 3 or not (shared or own) or len(inputs) < 4:
        raise ValueError(
            f"inputs must be (t, *e, b, m) with t >= 4, *e = {cell.ensemble} and m = {cell.input_size}, or "
            f"(t, b, m) for all members, got {tuple(inputs.shape)}"
        )
    _checks.alike("inputs", _checks.finite("inputs", inputs), "the weights", first.weight)
    return (
        inputs
        if own
        else inputs.reshape(len(inputs), *[1] * len(cell.ensemble), *inputs.shape[1:]).expand(
            len(inputs), *cell.ensemble, *inputs.shape[1:]
        )
    )


def _shown(value: Tensor) -> str:
    numbers = [f"{z:.3g}" if abs(z) < 0.995 else f"{z:.2f}" for z in value.reshape(-1).tolist()]
    return numbers[0] if len(set(numbers)) == 1 else f"{min(numbers)}..{max(numbers)}"
