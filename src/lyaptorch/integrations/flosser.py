"""`Flosser`: gradient flossing in a training loop of the user's own, in one process or in several."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._caller import aside, ordinary
from lyaptorch._padded import Lengths, Padded
from lyaptorch._random import Stream, seed_from
from lyaptorch._types import Inputs
from lyaptorch._units import Clock
from lyaptorch.cells import Cell, Network, as_cell, fit, unwrap
from lyaptorch.cells.ownership import named
from lyaptorch.integrations.sequences import Placed, Sequences
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, Trigger, When, lambda1
from lyaptorch.schedules.phases import EXPONENTS
from lyaptorch.tangent import lyapunov_spectrum, mean_over_trajectories
from lyaptorch.tangent.growth import untold
from lyaptorch.tasks.batch import Draw, Source
from lyaptorch.training.floss import floss

NOT_ASKED = ("who", "penalty")
"""What of a phase `floss` does not take."""


class Flosser:
    """Flosses a network before and while somebody else trains it.

    Three lines in any loop: import it, make one, and call `step` before each training step. It changes the
    network's weights, and nothing else: gradients, optimisers, random generators and `train()` or `eval()`
    are left as they were. Every episode of flossing has an Adam of its own.

    Under `torch.distributed` all processes call `step`: the first one decides, all floss, and its weights go
    to all, so that they stay equal. Under `torch.autocast` flossing keeps the precision of the weights, a
    network in training mode is flossed as in `eval()`, without its dropout, and a compiled one as it was
    before compilation. Sharded weights are not supported.

    Args:
        network: anything that `as_cell` takes, or that wrapped by `torch.compile` or
            `DistributedDataParallel`: the recurrent part of the model.
        inputs: what drives it while it is flossed: sequences `(t, b, m)` like those it is trained on, time
            first, or a task. A PackedSequence brings its lengths.
        triggers: when, and how. `Trigger(At(0), FlossPhase(500))` flosses before the first step,
            `Trigger(Every(100), FlossPhase(50))` periodically, `Trigger(When(lambda1 > 0.2), ...)` as needed:
            all members of an ensemble as soon as the condition holds for one.
        lengths: steps of each of the sequences `(b,)`, where they differ.
        h0: initial state `(*e, b, n)`, or its parts as `as_cell` says, one row for each trajectory of a
            phase, its `batch`; zeros when missing (a function needs it).
        check_every: steps between two looks at a `When`.
        generator: seeds inputs and frames; None is a fixed seed.
        show_progress: None shows a bar on a terminal.

    Attributes:
        records: what `floss` recorded in every episode so far.

    Raises:
        ValueError: for triggers or inputs that cannot serve.

    Example:
        >>> import lyaptorch as lt
        >>> rnn = torch.nn.RNN(1, 16)
        >>> trigger = lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(5, k=4))
        >>> flosser = Flosser(rnn, torch.randn(60, 8, 1), [trigger])
        >>> [len(flosser.step()) for _ in range(3)]
        [1, 0, 0]

    Source: Gradient Flossing, section 4; Surrogate gradient flossing, section 5 (as needed).
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs | PackedSequence | Source,
        triggers: Sequence[Trigger],
        *,
        h0: Any = None,
        lengths: Lengths = None,
        check_every: int = 10,
        generator: torch.Generator | None = None,
        show_progress: bool | None = None,
    ) -> None:
        self.network, self.triggers = unwrap(network), tuple(triggers)
        self.check_every = _checks.integer("check_every", check_every, 1)
        self.records: list[Record] = []
        self.show_progress = show_progress
        self._seed, self._epoch = seed_from(generator), 0
        if isinstance(inputs, Tensor | PackedSequence):
            wait = max((trigger.phase.tangent_transient for trigger in self.triggers), default=0)
            # one that ends within a transient would have nothing to count
            self._source: Source = Sequences(inputs, lengths, longer_than=wait)
        elif lengths is not None:
            raise ValueError(
                f"lengths belong to a tensor of inputs, got a {type(inputs).__name__}; leave them out"
            )
        else:
            self._source = inputs
        # in here, as a caller in inference mode would hand on tensors that no gradient may pass
        with self._undisturbed():
            self.cell: Cell = as_cell(self.network)
            self._h0 = None if h0 is None else self.cell.pack(ordinary(h0))
        for trigger in self.triggers:
            _check(trigger)
            # unknown names are refused now
            named(self.cell, trigger.phase.named, list(self.cell.titled().values()))
            # drawn for every trigger now: sequences too short for it are found before training begins
            drawn = self._inputs(trigger.phase, "check", 0)
            if self._h0 is not None:
                with self._undisturbed():
                    fit(self.cell, drawn.inputs, self._state())

    @property
    def metrics(self) -> set[str]:
        """The names of what conditions look at, besides lambda1: `step` must be told these."""
        whens = [trigger.when for trigger in self.triggers if isinstance(trigger.when, When)]
        return {condition.metric for when in whens for condition in when.conditions} - {lambda1.name}

    def step(self, epoch: int | None = None, **metrics: float) -> list[Record]:
        """Before each training step: floss if it is time to.

        Args:
            epoch: training steps taken so far; counted from 0 when missing.
            **metrics: by name, what the conditions look at, such as `loss=0.3`; NaN where it is not known.

        Returns:
            A Record of each episode that took place.

        Raises:
            ValueError: if a metric is missing.
            FloatingPointError: if the dynamics or a gradient overflow.
        """
        epoch = self._epoch if epoch is None else _checks.integer("epoch", epoch, 0)
        if missing := self.metrics - metrics.keys():
            raise ValueError(
                f"step must be told {', '.join(sorted(missing))}, which a condition looks at, got "
                f"{', '.join(metrics) or 'nothing'}; call step({min(missing)}=...)"
            )
        done = []
        for index, trigger in enumerate(self.triggers):
            if self._fires(trigger, epoch, metrics):
                done.append(self._floss(trigger, epoch, index))
        self.records += done
        self._epoch = epoch + 1
        return done

    def exponents(self, k: int = 1) -> Tensor:
        """The first k exponents now, `(*e, k)`, measured as the first trigger flosses.

        In nats per step, or per unit of time for a `Flow`; triggers and targets are per step all the same.
        """
        phase = self.triggers[0].phase if self.triggers else FlossPhase(0)
        return Clock(self.cell.time_step).per_time(self._measured(phase, k, self._epoch))

    def _fires(self, trigger: Trigger, epoch: int, metrics: dict[str, float]) -> bool:
        due = epoch % self.check_every == 0

        def metric(name: str) -> Tensor:
            if name != lambda1.name:
                return torch.tensor(metrics[name], device="cpu")
            return self._measured(trigger.phase, 1, epoch).squeeze(-1).cpu()

        # all members are flossed together, as soon as it is time for any of them
        now = trigger.when.fires(_checks.numbers(epoch), _checks.numbers(True), due, metric).any()
        # epochs are the same in all processes; what was measured may differ by the rounding of a device
        measured = isinstance(trigger.when, When) and due
        return decided_by_first(bool(now), self._like().device) if measured else bool(now)

    def _floss(self, trigger: Trigger, epoch: int, index: int) -> Record:
        phase, source = trigger.phase, Placed(self._source, self._like())
        asked = {f.name: getattr(phase, f.name) for f in fields(phase) if f.name not in NOT_ASKED}
        with self._undisturbed():
            if trigger.action is not None:
                owner = self.network if isinstance(self.network, nn.Module) else self.cell
                trigger.action.apply(owner)
            # by trigger and epoch, not by count: a run that resumes draws what it would have drawn
            seed = Stream(self._seed, "episode").bits((), member_ids=index, epoch=epoch)
            record = floss(
                self.cell,
                source,
                **asked,
                h0=self._state(),
                generator=torch.Generator().manual_seed(int(seed)),
                show_progress=self.show_progress,
            )
            # all flossed alike, but sums may round differently: from here on all have the first one's weights
            inputs, state = fit(self.cell, self._inputs(phase, "check", 0).inputs, self._state())
            share(self.cell.leaves(inputs[0], state))
        return record

    def _measured(self, phase: FlossPhase, k: int, epoch: int) -> Tensor:
        # dt = 1: conditions and targets are per step, whatever the clock of a flow
        with self._undisturbed(), untold(), torch.no_grad():
            spectrum = lyapunov_spectrum(
                self.cell,
                self._inputs(phase, "measure", epoch),
                k=k,
                h0=self._state(),
                tangent_transient=phase.tangent_transient,
                dt=1.0,
            )
        return mean_over_trajectories(spectrum.exponents)

    def _inputs(self, phase: FlossPhase, stream: str, epoch: int) -> Padded:
        return Placed(self._source, self._like()).inputs(
            Draw(
                self._seed,
                phase.steps,
                phase.batch,
                member_ids=torch.zeros(self.cell.ensemble, dtype=torch.int64, device="cpu"),
                epoch=epoch,
                stream=stream,
            )
        )

    def _state(self) -> Tensor | None:
        return None if self._h0 is None else self._h0.to(self._like())

    def _like(self) -> Tensor:
        """A tensor of the dtype and on the device of the network."""
        return next(iter(self.cell.tensors()), torch.zeros((), device="cpu"))

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """With gradients, and without any mode of the caller's or compilation."""
        with aside((self.network,), grad=True, evaluate=True), eager():
            yield


def eager() -> AbstractContextManager[None]:
    """As if nothing were compiled; it costs a second to ask, so nothing is asked where nobody compiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _check(trigger: Trigger) -> None:
    phase = trigger.phase
    if phase.who is not None or phase.penalty != EXPONENTS:
        raise ValueError(
            f"a Flosser flosses the exponents of all of a network, got a phase with penalty "
            f"{phase.penalty!r} and members {phase.who}; these are for lt.train"
        )


def decided_by_first(decision: bool, device: torch.device) -> bool:
    """The decision of the first process, in all of them."""
    flag = torch.tensor(int(decision), device=device)
    share([flag])
    return bool(flag)


@torch.no_grad()
def share(tensors: Sequence[Tensor]) -> None:
    """Give the values of the first process to all that train the same network."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)
