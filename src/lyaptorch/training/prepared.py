"""The loss of task steps together with its gradients, prepared once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import AnyForm, LIFForm, Residual
from lyaptorch.cells.gate_form import GateForm
from lyaptorch.cells.leaky_readout import LeakyReadout
from lyaptorch.cells.readout import Readout
from lyaptorch.kernels.fit import Fitting, Lesson
from lyaptorch.tasks.batch import Batch
from lyaptorch.training.fused_loss import answers_of, hooked, lesson_of, served
from lyaptorch.training.model import Model


class Differentiated(NamedTuple):
    """Loss and accuracy `(*e)` of a step, and gradients as of the parameters; overwritten by the next."""

    loss: Tensor
    accuracy: Tensor
    gradients: list[Tensor]


class _Prepared(NamedTuple):
    """What holds while nothing but numbers changes."""

    form: AnyForm | GateForm
    lesson: Lesson
    fitting: Fitting
    gradients: list[Tensor]


class PreparedLoss:
    """A model's loss and gradients without autograd, prepared once: else a third of a small network's epoch.

    Args:
        model: who learns.
        parameters: what is trained.
    """

    def __init__(self, model: Model, parameters: Sequence[Tensor]) -> None:
        self.model, self.parameters = model, list(parameters)
        self._of: tuple[Any, ...] | None = None
        self._prepared: _Prepared | None = None

    def of(self, batch: Batch) -> Differentiated | None:
        """The same, to the bit, as `Model.loss` and its gradients; None where autograd has to do it."""
        model, readout = self.model, self.model.readout
        # what has a life of its own is called, and not known
        if type(model) is not Model or not isinstance(readout, Readout | LeakyReadout) or hooked(readout):
            return None
        if batch.inputs.requires_grad or any(
            p._backward_hooks or not p.requires_grad for p in self.parameters
        ):
            return None
        if (form := served(model.cell, model.loss_name)) is None:
            return None
        now = self._facts(form, batch)
        if now != self._of:
            self._prepared, self._of = self._prepare(form, batch), now
        elif self._prepared is not None and not self._see(form, batch, self._prepared):
            return None
        if self._prepared is None:
            return None
        return Differentiated(*self._prepared.fitting.step(), self._prepared.gradients)

    def _facts(self, form: AnyForm | GateForm, batch: Batch) -> tuple[Any, ...]:
        """All that decides about the arguments, but for numbers. Tensors live as long as what is prepared."""
        readout, x = self.model.readout, batch.inputs
        # decays are computed anew for each form, and handed over with it
        decays = form.constants()[:2] if isinstance(form, LIFForm) else []
        kinds = [(z.shape, z.dtype, z.device, z.requires_grad) for z in decays]
        parts = [z for z in _parts(form) if all(z is not decay for decay in decays)]
        tensors = [*parts, self.model.h0, readout.weight, readout.bias]
        places = [(id(z), z.data_ptr(), z.requires_grad) if isinstance(z, Tensor) else id(z) for z in tensors]
        return places, kinds, x.shape, x.stride(), x.dtype, x.device, batch.targets.shape

    def _prepare(self, form: AnyForm | GateForm, batch: Batch) -> _Prepared | None:
        model, leaves, wanted = self.model, form.trained(), [id(p) for p in self.parameters]
        # of computed weights, gradients have a way to go yet; a cell's own rest may depend on the inputs
        if any(id(leaf) not in wanted for leaf in leaves) or type(model.cell).rest is not Cell.rest:
            return None
        # with all its checks
        inputs, h = model._start(batch.inputs, None)
        lesson = lesson_of(model.cell, form, model.readout, model.loss_name, batch, inputs, h)
        if lesson is None:
            return None
        if (h0 := model.h0) is not None and h0.requires_grad and h0.shape != h.shape:
            return None
        fitting = Fitting(form, lesson, h.detach(), leaves, keep=True)
        own = [h0, lesson.weight, lesson.bias, *leaves]
        pairs = zip(own, fitting.gradients(), strict=True)
        found = {id(z): g for z, g in pairs if z is not None and g is not None}
        trained = {id(z) for z in own if z is not None and z.requires_grad}
        # every parameter has one use, of its own shape
        if not fitting.steady or len(found) < len(own) - (h0 is None) or trained != set(wanted):
            return None
        return _Prepared(form, lesson, fitting, [found[i] for i in wanted])

    def _see(self, form: AnyForm | GateForm, batch: Batch, prepared: _Prepared) -> bool:
        inputs, like, loss = batch.inputs, prepared.lesson.inputs, self.model.loss_name
        _checks.finite("inputs", inputs)
        if inputs.dim() < like.dim():
            inputs = inputs.reshape(len(like), *[1] * (like.dim() - inputs.dim()), *inputs.shape[1:])
        if inputs.shape != like.shape:
            inputs = inputs.expand(like.shape)
        outputs = prepared.lesson.weight.shape[-2]
        answers = answers_of(batch, loss, tuple(like.shape[:-1]), outputs, like.dtype)
        if answers is None:
            return False
        prepared.fitting.see(form, inputs, *answers)
        return True


def _parts(form: AnyForm | GateForm) -> Iterator[Any]:
    """All tensors and functions of a form."""
    for value in vars(form).values():
        if isinstance(value, tuple):
            yield from value
        elif isinstance(value, Residual):
            yield from vars(value).values()
        else:
            yield value
