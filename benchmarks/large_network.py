"""What a step of a large rate network takes, with k tangent vectors: measured, and foretold.

    python benchmarks/large_network.py 1000 2000 4000 --k 16

A step costs (a + c k) n^2: it reads W once, and does 2 n^2 operations for the state and each tangent vector.
Both numbers come from the first size, with two k; the others are foretold. Least time of a few scans.
"""

import argparse
import time

import torch

import lyaptorch as lt

STEPS = 20


def seconds(n: int, k: int, rounds: int) -> float:
    """Of one step."""
    cell, inputs = lt.RateCell(1, n), torch.randn(STEPS, 1, 1)
    taken = []
    with torch.no_grad():
        for _ in range(rounds):
            start = time.thread_time()
            lt.lyapunov_spectrum(cell, inputs, k=k)
            taken.append((time.thread_time() - start) / STEPS)
    return min(taken)


def main() -> None:
    """Print a row for each size, and what 1e5 units would take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="*", default=[1000, 2000, 4000])
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, k = given.sizes[0], given.k
    few, many = seconds(first, k // 4, given.rounds), seconds(first, k, given.rounds)
    each = (many - few) / (k - k // 4) / first**2
    base = many / first**2 - each * k
    print(f"a = {base:.2e} s, c = {each:.2e} s: {2 / each / 1e9:.0f} GFLOP/s for tangent vectors")
    print("| n | foretold, ms a step | measured, ms a step |\n|---:|---:|---:|")
    for n in given.sizes:
        took = many if n == first else seconds(n, k, given.rounds)
        print(f"| {n} | {1e3 * (base + each * k) * n**2:.1f} | {1e3 * took:.1f} |", flush=True)
    for n in (10_000, 100_000):
        print(
            f"n = {n}: {(base + each * k) * n**2:.2f} s a step, {4 * n * n / 2**30:.1f} GiB for W in float32"
        )


if __name__ == "__main__":
    main()
