"""Exponents of a small flow, one trajectory: the library against a plain loop in numpy.

    python benchmarks/flow.py

Both integrate Lorenz-63 and its three tangent vectors with the classical Runge-Kutta method and factor at
every step; the library takes the field as a user writes it, the loop a Jacobian written by hand. Prints both
spectra, microseconds per step (the least of several rounds, taken in turn), and their ratio.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch

import lyaptorch as lt

DT, STEPS, ROUNDS = 0.01, 500, 5


def field(x, h):
    """dh/dt of Lorenz (1963), with the numbers of Python."""
    u, v, w = h.unbind(-1)
    return torch.stack([10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w], -1)


def slope(h):
    """The same in numpy."""
    u, v, w = h
    return np.array([10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w])


def jacobian(h):
    """Its derivative."""
    u, v, w = h
    return np.array([[-10.0, 10.0, 0.0], [28 - w, -1.0, -u], [v, u, -8 / 3]])


def loop(h, steps):
    """Exponents per unit of time, from the identity frame."""
    Q, total = np.eye(3), np.zeros(3)
    for _ in range(steps):
        k1, K1 = slope(h), jacobian(h) @ Q
        a = h + DT / 2 * k1
        k2, K2 = slope(a), jacobian(a) @ (Q + DT / 2 * K1)
        a = h + DT / 2 * k2
        k3, K3 = slope(a), jacobian(a) @ (Q + DT / 2 * K2)
        a = h + DT * k3
        k4, K4 = slope(a), jacobian(a) @ (Q + DT * K3)
        h = h + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        Q, R = np.linalg.qr(Q + DT / 6 * (K1 + 2 * K2 + 2 * K3 + K4))
        signs = np.sign(R.diagonal())
        Q, total = Q * signs, total + np.log(np.abs(R.diagonal()))
    return total / (steps * DT)


def library(h, steps):
    """The same by `lyapunov_spectrum`."""
    zeros, frame = torch.zeros(steps, 1, 1, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    start = torch.from_numpy(h)[None]
    return lt.lyapunov_spectrum(lt.Flow(field, dt=DT), zeros, h0=start, frame=frame).exponents[0].numpy()


def compare(steps=STEPS, rounds=ROUNDS):
    """Both spectra, and the least seconds of each over the rounds, taken in turn."""
    h, least = np.array([1.0, 2.0, 20.0]), [np.inf, np.inf]
    for _ in range(rounds):
        found = []
        for i, run in enumerate((loop, library)):
            begin = time.perf_counter()
            found.append(run(h, steps))
            least[i] = min(least[i], time.perf_counter() - begin)
    return found, least


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    spectra, seconds = compare()
    for name, exponents, taken in zip(("numpy", "lyaptorch"), spectra, seconds, strict=True):
        print(f"{name:10} {exponents}  {1e6 * taken / STEPS:8.1f} us a step")
    print(f"ratio {seconds[1] / seconds[0]:.1f}")
