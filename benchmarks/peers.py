"""The same exponents and their gradient by what others offer, side by side.

Times the spectrum of one Elman network (all n exponents, float64) and the gradient of a flossing loss, by

- script: what public scripts do: the Jacobian as a matrix, `torch.linalg.qr`, autograd;
- clvlib: its PyTorch backend, with the same Jacobian;
- lyapax and chaotax: compiled by JAX in their first call, which is not counted;
- pynamicalsys: compiled by Numba, likewise, without a gradient;
- lyaptorch: `backend="torch"` and, where they are there, the compiled kernels.

Those that are not installed are left out (`pip install clvlib tqdm numba lyapax chaotax pynamicalsys`). They
take maps that do not depend on time, so that the input is the same at every step. lyapax and pynamicalsys
start from a random frame, so that of their exponents after few steps the sum alone is that of the others: the
means are compared. Prints a table in Markdown, with the largest differences of exponents and of gradients:

    python benchmarks/peers.py
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lyaptorch as lt

RANDOM = "lyapax", "pynamicalsys"
"""Those that start from a random frame."""
Method = Callable[[lt.ElmanCell, Tensor, Tensor], Tensor]
Measured = tuple[Tensor, Tensor | None]
"""Exponents, and the gradient of their flossing loss by the recurrent weights, where there is one."""
Timed = Callable[[lt.ElmanCell, Tensor, Tensor, bool], Measured]


def step(W: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The next state of y' = tanh(W y + x), and its Jacobian."""
    after = torch.tanh(W @ y + x)
    return after, (1 - after.square()).unsqueeze(-1) * W


