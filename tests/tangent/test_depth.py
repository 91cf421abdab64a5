"""Exponents over depth: against products of dense Jacobians, and against autograd."""

import pytest
import torch

import lyaptorch as lt

pytestmark = pytest.mark.usefixtures("double")


class Residual(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(n, n), torch.nn.Linear(n, n)

    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(x)))


class Mixing(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def mlp(n, depth):
    return [torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.Tanh()) for _ in range(depth)]


def binary(n, depth):
    return [torch.nn.Sequential(lt.surrogates.sech2(0.7), torch.nn.Linear(n, n)) for _ in range(depth)]


def transformer(depth, **settings):
    settings = {"dropout": 0.0, "batch_first": True, **settings}
    return [torch.nn.TransformerEncoderLayer(4, 2, 8, **settings) for _ in range(depth)]


CASES = {
    "mlp": (lambda: mlp(6, 5), (6,)),
    "residual": (lambda: [Residual(6) for _ in range(5)], (6,)),
    "binary": (lambda: binary(6, 5), (6,)),
    "transformer": (lambda: transformer(3), (3, 4)),
    "transformer, norm first": (lambda: transformer(3, norm_first=True), (3, 4)),
    "transformer, evaluated": (lambda: [block.eval() for block in transformer(3, dropout=0.3)], (3, 4)),
    "functions": (lambda: [lambda x: torch.sin(2 * x), lambda x: x * x.cos()], (5,)),
}
every_case = pytest.mark.parametrize("case", CASES)


def jacobians(blocks, x):
    """The dense Jacobian of every block for one example."""
    found = []
    for block in blocks:
        n = x.numel()
        D = torch.autograd.functional.jacobian(lambda y, f=block, s=x.shape: f(y.reshape(s)), x.flatten())
        found.append(D.reshape(n, n))
        x = block(x).detach()
    return found


def dense(blocks, x, frame):
    Q, total = frame, 0
    for D in jacobians(blocks, x):
        Q, R = torch.linalg.qr(D @ Q)
        signs = R.diagonal().sign()
        Q, total = Q * signs, total + (R.diagonal() * signs).log()
    return total / len(blocks)


def parameters(blocks):
    return [p for block in blocks if isinstance(block, torch.nn.Module) for p in block.parameters()]


@every_case
def test_exponents_are_those_of_the_product_of_dense_jacobians(case):
    make, shape = CASES[case]
    blocks, x = make(), torch.randn(2, *shape)
    frame = torch.linalg.qr(torch.randn(x[0].numel(), 3)).Q
    exponents = lt.depth_spectrum(blocks, x, k=3, frame=frame).exponents
    expected = torch.stack([dense(blocks, one[None], frame) for one in x])
    assert exponents.shape == (2, 3)
    torch.testing.assert_close(exponents.detach(), expected, rtol=0, atol=1e-12)


