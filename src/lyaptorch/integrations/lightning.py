"""Flossing in Lightning: `Trainer(callbacks=[FlossingCallback(flosser)])`."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        f"FlossingCallback needs Lightning, got: {error}; pip install lyaptorch[lightning]"
    ) from error

from lyaptorch.integrations.callback import Following

__all__ = ["FlossingCallback"]


class FlossingCallback(Following, Callback):
    """Flosses before and while Lightning trains.

    Its epochs are the trainer's `global_step`, so a run that resumes is not flossed again; conditions may
    look at whatever the module logs. What is logged of flossing, `floss_loss` and first, middle and last
    exponent, goes to the trainer's loggers.

    Args:
        flosser: of the recurrent part of the module.
        log_every: optimiser steps between two measurements of the first `k` exponents; 0 for none.
        k: how many are measured.

    Example:
        >>> import lightning, torch, lyaptorch as lt
        >>> rnn = torch.nn.RNN(1, 16)
        >>> trigger = lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(500, k=8))
        >>> flosser = lt.integrations.Flosser(rnn, torch.randn(60, 8, 1), [trigger])
        >>> callbacks = [FlossingCallback(flosser)]
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Floss before the first batch of an optimiser step."""
        row = self.follow(trainer.global_step, trainer.callback_metrics)
        for logger in trainer.loggers if row else ():
            logger.log_metrics(row, trainer.global_step)
