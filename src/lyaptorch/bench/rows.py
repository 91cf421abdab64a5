"""Rows of a benchmark: what is timed, and what counts as work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

METHODS = ("loop", "torch", "rnn", "clvlib", "fused")
"""A plain loop with autograd, `backend="torch"`, torch's module, clvlib where installed, and this library."""
Run: TypeAlias = Callable[..., Tensor]


Kind = Literal[
    "exponents", "spectrum", "segments", "BPTT", "residual", "spiking", "train", "floss", "GRU", "LSTM"
]
EPOCHS = {"train": 1, "GRU": 3, "LSTM": 4}
"""Rows of whole epochs of training, and how many products of n x n a step of each network takes."""


@dataclass(frozen=True)
class Row:
    """One problem, forwards and, but for "spectrum" and "segments", backwards.

    Attributes:
        kind: the gradient of a flossing loss ("exponents", a rate network); a training step with Adam of
            an Elman network ("BPTT"), of a residual one ("residual") or of a spiking one ("spiking"); a whole
            epoch of `lt.train` of rate networks ("train"), GRUs or LSTMs ("GRU", "LSTM"), or of `lt.floss` of
            rate networks ("floss"); exponents alone, of an Elman network ("spectrum"), or of an LSTM of n
            units in pieces side by side ("segments").
        n: state size.
        k: exponents.
        batch: trajectories.
        steps: t.
        networks: independent ones; times are per network.
        threads: of torch and of the kernels.
    """

    kind: Kind
    n: int
    steps: int
    k: int = 0
    batch: int = 1
    networks: int = 1
    threads: int = 1

    @property
    def name(self) -> str:
        """What the row is called in tables."""
        size = f"k {self.k}" if self.k else f"batch {self.batch}"
        many = f", {self.networks} networks" if self.networks > 1 else ""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.kind} n {self.n}, {size}, t {self.steps}{many}{threads}"

    @property
    def operations(self) -> float:
        """Multiplications and additions of one network, of the products and factorisations alone.

        Of exponents 2n^2k + 2nk^2 + k^3/3 + 2n^2 a step forwards and 4n^2k + 3nk^2 + 4n^2 backwards; of a
        trajectory that is trained on 2n^2 and 4n^2; a GRU has 3 products for one, an LSTM 4, and a frame of
        2n rows.
        A QR counts at every step, and steps that are not counted in a mean count here, whatever was done.
        """
        n, k = self.n, self.k
        if not k:
            return self.steps * self.batch * 6.0 * n * n * EPOCHS.get(self.kind, 1)
        gates, rows = (4, 2 * n) if self.kind == "segments" else (1, n)
        # forwards: D Q; Q^T Q, its Cholesky factor and the triangular solve; W f(h). Backwards: the
        # cotangents of W and of Q each cost a product as large as D Q
        forwards = gates * 2 * n * n * (k + 1) + 2 * rows * k * k + k**3 / 3
        if self.kind in ("spectrum", "segments"):
            return self.steps * forwards
        return self.steps * (forwards + 4 * n * n * k + 3 * n * k * k + 4 * n * n)

    @property
    def epochs(self) -> int:
        """How many epochs are timed together, of a row whose unit is one; else 0."""
        return max(3, 24 // self.networks) if self.kind in ("floss", *EPOCHS) else 0


ROWS = (
    Row("exponents", 80, 55, k=75),
    Row("exponents", 80, 300, k=16),
    Row("exponents", 32, 300, k=32),
    Row("exponents", 128, 1000, k=32),
    Row("exponents", 512, 200, k=64),
    Row("exponents", 80, 100, k=75, networks=20, threads=2),
    Row("BPTT", 80, 300, batch=16),
    Row("residual", 100, 784, batch=128),
    Row("residual", 100, 784, batch=128, threads=2),
    Row("spiking", 80, 100, batch=16),
    *(Row("train", 80, 300, batch=16, networks=networks) for networks in (1, 8, 20, 36)),
    *(Row("floss", 80, 55, k=75, networks=networks) for networks in (1, 8, 20, 36)),
    *(
        Row(kind, n, 100, batch=16, networks=many)
        for kind in ("GRU", "LSTM")
        for n, many in ((32, 1), (32, 20), (128, 1))
    ),
    Row("spectrum", 64, 100, k=64),
    Row("segments", 128, 10_000, k=32),
)