def script(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
    """Step by step, with a matrix for the Jacobian."""
    Q = torch.eye(len(y), dtype=y.dtype)
    total = torch.zeros_like(y)
    for x in inputs:
        y, D = step(cell.weight_hh, x, y)
        Q, R = torch.linalg.qr(D @ Q)
        total = total + R.diagonal().abs().log()
    return total / len(inputs)


def clvlib(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
    """clvlib, whose functions get the number of the step as a time."""
    from clvlib.pytorch import lyap_exp_from_ic

    exponents: Tensor = lyap_exp_from_ic(
        lambda s, y: step(cell.weight_hh, inputs[int(s)], y)[0],
        lambda s, y: step(cell.weight_hh, inputs[int(s)], y)[1],
        y,
        torch.arange(len(inputs) + 1, dtype=y.dtype),
        stepper="discrete",
    )[0]
    return exponents


def lyaptorch(backend: str) -> Method:
    """This library, with one of its backends."""

    def run(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
        frame = torch.eye(len(y), dtype=y.dtype)
        spec = lt.lyapunov_spectrum(cell, inputs.unsqueeze(1), h0=y[None], frame=frame, backend=backend)
        return spec.exponents[0]

    return run


def by_autograd(method: Method) -> Timed:
    """A method of PyTorch."""

    def run(cell: lt.ElmanCell, inputs: Tensor, y: Tensor, gradient: bool) -> Measured:
        with torch.set_grad_enabled(gradient):
            rates = method(cell, inputs, y)
        return rates, flossing_gradient(rates, cell) if gradient else None

    return run


def flossing_gradient(rates: Tensor, cell: lt.ElmanCell) -> Tensor:
    """Of the flossing loss by the recurrent weights."""
    return torch.autograd.grad(lt.flossing_loss(rates[None]), cell.weight_hh)[0]


def lyapax(advance: Callable[[Any], Any], y: Any, steps: int) -> Any:
    """lyapax."""
    from lyapax import lyapunov_spectrum

    return lyapunov_spectrum(advance, y, dt=1.0, n_steps=steps).exponents


def chaotax(advance: Callable[[Any], Any], y: Any, steps: int) -> Any:
    """chaotax, from the identity frame."""
    import jax
    import jax.numpy as jnp
    from chaotax import lyapunov_spectrum

    of = lyapunov_spectrum(advance, rollout_steps=steps, warmup_steps=0, discard_steps=0)
    # it computes with shapes, which is refused while it is compiled
    with jax.ensure_compile_time_eval():
        return of(y, jnp.eye(len(y)))


def by_jax(exponents: Callable[[Callable[[Any], Any], Any, int], Any]) -> Timed:
    """A method of JAX, compiled once for exponents, once for their gradient."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def loss(W: Any, x: Any, y: Any, steps: int) -> Any:
        rates = exponents(lambda h: jnp.tanh(W @ h + x), y, steps)
        # as lt.flossing_loss has it
        return jnp.mean(rates**2), rates

    only = jax.jit(lambda *z: loss(*z)[1], static_argnums=3)
    both = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)

    def run(cell: lt.ElmanCell, inputs: Tensor, y: Tensor, gradient: bool) -> Measured:
        given = *(jnp.asarray(z.detach().numpy()) for z in (cell.weight_hh, inputs[0], y)), len(inputs)
        if not gradient:
            return torch.from_numpy(np.array(only(*given))), None
        (_, rates), bar = both(*given)
        return torch.from_numpy(np.array(rates)), torch.from_numpy(np.array(bar))

    return run


def pynamicalsys(cell: lt.ElmanCell, x: Tensor) -> Timed:
    """pynamicalsys, by Householder reflections; the weights are constants of what Numba compiles."""
    from numba import njit
    from pynamicalsys import DiscreteDynamicalSystem

    W, drive = cell.weight_hh.detach().numpy(), x.numpy()

    @njit  # type: ignore[untyped-decorator]
    def advance(y: Any, parameters: Any) -> Any:
        return np.tanh(W @ y + drive)

    @njit  # type: ignore[untyped-decorator]
    def jacobian(y: Any, parameters: Any, *extra: Any) -> Any:
        return (1 - np.tanh(W @ y + drive) ** 2).reshape(-1, 1) * W

    system = DiscreteDynamicalSystem(
        mapping=advance, jacobian=jacobian, system_dimension=len(W), number_of_parameters=0
    )

    def run(cell: lt.ElmanCell, inputs: Tensor, y: Tensor, gradient: bool) -> Measured:
        return torch.from_numpy(system.lyapunov(y.numpy(), len(inputs), method="QR_HH")), None

    return run


def methods(cell: lt.ElmanCell, x: Tensor) -> dict[str, Timed]:
    """What can be timed here, by name."""
    found = {"script": by_autograd(script)}
    makes: dict[str, Callable[[], Timed]] = {
        "clvlib": lambda: by_autograd(clvlib),
        "lyapax": lambda: by_jax(lyapax),
        "chaotax": lambda: by_jax(chaotax),
        "pynamicalsys": lambda: pynamicalsys(cell, x),
    }
    for name, make in makes.items():
        if importlib.util.find_spec(name) is not None:
            found[f"{name} {version(name)}"] = make()
    found["lyaptorch, torch"] = by_autograd(lyaptorch("torch"))
    if lt.kernels.available()["cpu"].available:
        found["lyaptorch, compiled"] = by_autograd(lyaptorch("cpu"))
    return found


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    n, generator = options.n, torch.Generator().manual_seed(0)
    cell = lt.ElmanCell(n, n, gain=1.2)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(n))
        for bias in (cell.bias_hh, cell.bias_ih):
            if bias is not None:
                bias.zero_()
    x, y = torch.randn(2, n, generator=generator)
    inputs = x.expand(options.steps, n)
    found = methods(cell, x)
    expected = script(cell, inputs, y)
    slope = flossing_gradient(expected, cell)
    results = {name: method(cell, inputs, y, True) for name, method in found.items()}
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in range(options.rounds):
        for name, method in found.items():
            for gradient in (False, True)[: 1 if results[name][1] is None else 2]:
                start = time.process_time()
                method(cell, inputs, y, gradient)
                times.setdefault((name, gradient), []).append(time.process_time() - start)
    print("| method | exponents, ms | with gradient, ms | exponents differ by | gradients differ by |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (rates, bar) in results.items():
        error = rates - expected
        # from another frame their sum is the same
        error = error.mean() if name.startswith(RANDOM) else error
        values = [f"{1e3 * min(times[name, False]):.1f}", "", f"{error.abs().max():.0e}", ""]
        if bar is not None:
            values[1] = f"{1e3 * min(times[name, True]):.1f}"
            if not name.startswith(RANDOM):
                values[3] = f"{(bar - slope).norm() / slope.norm():.0e}"
        print(f"| {name} | {' | '.join(values)} |")
    print(f"\nn {n}, k {n}, t {options.steps}, float64; least processor time of {options.rounds} turns")


if __name__ == "__main__":
    main()
