import pytest
import torch
from torch import nn

from lyaptorch.training.optim import SGD, Adam, MemberOptimizer, clip
from trained import ENSEMBLES, EXACT, gradients, indices, parameters

pytestmark = pytest.mark.usefixtures("double")


def adam_of(own, ensemble, lr, betas=(0.9, 0.999), eps=1e-8):
    return MemberOptimizer(own, ensemble, lr, Adam(*betas, eps))


def torchs_adam(start, steps, index, **settings):
    """One member's parameters after the given gradients, by torch.optim.Adam."""
    own = [nn.Parameter(p[index].clone()) for p in start]
    adam = torch.optim.Adam(own, **settings)
    for step in steps:
        for p, g in zip(own, step, strict=True):
            p.grad = g[index].clone()
        adam.step()
    return [p.detach() for p in own]


def assert_members(found, start, steps, ensemble, lr, **settings):
    for index in indices(ensemble):
        rate = lr[index].item() if isinstance(lr, torch.Tensor) and lr.dim() else float(lr)
        expected = torchs_adam(start, steps, index, lr=rate, **settings)
        torch.testing.assert_close([p[index] for p in found], expected, **EXACT)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("settings", [{}, {"betas": (0.5, 0.9), "eps": 1e-2}])
def test_every_member_steps_as_torchs_adam_does(ensemble, settings):
    start, steps = parameters(ensemble), gradients(ensemble, 200)
    own = [p.clone() for p in start]
    adam = adam_of(own, ensemble, lr=1e-2, **settings)
    for step in steps:
        adam.step(step)
    assert_members(own, start, steps, ensemble, 1e-2, **settings)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_learning_rate_for_each_member(ensemble):
    start, steps, lr = parameters(ensemble), gradients(ensemble, 50), 10 ** -(1 + 3 * torch.rand(ensemble))
    own = [p.clone() for p in start]
    adam = adam_of(own, ensemble, lr=lr)
    for step in steps:
        adam.step(step)
    assert_members(own, start, steps, ensemble, lr)


def test_a_learning_rate_of_zero_leaves_a_member_as_it_was():
    start = parameters((2,))
    own = [p.clone() for p in start]
    adam_of(own, (2,), lr=torch.tensor([0.0, 1.0])).step(gradients((2,), 1)[0])
    assert all(torch.equal(p[0], q[0]) and (p[1] != q[1]).all() for p, q in zip(own, start, strict=True))


def test_parameters_change_in_place_even_with_requires_grad():
    own = [nn.Parameter(torch.ones(3))]
    adam_of(own, (), lr=0.5).step([torch.tensor([1.0, -2.0, 0.0])])
    # the first step of Adam has the size lr, whatever the gradient; a gradient of zero has none
    torch.testing.assert_close(own[0].detach(), torch.tensor([0.5, 1.5, 1.0]), rtol=0, atol=1e-8)
    assert own[0].requires_grad


def test_a_selection_goes_on_where_it_was_and_is_put_back():
    ensemble, lr = (2, 3), torch.tensor([[1e-2, 1e-3, 1e-1], [2e-2, 3e-2, 4e-2]])
    mask = torch.tensor([[True, False, True], [False, True, True]])
    start, steps = parameters(ensemble), gradients(ensemble, 15)
    own = [p.clone() for p in start]
    adam = adam_of(own, ensemble, lr=lr)
    for step in steps[:4]:
        adam.step(step)
    before = [p.clone() for p in own]

    chosen = [p[mask] for p in own]
    part = adam.select(chosen, mask)
    assert part.ensemble == (4,)
    for step in steps[4:11]:
        part.step([g[mask] for g in step])
    assert all(torch.equal(p, q) for p, q in zip(own, before, strict=True))
    adam.put(mask, part)
    for p, q in zip(own, chosen, strict=True):
        p[mask] = q

    for step in steps[11:]:
        adam.step(step)
    for index in indices(ensemble):
        seen = steps if mask[index] else steps[:4] + steps[11:]
        expected = torchs_adam(start, seen, index, lr=lr[index].item())
        torch.testing.assert_close([p[index] for p in own], expected, **EXACT)
    assert adam.count.tolist() == [[15, 8, 15], [8, 15, 15]]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("each", [False, True])
