"""Model: a cell and its readout; the only module that sees targets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lyaptorch import _checks
from lyaptorch._padded import mean_of, real
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Inputs, LastStates, PerMember, State
from lyaptorch.cells import Cell, Network, Readout, as_cell, fit, settle, unroll
from lyaptorch.cells.ownership import of_members, shared_parameter
from lyaptorch.tasks.batch import Batch
from lyaptorch.training.fused_loss import fused_loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary_cross_entropy": partial(nn.functional.binary_cross_entropy_with_logits, reduction="none"),
    "cross_entropy": lambda z, y: -z.log_softmax(-1).gather(-1, y.long()),
    "mean_squared_error": lambda z, y: (z - y).square(),
    "root_mean_square": lambda z, y: (z - y).square(),
}
"""Loss of every output, or of every choice among classes, before the mask and the mean."""

RIGHT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary_cross_entropy": lambda z, y: (z > 0) == (y > 0.5),
    "cross_entropy": lambda z, y: z.argmax(-1, keepdim=True) == y,
}
"""Whether an answer is right, where it can be."""
CONSTANT = 1e-14
"""The share of a mean square below which a variance is that of a constant."""


class Model(nn.Module):
    """A recurrent network that answers at every step: cell, readout, initial state and loss.

    Args:
        cell: anything that `as_cell` takes.
        readout: maps what can be read of the states, `(t, *e, b, cell.output_size)`, to outputs; `Readout`,
            or any module; one for an ensemble has an attribute `ensemble`, as a cell has it, which says that
            its parameters have these leading dimensions. All of a state can be read but an LSTM's c and the
            lower layers of a stack.
        h0: initial state, `(*e, rows, n)` or its parts as `as_cell` says, with one row for each trajectory or
            a single row for all; trained when an `nn.Parameter`, of parts all when one is, as the parameter
            `h0` of the model, which is packed; zeros when missing.
        loss: "binary_cross_entropy", "cross_entropy" (targets are numbers of classes, or one-hot),
            "mean_squared_error" or "root_mean_square".

    Raises:
        ValueError: for an unknown loss, an h0 or a `Readout` that does not fit the cell, or an h0 that has
            `requires_grad` and is no `nn.Parameter`.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 16, ensemble=(3,))
        >>> model = Model(cell, Readout(16, 1, ensemble=(3,)))
        >>> model(torch.zeros(20, 5, 1)).shape
        torch.Size([20, 3, 5, 1])
    """

    def __init__(
        self,
        cell: Network,
        readout: nn.Module,
        *,
        h0: Any = None,
        loss: str = "binary_cross_entropy",
    ) -> None:
        super().__init__()
        self.cell, self.readout = as_cell(cell), readout
        self.loss_name = _checks.choice("loss", loss, LOSSES)
        h0 = None if h0 is None else _start(h0, self.cell.pack(h0))
        if h0 is not None and self.cell.state_size:
            rows = h0.shape[-2] if h0.dim() > 1 else 1
            _checks.shape("h0", h0, (*self.ensemble, rows, self.cell.state_size), "(*e, rows, n)")
        if isinstance(readout, Readout | nn.Linear) and self.cell.state_size:
            read, shown = readout.weight.shape[-1], self.cell.output_size
            if read != shown:
                raise ValueError(
                    f"the readout must read the {shown} numbers that this cell shows, got one for {read}; "
                    f"make it {type(readout).__name__}(cell.output_size, ...)"
                )
        self.h0: Tensor | None
        if isinstance(h0, nn.Parameter):
            self.h0 = h0
        else:
            self.register_buffer("h0", h0)

    @property
    def ensemble(self) -> tuple[int, ...]:
        """The leading dimensions `*e` of every parameter."""
        return self.cell.ensemble

    def initial_state(self, batch: int) -> State | None:
        """The first `batch` rows of h0 (its single row for all), or None."""
        if self.h0 is None:
            return None
        rows = self.h0.shape[-2]
        if rows == 1:
            return self.h0.expand(*self.h0.shape[:-2], batch, -1)
        if batch > rows:
            raise ValueError(
                f"batch must be at most {rows}, the rows of the trained initial state, got {batch}; "
                "give h0 more rows, or a single one for all"
            )
        return self.h0[..., :batch, :]

    def states(self, inputs: Inputs, h0: State | None = None, first: int = 0) -> LastStates:
        """The states after step `first` and each later one, from the initial state or another one."""
        return unroll(self.cell, *self._start(inputs, h0), first=first)

    def _start(self, inputs: Inputs, h0: State | None) -> tuple[Inputs, State]:
        """The inputs and the first state, as the cell takes them."""
        _checks.unpacked("inputs", inputs)
        return fit(self.cell, inputs, self.initial_state(inputs.shape[-2]) if h0 is None else h0)

    def forward(self, inputs: Inputs, h0: State | None = None) -> Tensor:
        """Outputs `(t, *e, b, o)` for inputs `(t, *e, b, m)`, from the initial state or another one."""
        outputs: Tensor = self.readout(self.states(inputs, h0)[..., self.cell.readable])
        return outputs

    def loss(self, batch: Batch, h0: State | None = None) -> tuple[PerMember, PerMember]:
        """Loss and accuracy of each member, over the steps that count.

        Where the CPU kernels take cell, readout and loss, in one call, which keeps no states, and whose
        gradients are made with the loss.
        """
        inputs, h = self._start(batch.inputs, h0)
        fused = fused_loss(self.cell, self.readout, self.loss_name, batch, inputs, h, self._judge)
        if fused is not None:
            return fused
        return self.score(batch, unroll(self.cell, inputs, h, first=batch.first if self._stepwise else 0))

    def score(self, batch: Batch, states: LastStates) -> tuple[PerMember, PerMember]:
        """Loss and accuracy of each member, from all its states on this batch.

        Those since `batch.first` will do where the readout reads each step by itself. The accuracy of bits
        and classes is the share that is right; of numbers, the share of their variance that is explained, of
        all outputs, steps and trajectories as one set, so that means of outputs which differ count as
        variance; -inf where they do not vary.
        """
        first = batch.first
        targets = batch.targets[first:]
        # states may be those of all steps, or of those since `first`: counted from the end they agree. What
        # does not count is not read out, unless the readout may remember it
        read = states[-len(targets) :] if self._stepwise else states
        if batch.lengths is not None:
            # 0 times what overflows in the padding would be NaN
            steps = real(batch.lengths, batch.targets.shape[:-1])[-len(read) :]
            read = torch.where(steps.unsqueeze(-1), read, 0.0)
        return self._judge(batch, self.readout(read[..., self.cell.readable])[-len(targets) :])

    def _judge(self, batch: Batch, outputs: Tensor) -> tuple[PerMember, PerMember]:
        """The same from outputs of the steps since `batch.first`."""
        first, targets = batch.first, batch.targets[batch.first :]
        if self.loss_name == "cross_entropy" and targets.shape == outputs.shape != (*targets.shape[:-1], 1):
            targets = targets.argmax(-1, keepdim=True)
        if self.loss_name == "cross_entropy":
            # what does not count may be marked by a number that is no class
            targets = torch.where(batch.counts[first:].unsqueeze(-1), targets, 0)
        self._check_outputs(outputs, targets)
        mask = batch.counts[first:].unsqueeze(-1).to(outputs.dtype).expand_as(targets)

        mean = partial(mean_of, counts=mask, dims=(0, -2, -1))
        error = mean(LOSSES[self.loss_name](outputs, targets))
        # d sqrt(e) = de / (2 sqrt(e)) has no value at 0, which a batch that is answered perfectly reaches
        rooted = self.loss_name == "root_mean_square"
        loss = error.clamp_min(torch.finfo(error.dtype).tiny).sqrt() if rooted else error
        with torch.no_grad():
            if self.loss_name in RIGHT:
                return loss, mean(RIGHT[self.loss_name](outputs, targets).to(outputs.dtype))
            # 1 - <(z - y)^2> / var y: 0 for an answer that is always the mean, 1 for a perfect one
            exact = targets.double()
            square = mean(exact.square())
            variance = square - mean(exact).square()
            # of targets that do not vary round-off is left, of either sign
            variance = torch.where(variance <= CONSTANT * square, 0.0, variance)
            explained = (1 - error / variance).to(error.dtype)
            # a perfect answer to constant targets is 0 / 0
            return loss, explained.masked_fill_(explained.isnan() & ~error.isnan(), -torch.inf)

    @property
    def _stepwise(self) -> bool:
        """Whether the readout is known to read each step by itself; leaky neurons and filters do not."""
        return type(self.readout) in (Readout, nn.Linear, nn.Identity)

    def _check_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        expected = tuple(targets.shape)
        if self.loss_name == "cross_entropy":
            # targets are the numbers of classes
            expected = (*expected[:-1], outputs.shape[-1])
            count = outputs.shape[-1]
            if targets.shape[-1] != 1 or (_checks.can_look() and not _classes(targets, count)):
                low, high = targets.aminmax()
                raise ValueError(
                    f"cross_entropy needs one class as target, a whole number in 0..{count - 1}, got "
                    f"{targets.shape[-1]} targets from {low:g} to {high:g}; steps to be ignored are those "
                    "where the mask is False"
                )
        if tuple(outputs.shape) != expected:
            raise ValueError(
                f"the readout must answer like the targets, {expected}, got {tuple(outputs.shape)}"
            )

    def of_members(self) -> dict[str, Tensor]:
        """Views `(*e, ...)` of what holds one thing for each member, by name, as cell and readout declare it.

        Raises:
            ValueError: for what has the dimensions of the ensemble in front while nobody declared them.
        """
        own = {} if self.h0 is None else {"h0": self.h0}
        own |= of_members(self.cell, self.ensemble, "cell.")
        return own | of_members(self.readout, self.ensemble, "readout.")

    def select(self, who: Tensor) -> Model:
        """A copy with the members where the bool mask `*e` is true, as an ensemble `(count,)`.

        Raises:
            ValueError: as `of_members`, and for a parameter to be trained that all members share.
        """
        ensemble, copied = self.ensemble, copy.deepcopy(self)
        own, named = copied.of_members(), {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
        for name, tensor in named.items():
            if name in own:
                # the parameter stays the object that modules know, with the numbers of fewer members
                tensor.data = own[name].detach()[who]
            elif tensor.requires_grad and isinstance(tensor, nn.Parameter):
                raise shared_parameter(f"parameter {name}", tensor, ensemble)
        module: Any
        for module in copied.modules():
            if module is not copied and getattr(module, "ensemble", None) == ensemble:
                module.ensemble = (int(who.sum()),)
        return copied

    @torch.no_grad()
    def put(self, who: Tensor, selected: Model) -> None:
        """Write what became of `select(members)` back."""
        new = selected.of_members()
        named = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, view in self.of_members().items():
            # what is broadcast to members is trained by none
            if view is named.get(name):
                view[who] = new[name]


def _start(given: Any, packed: Tensor) -> Tensor:
    """An initial state as it was given, packed: a parameter if some part of it is one."""
    own = [part for part in tree_leaves(given) if isinstance(part, nn.Parameter)]
    if own and not isinstance(packed, nn.Parameter):
        return nn.Parameter(packed.detach(), any(part.requires_grad for part in own))
    if packed.requires_grad and not own:
        raise ValueError(
            "h0 must be an nn.Parameter to be trained, got a tensor with requires_grad, which training would "
            "leave as it is; pass nn.Parameter(h0), or h0.detach() for a constant"
        )
    return packed


def _classes(targets: Tensor, count: int) -> bool:
    low, high = targets.aminmax()
    return bool((low >= 0) & (high < count) & (targets == targets.long()).all())


def settled_state(
    cell: Cell,
    rows: int,
    *,
    steps: int = 100,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> nn.Parameter:
    """A trainable initial state `(*e, rows, n)`: N(0, 1), then `steps` steps without input."""
    like = next(iter(cell.tensors()), None)
    dtype, device = (None, None) if like is None else (like.dtype, like.device)
    ids, stream = ids_of(cell.ensemble, member_ids, device), Stream(seed_from(generator), "h0")
    h = stream.normal((rows, cell.state_size), member_ids=ids, dtype=dtype)
    inputs = torch.zeros(
        _checks.integer("steps", steps, 1), rows, cell.input_size, dtype=dtype, device=h.device
    )
    return nn.Parameter(settle(cell, *fit(cell, inputs, h)))
