"""A cell inside of another one, and the loop that a readout closes by being fed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lyaptorch._caller import aside, untouched
from lyaptorch._types import Frame, Input, State
from lyaptorch.cells.adapt import Network, as_cell
from lyaptorch.cells.adapt.skeleton import StateError, describe
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import Form, Residual, rows
from lyaptorch.cells.products import repeat_batch
from lyaptorch.cells.readout import Readout

HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class Loop(Cell):
    """A cell whose own input and state are made from those of the loop; all else is that cell's.

    Attributes:
        cell: the one inside.
    """

    ingredients = ("step", "inside")

    def __init__(self, cell: Cell, input_size: int) -> None:
        super().__init__(input_size, cell.state_size, cell.ensemble)
        self.cell, self.readable = cell, cell.readable
        self.time_step, self.advice = cell.time_step, cell.advice
        self.layered, self.alone, self.batch_first = cell.layered, cell.alone, cell.batch_first
        # products that are composed of the cell's are as good as those
        self.unproven = self.unproven or cell.unproven

    def inside(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Input and state of the cell."""
        raise NotImplementedError

    def step(self, x: Input, h: State) -> State:
        """The cell's next state."""
        return self.cell.step(*self.inside(x, h))

    def _get_name(self) -> str:
        return type(self).__name__.removeprefix("Pushed")

    def parts(self) -> dict[str, slice]:
        """Those of the cell."""
        return self.cell.parts()

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """Those of the cell."""
        return self.cell.gate_values(*self.inside(x, h))

    def pack(self, state: Any) -> Tensor:
        """As the cell."""
        return self.cell.pack(state)

    def unpack(self, h: Tensor) -> Any:
        """As the cell."""
        return self.cell.unpack(h)

    def rest(self, x: Input) -> State:
        """As the cell, whose input is zero meanwhile."""
        own = self.cell.input_size or x.shape[-1]
        return self.cell.rest(x.new_zeros(*x.shape[:-1], own))