def test_each_tensor_of_each_member_is_clipped_as_torch_does(ensemble, each):
    given = gradients(ensemble, 1)[0]
    norm = 0.05 + 0.3 * torch.rand(ensemble) if each else 0.2
    clipped = clip(given, ensemble, norm)
    touched = set()
    for before, after in zip(given, clipped, strict=True):
        for index in indices(ensemble):
            limit = norm[index].item() if each and ensemble else float(norm)
            p = nn.Parameter(torch.zeros_like(before[index]))
            p.grad = before[index].clone()
            length = nn.utils.clip_grad_norm_([p], limit).item()
            touched.add(length > limit)
            # torch divides by the norm plus 1e-6
            torch.testing.assert_close(after[index], p.grad, rtol=2e-6 / limit, atol=0)
            expected = before[index] * min(1.0, limit / length)
            torch.testing.assert_close(after[index], expected, rtol=1e-14, atol=0)
    assert touched == {True, False} or not ensemble


def test_what_is_short_enough_is_not_touched_and_what_is_not_has_the_norm():
    g = torch.stack([torch.full((4,), 0.01), torch.full((4,), 100.0)])
    (clipped,) = clip([g], (2,), 0.03)
    assert torch.equal(clipped[0], g[0])
    torch.testing.assert_close(clipped[1].norm().item(), 0.03, rtol=1e-14, atol=0)


@pytest.mark.parametrize("norm", [0.03, 0.0, torch.tensor([0.0, 1.0])])
def test_zero_gradients_stay_zero(norm):
    (clipped,) = clip([torch.zeros(2, 3)], (2,), norm)
    assert torch.equal(clipped, torch.zeros(2, 3))


def test_clipping_to_zero_stops_a_member():
    (clipped,) = clip([torch.ones(2, 3)], (2,), torch.tensor([0.0, 10.0]))
    assert clipped.tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 1), (1, 3)])
def test_a_hyperparameter_of_another_shape_than_the_ensemble(shape):
    """Not even one that would broadcast: whose learning rate is it?"""
    own = [torch.zeros(2, 3, 5)]
    with pytest.raises(ValueError, match=r"lr must be a number or have the ensemble's shape \(2, 3\), got"):
        adam_of(own, (2, 3), lr=torch.ones(shape))
    with pytest.raises(ValueError, match=r"clip must be a number or have the ensemble's shape \(2, 3\), got"):
        clip(own, (2, 3), torch.ones(shape))


@pytest.mark.parametrize("lr", [0.1, torch.tensor([0.1, 0.2], dtype=torch.float64)], ids=["one", "each"])
def test_a_learning_rate_is_as_precise_as_what_it_moves(lr):
    own = [torch.zeros(2, 3, dtype=torch.float64)]
    torch.set_default_dtype(torch.float32)
    MemberOptimizer(own, (2,), lr, SGD()).step([torch.ones_like(own[0])])
    assert torch.equal(own[0], -torch.as_tensor(lr, dtype=torch.float64).expand(3, 2).mT)


def test_everything_stays_where_it_is():
    """A captured graph reads and writes the memory that it was recorded with."""
    own = [torch.nn.Parameter(torch.ones(2, 3))]
    adam = MemberOptimizer(own, (2,), 1e-3, Adam())

    def places():
        return [z.data_ptr() for z in (*own, *adam.tensors(), adam.count, adam.lr)]

    before = places()
    for lr in (2e-3, torch.tensor([3e-3, 4e-3])):
        adam.set_lr(lr)
        adam.step([torch.ones(2, 3)])
    assert places() == before
    assert adam.lr.tolist() == pytest.approx([3e-3, 4e-3])
