"""Flossing in transformers: `Trainer(..., callbacks=[FlossingCallback(flosser)])`."""

from __future__ import annotations

from typing import Any

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        f"FlossingCallback needs transformers, got: {error}; pip install lyaptorch[transformers]"
    ) from error

from lyaptorch.integrations.callback import Following

__all__ = ["FlossingCallback"]


class FlossingCallback(Following, TrainerCallback):
    """Flosses before and while a transformers Trainer trains.

    Its epochs are the trainer's `global_step`, so a run that resumes is not flossed again; conditions may
    look at whatever the trainer logs. What is logged of flossing, `floss_loss` and first, middle and last
    exponent, goes into the trainer's `state.log_history`.

    Args:
        flosser: of the recurrent part of the model.
        log_every: optimiser steps between two measurements of the first `k` exponents; 0 for none.
        k: how many are measured.

    Example:
        >>> import torch, lyaptorch as lt
        >>> rnn = torch.nn.RNN(1, 16)
        >>> trigger = lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(500, k=8))
        >>> flosser = lt.integrations.Flosser(rnn, torch.randn(60, 8, 1), [trigger])
        >>> callbacks = [FlossingCallback(flosser)]
    """

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Floss before the first batch of an optimiser step."""
        logged = {name: value for entry in state.log_history for name, value in entry.items()}
        if row := self.follow(state.global_step, logged):
            state.log_history.append({"step": state.global_step, **row})
