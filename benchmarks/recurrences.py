"""Exponents of a gated delta rule beside a loop over dense Jacobians; a leaky network beside a rate network.

    python benchmarks/recurrences.py

The delta rule has 4 heads of 16 x 16, 1 024 numbers, and k = 16. The loop forms D by reverse mode and factors
D Q at every step; it takes few steps, the library a thousand, and both are told per step, with the growth of
the first vector over the same steps. The networks have 80 units: spectra, a flossing gradient, and epochs of
training. Times are the least of several rounds, taken in turn, in the time of the thread.
"""

from __future__ import annotations

import time

import torch

import lyaptorch as lt

STEPS, FEW, K = 1000, 5, 16


def dense_loop(cell, inputs, Q):
    """Sums of log R_ii of one trajectory."""
    h, total = torch.zeros(1, cell.state_size), torch.zeros(Q.shape[-1])
    for x in inputs:
        D = torch.func.jacrev(lambda h, x=x: cell.step(x, h)[0])(h)[:, 0]
        Q, R = torch.linalg.qr(D @ Q)
        total += R.diagonal().abs().log()
        h = cell.step(x, h)
    return total


def least(calls, rounds):
    """Seconds of each call: the least over rounds in turn."""
    found = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            begin = time.thread_time()
            call()
            found[i] = min(found[i], time.thread_time() - begin)
    return found


@torch.no_grad()
def delta(rounds=2):
    """Seconds a step of the loop, of the library, and of the library with a frame of all rows."""
    cell = lt.cells.DeltaCell(16, 4, 16, 16)
    inputs = torch.randn(STEPS, 1, 16, generator=torch.Generator().manual_seed(1))
    frame = lt.lyapunov_spectrum(cell, inputs[:1], k=K).final_frame[0]
    found = lt.lyapunov_spectrum(cell, inputs[1 : FEW + 1], k=K, frame=frame).exponents[0, 0] * FEW
    print(f"log R_11 of {FEW} steps {dense_loop(cell, inputs[1 : FEW + 1], frame)[0]:.5f} {found:.5f}")
    calls = (
        lambda: dense_loop(cell, inputs[:FEW], frame),
        lambda: lt.lyapunov_spectrum(cell, inputs, k=K),
        lambda: lt.lyapunov_spectrum(cell, inputs, k=K, frame=frame),
    )
    seconds = least(calls, rounds)
    return [s / steps for s, steps in zip(seconds, (FEW, STEPS, STEPS), strict=True)]


def networks(rounds=20):
    """Seconds of a rate and of a leaky network, by what is done."""
    x = torch.randn(300, 1, 1, generator=torch.Generator().manual_seed(1))
    cells = lt.RateCell(1, 80, gain=1.5), lt.LeakyRateCell(1, 80, leak=0.5, gain=1.5)

    def spectrum(cell, k):
        with torch.no_grad():
            lt.lyapunov_spectrum(cell, x, k=k)

    def gradient(cell):
        lt.flossing_loss(lt.lyapunov_spectrum(cell, x[:55], k=75, dt=1.0).exponents).backward()

    task, epochs = lt.tasks.TemporalXOR(20), 6

    def train(cell):
        model = lt.Model(cell, lt.Readout(80, 1))
        lt.train(model, task, (lt.FitPhase(epochs),), batch=16, steps=300, show_progress=False)

    does = {
        "spectrum k 16": lambda cell: spectrum(cell, 16),
        "spectrum k 75": lambda cell: spectrum(cell, 75),
        "gradient k 75": gradient,
        "epochs of training": train,
    }
    return {
        name: least([lambda c=c, do=do: do(c) for c in cells], 5 if do is train else rounds)
        for name, do in does.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop, library, full = delta()
    print(f"delta rule: dense loop {1e3 * loop:.2f} ms a step")
    print(f"lyaptorch {1e3 * library:.3f} ms, x {loop / library:.0f}")
    print(f"with a frame of all rows {1e3 * full:.3f} ms, x {loop / full:.0f}")
    for name, (rate, leaky) in networks().items():
        print(f"{name:20} rate {1e3 * rate:8.2f} ms, leaky {1e3 * leaky:8.2f} ms, ratio {leaky / rate:.3f}")
