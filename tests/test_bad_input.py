"""Every refusal says what came, what was expected, and what to do."""

import pytest
import torch

import lyaptorch as lt
from cases import M, N
from reference import random_frame

pytestmark = pytest.mark.usefixtures("double", "unchecked")


def run(cell=None, inputs=None, **settings):
    cell = lt.RateCell(M, N) if cell is None else cell
    return lt.lyapunov_spectrum(cell, torch.zeros(10, 2, M) if inputs is None else inputs, **settings)


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64)


EYE = torch.eye(4, dtype=torch.float64)


def poisoned(value, *shape):
    x = zeros(*shape)
    x[..., 0] = value
    return x


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, r"k must be an integer in 1\.\.4, got 0; a state of size 4 has 4 exponents"),
        ({"k": 5}, r"k must be an integer in 1\.\.4, got 5; a state of size 4"),
        ({"k": 2.0}, r"k must be an integer in 1\.\.4, got 2\.0"),
        ({"k": True}, r"k must be an integer in 1\.\.4, got True"),
        ({"k": "2"}, r"k must be an integer in 1\.\.4, got '2'"),
        ({"interval": 0}, r"interval must be an integer >= 1, got 0"),
        ({"interval": 1.5}, r"interval must be an integer >= 1, got 1\.5"),
        ({"transient": -1}, r"transient must be an integer >= 0, got -1"),
        ({"tangent_transient": -2}, r"tangent_transient must be an integer >= 0, got -2"),
        (
            {"transient": 10},
            r"at least 1 counted step, got t=10 for 10 \+ 0 \+ 1; pass more inputs or shorten",
        ),
        ({"transient": 4, "tangent_transient": 6}, r"got t=10 for 4 \+ 6 \+ 1; pass more inputs"),
        ({"dt": 0.0}, r"dt must be a finite number above 0, got 0\.0"),
        ({"dt": -1.0}, r"dt must be a finite number above 0, got -1\.0"),
        ({"dt": float("nan")}, r"dt must be a finite number above 0, got nan"),
        ({"checkpoint": 0}, r"checkpoint must be an integer >= 1, got 0"),
        ({"state_grad": 0}, r'state_grad must be an integer >= 1, got 0; or pass "full" or "detach"'),
        ({"state_grad": 1.5}, r"state_grad must be an integer >= 1, got 1\.5"),
        ({"state_grad": "detatch"}, r"unknown state_grad 'detatch', did you mean 'detach'\?.*full"),
        ({"backend": "autgrad"}, r"unknown backend 'autgrad', did you mean 'autograd'\?"),
        ({"backend": "cuda"}, r"unknown backend 'cuda'.* [Kk]nown: .*autograd, .*torch"),
        ({"qr_method": "house"}, r"unknown qr_method 'house', did you mean 'householder'\?"),
        ({"inputs": zeros(10, M)}, r"inputs must have shape \(t, b, m\).*got \(10, 2\); time comes first"),
        ({"inputs": zeros(10, 1, 2, M)}, r"inputs must have shape .*got \(10, 1, 2, 2\)"),
        ({"inputs": zeros(10, 2, 3)}, r"inputs must have 2 channels for this cell, got 3; the last"),
        ({"inputs": zeros(0, 2, M)}, r"at least 1 step and 1 trajectory, got shape \(0, 2, 2\)"),
        ({"inputs": zeros(10, 0, M)}, r"at least 1 step and 1 trajectory, got shape \(10, 0, 2\)"),
        (
            {"inputs": zeros(10, 2, M).long()},
            r"inputs must be a floating tensor, got torch.int64; embed token ids first",
        ),
        ({"inputs": [[0.0]]}, r"inputs must be a torch.Tensor, got list; use torch.as_tensor"),
        (
            {"inputs": zeros(10, 2, M).float()},
            r"dtype of the weights, torch.float64, got torch.float32; convert",
        ),
        ({"inputs": poisoned(torch.nan, 10, 2, M)}, r"inputs must be finite, got nan at index \(0, 0, 0\)"),
        (
            {"inputs": poisoned(torch.inf, 10, 2, M)},
            r"inputs must be finite, got inf at index .*clean the data",
        ),
        ({"h0": zeros(N)}, r"h0 must have shape \(\*e, b, n\) = \(2, 4\), got \(4,\)"),
        ({"h0": zeros(1, N)}, r"h0 must have shape \(\*e, b, n\) = \(2, 4\), got \(1, 4\)"),
        ({"h0": zeros(2, 5)}, r"h0 must have shape \(\*e, b, n\) = \(2, 4\), got \(2, 5\)"),
        ({"h0": poisoned(torch.nan, 2, N)}, r"h0 must be finite, got nan at index \(0, 0\)"),
        (
            {"h0": zeros(2, N).float()},
            r"h0 must have the dtype of the weights, torch.float64, got torch.float32",
        ),
        ({"h0": zeros(2, N).int()}, r"h0 must be a floating tensor, got torch.int32"),
        ({"h0": 0.0}, r"state of this RateCell must be one tensor \(\*e, b, n\), got a float"),
        (
            {"frame": EYE[:, :3], "k": 2},
            r"frame must have shape \(n, k\) = \(4, 2\) or .*got \(4, 3\); it has exactly k",
        ),
        ({"frame": EYE[:3, :2], "k": 2}, r"frame must have shape .*got \(3, 2\)"),
        (
            {"frame": 2 * EYE},
            r"frame must have orthonormal columns, got \|Q\^T Q - 1\| up to 3; take Q of torch.linalg.qr",
        ),
        ({"frame": zeros(4, 2) + 1, "k": 2}, r"frame must have orthonormal columns"),
        ({"frame": poisoned(torch.nan, 4, 4)}, r"frame must be finite, got nan"),
        ({"frame": EYE.float()}, r"frame must have the dtype of the state, torch.float64, got torch.float32"),
        ({"frame": "eye"}, r"frame must be a torch.Tensor, got str"),
        ({"generator": 3}, r"generator must be a torch.Generator or None, got int; use torch.Generator"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["weight_hh", "weight_ih", "bias"])