@every_case
def test_the_gradient_is_that_of_autograd(case):
    make, shape = CASES[case]
    blocks, x = make(), torch.randn(2, *shape).requires_grad_()
    wanted = [x, *parameters(blocks)]

    def gradient(**settings):
        loss = lt.flossing_loss(lt.depth_spectrum(blocks, x, k=3, **settings).exponents, target=0.3)
        return torch.autograd.grad(loss, wanted, materialize_grads=True)

    for settings in ({}, {"checkpoint": 2}, {"interval": 2}):
        expected = gradient(backend="autograd", interval=settings.get("interval", 1))
        assert any(g.abs().max() > 0 for g in expected)
        for ours, theirs in zip(gradient(**settings), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_all_exponents_sum_to_the_mean_log_volume():
    blocks, x = [Residual(6) for _ in range(5)], torch.randn(1, 6)
    volume = sum(D.det().abs().log() for D in jacobians(blocks, x)) / 5
    assert lt.depth_spectrum(blocks, x).exponents.sum().item() == pytest.approx(volume.item(), abs=1e-12)


def test_growth_is_that_of_each_block():
    blocks = [lambda x, c=c: c * x for c in (2.0, 3.0, 0.5)]
    spectrum = lt.depth_spectrum(blocks, torch.randn(1, 4), k=2)
    expected = torch.tensor([2.0, 3.0, 0.5]).log()
    torch.testing.assert_close(spectrum.local()[:, 0, 0], expected, rtol=0, atol=1e-12)
    assert spectrum.exponents[0, 0].item() == pytest.approx(expected.mean().item())


def test_a_sequential_and_a_module_list_are_stacks():
    blocks, x = mlp(6, 4), torch.randn(2, 6)
    expected = lt.depth_spectrum(blocks, x).exponents
    for stack in (torch.nn.Sequential(*blocks), torch.nn.ModuleList(blocks), lt.cells.Depth(blocks, (6,))):
        assert torch.equal(lt.depth_spectrum(stack, x).exponents, expected)
    torch.testing.assert_close(
        lt.depth_spectrum(blocks, x).final_state, torch.nn.Sequential(*blocks)(x), rtol=0, atol=1e-14
    )


def test_a_stack_is_flossed_like_any_cell_and_a_stack_with_a_lost_gradient_gets_it_back():
    blocks, x = mlp(12, 20), torch.randn(3, 12)

    def reached():
        y = x.clone().requires_grad_()
        out = torch.nn.Sequential(*blocks)(y)
        return torch.autograd.grad(out.square().sum() ** 0.5, y)[0].norm().item()

    lost, cell = reached(), lt.cells.Depth(blocks, (12,))
    record = lt.floss(cell, cell.numbers(x), h0=x, k=6, steps=20, tangent_transient=0, epochs=40, lr=1e-2)
    assert record["floss_loss"][0, -1] < 0.1 * record["floss_loss"][0, 0]
    assert lost < 1e-3
    assert reached() > 1e3 * lost


def test_covariant_vectors_of_a_stack():
    blocks, x = mlp(6, 30), torch.randn(1, 6)
    cell = lt.cells.Depth(blocks, (6,))
    vectors = lt.covariant_vectors(cell, cell.numbers(x), h0=x, k=3)
    assert vectors.covariance_error.max() < 1e-10


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("blocks", "x", "message"),
    [
        ([], torch.zeros(1, 4), r"blocks must be a list of at least one module or function, got \[\]"),
        ([3], torch.zeros(1, 4), r"blocks must be a list .* got \[3\]; pass model.layers"),
        (torch.nn.Tanh(), torch.zeros(1, 4), r"blocks must be a list .* got Tanh\(\)"),
        ([torch.nn.Linear(4, 5)], torch.zeros(1, 4), r"step\(x, h\) must return one tensor like the state"),
        ([torch.nn.Linear(5, 5)], torch.zeros(1, 4), r"step\(x, h\) failed for x \(1, 1\) and h \(1, 4\)"),
        (
            [lambda x: torch.nn.functional.dropout(x)],
            torch.ones(1, 4),
            r"must give the same answer twice.*eval",
        ),
        ([torch.nn.Tanh(), Mixing()], torch.ones(2, 4), r"must treat trajectories independently"),
        ([torch.nn.Tanh()], torch.zeros(4), r"x must have shape \(b, \*shape\), .* got \(4,\)"),
        ([torch.nn.Tanh()], torch.zeros(0, 4), r"x must have shape \(b, \*shape\), .* got \(0, 4\)"),
        ([torch.nn.Tanh()], torch.zeros(1, 4).long(), r"x must be a floating tensor, got torch.int64"),
        ([torch.nn.Tanh()], torch.full((1, 4), torch.nan), r"x must be finite, got nan at index \(0, 0\)"),
    ],
)
def test_what_is_no_stack_is_refused(blocks, x, message):
    with pytest.raises(ValueError, match=message):
        lt.depth_spectrum(blocks, x, k=2)