class ClosedLoop(Loop):
    """What `closed_loop` makes."""

    channels = "those beside what is fed back, if there are any"

    def __init__(self, cell: Cell, readout: Callable[[Tensor], Tensor]) -> None:
        fed_back = _fed_back(cell, readout)
        super().__init__(cell, cell.input_size - fed_back)
        self.readout = readout
        self.unproven = self.unproven or _affine(readout) is None

    def inside(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The readout of the state and the input beside it; the state."""
        return self._beside(self._read(h), x), h

    def _read(self, h: Tensor) -> Tensor:
        y = self.readout(h[..., self.readable])
        if not isinstance(y, Tensor) or y.shape[:-1] != h.shape[:-1] or y.dtype != h.dtype:
            raise StateError(
                f"the readout of a closed loop must map the state before a step, {describe(h)}, to one row "
                f"of inputs for each trajectory, got {describe(y)}; it keeps leading dimensions and dtype"
            )
        return y

    def _beside(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.cat([y, x.expand(*y.shape[:-1], -1)], -1) if x.shape[-1] else y

    def form(self) -> Form | None:
        """The cell's form with an affine readout R h + o in it, where that is one again."""
        form, affine = self.cell.form(), _affine(self.readout)
        if not isinstance(form, Form) or affine is None or self.readable != slice(None):
            return None
        # with V = (B, U) for what is fed back and what is not, the argument of f has B (R h + o) more
        (R, o), A = affine, form.residual
        B, U = form.weight_ih.tensor_split([R.shape[-2]], -1)
        biases = form.biases if o is None else (*form.biases, (B @ o.unsqueeze(-1)).squeeze(-1))
        loop = B @ R
        if form.inner is None:
            return replace(form, weight_hh=form.weight_hh + loop, weight_ih=U, biases=biases)
        if form.outer is not None or (A is not None and A.activation is not None):
            return None
        # without f the loop is c B R h beside W g(h), and joins what passes W by
        c = form.coupling
        loop = loop if c is None else (c.unsqueeze(-1) if c.dim() else c) * loop
        bypass = Residual(loop if A is None else A.dense() + loop, "dense")
        return replace(form, weight_ih=U, biases=biases, residual=bypass)


class PushedClosedLoop(ClosedLoop):
    """The same of a cell with products of its own."""

    form = ClosedLoop.form

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q = dF/dx dR/dh Q + dF/dh Q. Cost that of the cell, and of the readout."""
        if self.unfused or self.reverse_mode:
            return super().pushforward(x, h, Q)
        affine = _affine(self.readout)
        if affine is None:
            k = Q.shape[-1]
            given, tangents = repeat_batch(h, k), Q.mT.flatten(-3, -2)
            y, moved = torch.func.jvp(self._read, (given,), (tangents,))  # type: ignore[misc]
            y, Y = (torch.unflatten(z, -2, (-1, k)) for z in (y, moved))
            y = y[..., 0, :]
        else:
            y, Y = self._read(h), rows(Q.mT[..., self.readable], affine[0].mT)
        if x.shape[-1]:
            # external channels come behind, and do not move
            Y = pad(Y, (0, x.shape[-1]))
        return self.cell.pushforward_with_input(self._beside(y, x), h, Y.mT, Q)


def closed_loop(cell: Network, readout: Callable[[Tensor], Tensor]) -> Cell:
    """A cell that feeds its readout back to itself, `h' = step([readout(h), x], h)`.

    The readout sees the state before the step, of that what `cell.output_size` says can be read. What it
    returns are the first of the cell's inputs; external channels x follow, and there may be none: then
    inputs are `(t, b, 0)`, and say how many steps are taken. A network that was driven with `u` goes on by
    itself from `h0=driven.final_state`.

    The exponents of the loop are not those of the driven network, which are the *conditional* ones: D has
    `dF/dx dR/dh` beside `dF/dh`. Those of a reservoir that was trained to forecast a system are, where it
    learned that, the system's, and others that its own forgetting adds.

    A step costs one of the cell, and O(o n) for the readout.

    Args:
        cell: anything that `as_cell` takes.
        readout: `Readout`, any module or function of states `(*e, b, n)` to inputs `(*e, b, o)`, o at most
            m; one for an ensemble has an attribute `ensemble`, as a cell has. An affine one (`Readout`,
            `torch.nn.Linear`) leaves a cell with a form one, which the compiled kernels run, where that has
            no non-linearity g inside, or no f outside.

    Returns:
        A cell of m - o inputs, with the state, parts, structure and unit of time of the one inside; both
        are parts of it, as `cell` and `readout`, and trained with it.

    Raises:
        ValueError: for a readout of another size or ensemble.

    Example:
        >>> import lyaptorch as lt
        >>> cell, readout = lt.ElmanCell(3, 50), lt.Readout(50, 2)
        >>> driven = lt.lyapunov_spectrum(cell, torch.randn(100, 1, 3), k=2)
        >>> loop = lt.closed_loop(cell, readout)
        >>> spec = lt.lyapunov_spectrum(loop, torch.randn(100, 1, 1), k=2, h0=driven.final_state)
        >>> spec.exponents.shape
        torch.Size([1, 2])

    Source: Jaeger and Haas (2004), Harnessing nonlinearity; Pathak et al. (2017), Using machine learning to
    replicate chaotic attractors and calculate Lyapunov exponents from data.
    """
    cell = as_cell(cell)
    if not callable(readout):
        raise ValueError(f"readout must be a module or a function of the state, got {describe(readout)}")
    return (ClosedLoop if type(cell).pushforward is Cell.pushforward else PushedClosedLoop)(cell, readout)


def _affine(readout: object) -> tuple[Tensor, Tensor | None] | None:
    """R `(*e, o, n)` and o `(*e, o)` of a readout R h + o; None of any other."""
    # hooks may change what comes in or out
    if type(readout) not in (Readout, nn.Linear) or any(getattr(readout, hooks) for hooks in HOOKS):
        return None
    assert isinstance(readout, Readout | nn.Linear)
    return readout.weight, readout.bias


def _fed_back(cell: Cell, readout: Callable[[Tensor], Tensor]) -> int:
    """How many inputs a readout gives; 0 where the cell knows no sizes, which come from h0 then.

    Raises:
        ValueError: for a readout that does not fit.
    """
    if not cell.state_size:
        return 0
    ensemble = getattr(readout, "ensemble", None)
    if ensemble is not None and tuple(ensemble) != cell.ensemble:
        raise ValueError(
            f"the readout must have the ensemble {cell.ensemble} of the cell, got {tuple(ensemble)}; pass "
            f"Readout(..., ensemble={cell.ensemble})"
        )
    shown, affine = cell.output_size, _affine(readout)
    if affine is not None:
        o, read = affine[0].shape[-2:]
    else:
        o, read = _tried(cell, readout), shown
    if read != shown or not 0 < o <= cell.input_size:
        raise ValueError(
            f"the readout must map the {shown} numbers that this cell shows to at most its {cell.input_size} "
            f"inputs, got {read} to {o}; make it Readout({shown}, {cell.input_size}), or fewer outputs where "
            "external inputs follow"
        )
    return o


def _tried(cell: Cell, readout: Callable[[Tensor], Tensor]) -> int:
    """The size of what a readout returns, by trying it on a state of zeros."""
    like = next(iter(cell.tensors()), torch.zeros((), device="cpu"))
    h = like.new_zeros(*cell.ensemble, 2, cell.output_size)
    watched = readout if isinstance(readout, nn.Module) else cell
    with aside((watched,), grad=False, evaluate=False), untouched(watched, h.device), torch.no_grad():
        try:
            y = readout(h)
        except Exception as error:
            raise ValueError(
                f"the readout failed on a state {tuple(h.shape)}: {error}; it must map (*e, b, "
                f"{h.shape[-1]}) to (*e, b, o)"
            ) from error
    if not isinstance(y, Tensor) or y.shape[:-1] != h.shape[:-1]:
        raise ValueError(
            f"the readout must map a state {tuple(h.shape)} to inputs {tuple(h.shape[:-1])} + (o,), got "
            f"{describe(y)}; one that reads a whole sequence has a state of its own"
        )
    return y.shape[-1]