def test_weights_that_are_not_finite_are_named(name, value):
    cell = lt.RateCell(M, N)
    with torch.no_grad():
        getattr(cell, name)[1] = value
    with pytest.raises(ValueError, match=rf"{name} must be finite, got {value} at index \(1"):
        run(cell)


def test_an_ensemble_is_named_in_the_message():
    with pytest.raises(ValueError, match=r"\(t, \*e, b, m\) with \*e = \(3,\), got \(10, 2, 2, 2\)"):
        run(lt.RateCell(M, N, ensemble=(3,)), torch.zeros(10, 2, 2, M))
    with pytest.raises(ValueError, match=r"h0 must have shape \(\*e, b, n\) = \(3, 2, 4\), got \(2, 4\)"):
        run(lt.RateCell(M, N, ensemble=(3,)), h0=torch.zeros(2, N))


def test_a_function_needs_a_state_of_as_many_trajectories_as_inputs():
    with pytest.raises(
        ValueError, match=r"h0 must have shape \(\*e, b, n\) with b = 2 as in inputs, got \(3, 4\)"
    ):
        run(lambda x, h: h, h0=torch.zeros(3, N))
    with pytest.raises(
        ValueError, match=r"h0 must have the dtype of inputs, torch.float64, got torch.float32"
    ):
        run(lambda x, h: h, h0=torch.zeros(2, N).float())


@pytest.mark.parametrize("name", ["transients", "n_exponents", "tangent_transients"])
def test_a_misspelt_argument_is_an_error(name):
    with pytest.raises(TypeError, match=name):
        run(**{name: 3})


def test_what_is_no_cell_is_an_error():
    with pytest.raises(
        ValueError, match=r"as_cell takes a cell, a module, a function step\(x, h\), or a list.* got int"
    ):
        run(3)


@pytest.mark.parametrize("interval", [1, 7])
def test_a_tangent_vector_that_overflows_names_the_step(interval):
    """Without gradient, and with it."""

    def square(x, h):
        return h * h

    for h0 in (torch.full((2, 3), 3.0), torch.full((2, 3), 3.0).requires_grad_()):
        # 3^(2^9) is the last below 1e308
        with pytest.raises(FloatingPointError, match=r"after step (10|11|14) .*lower the gain or the inputs"):
            run(square, torch.zeros(20, 2, 1), h0=h0, interval=interval)


def test_a_state_that_overflows_while_its_perturbations_do_not_names_the_step():
    cell = lt.RateCell(M, N, gain=1e3, weights="orthogonal", activation="linear")
    with pytest.raises(FloatingPointError, match=r"state is not finite after step 10[0-9] .*use float64"):
        run(cell, torch.ones(300, 2, M), k=2)


def test_an_overflow_in_the_transient_is_found():
    cell = lt.RateCell(M, N, gain=1e3, weights="orthogonal", activation="linear")
    with pytest.raises(
        FloatingPointError, match=r"state is not finite after step 104 of the transient: the dyn"
    ):
        run(cell, torch.ones(300, 2, M), k=2, transient=200)


def test_a_good_frame_passes():
    frame = random_frame(N, 2)
    assert run(frame=frame, k=2).exponents.shape == (2, 2)
    assert run(frame=frame.expand(2, N, 2), k=2).exponents.shape == (2, 2)
