"""Members: networks in training with all that belongs to each of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch._random import member_ids
from lyaptorch._types import Number
from lyaptorch.train.model import Model
from lyaptorch.train.optim import Adam, MemberOptimizer, Rule


@dataclass
class Members:
    """An ensemble in training; every tensor has the leading dimensions `*e`.

    Attributes:
        model: the networks.
        ids: which random numbers each draws.
        optimizer: of the task.
        flosser: flossing's own, on the cell's parameters.
        epoch: task steps each has taken.
        floss_epoch: flossing steps each has taken.
    """

    model: Model
    ids: Tensor
    optimizer: MemberOptimizer
    flosser: MemberOptimizer
    epoch: Tensor
    floss_epoch: Tensor

    def select(self, mask: Tensor) -> Members:
        """A copy of the members where the bool `mask` is true, as an ensemble `(count,)`."""
        model = self.model.select(mask)
        return Members(
            model,
            self.ids[mask],
            self.optimizer.select(trainable(model), mask),
            self.flosser.select(trainable(model.cell), mask),
            self.epoch[mask],
            self.floss_epoch[mask],
        )

    def put(self, mask: Tensor, part: Members) -> None:
        """Write what became of `select(mask)` back."""
        self.model.put(mask, part.model)
        self.optimizer.put(mask, part.optimizer)
        self.flosser.put(mask, part.flosser)
        self.epoch[mask], self.floss_epoch[mask] = part.epoch, part.floss_epoch

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name, to be saved or written into."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, optimizer in (("optimizer", self.optimizer), ("flosser", self.flosser)):
            named[f"{name}.count"] = optimizer.count
            named |= {f"{name}.{i}": slot for i, slot in enumerate(optimizer.tensors())}
        return {**named, "epoch": self.epoch, "floss_epoch": self.floss_epoch}

    @torch.no_grad()
    def load(self, saved: dict[str, Tensor]) -> None:
        """Write saved tensors into these.

        Raises:
            ValueError: if a name or a shape is not as here.
        """
        known = self.tensors()
        unknown = {name for name in saved if not name.startswith(("history.", "total."))} - known.keys()
        if unknown:
            raise ValueError(f"the checkpoint holds {', '.join(sorted(unknown))}, which this model does not")
        for name, own in known.items():
            if name not in saved or saved[name].shape != own.shape or saved[name].dtype != own.dtype:
                raise ValueError(f"the checkpoint must hold {name} {tuple(own.shape)}, and does not")
            own.copy_(saved[name])


def new_members(model: Model, members: int | Tensor | None, lr: Number, rule: Rule) -> Members:
    """Members about to start.

    Raises:
        ValueError: if nothing is to be trained, or a parameter is shared by all members.
    """
    device, own = device_of(model), trainable(model)
    ids = member_ids(model.ensemble, members, device)
    if not own:
        raise ValueError("there is nothing to train: no parameter of the model has requires_grad; set it")
    for name, p in model.named_parameters():
        if p.requires_grad and tuple(p.shape[: ids.dim()]) != model.ensemble:
            raise ValueError(
                f"parameter {name} must have the leading dimensions {model.ensemble} of the ensemble, "
                f"got {tuple(p.shape)}: members that share it are not independent"
            )
    zero = torch.zeros(model.ensemble, dtype=torch.int64, device=device)
    optimizer = MemberOptimizer(own, model.ensemble, lr, rule)
    flosser = MemberOptimizer(trainable(model.cell), model.ensemble, 1e-3, Adam())
    return Members(model, ids, optimizer, flosser, zero, zero.clone())


def device_of(model: Model) -> torch.device:
    """Where a model is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def trainable(module: torch.nn.Module) -> list[Tensor]:
    """Its parameters with `requires_grad`."""
    return [p for p in module.parameters() if p.requires_grad]
