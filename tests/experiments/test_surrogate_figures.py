"""The checks of the figures of Surrogate Gradient Flossing on made-up records."""

import numpy as np
import pytest
import torch

from lyaptorch.experiments import surrogate_flossing as sf
from lyaptorch.experiments.gradient_flossing.cost import PARTS, Sizes
from lyaptorch.record import Record


def given(variables, coordinates=None):
    return Record("surrogate-flossing", {}, variables, coordinates or {})


def holds(experiment, record):
    return [check.holds for check in experiment.checks(record)]


def test_figure_1b_wants_theory_at_every_sharpness_up_to_its_limit():
    g = {"sharpness": (("group",), np.array([2.0, 5.0, 10.0, 20.0]))}

    def record(first, spectrum):
        spectra = np.full((4, 3), -1.0)
        dead = spectra.copy()
        dead[:, 2] = -np.inf
        return given(
            {
                "lambda1": (("group", "network"), np.full((4, 2), first)),
                "theory": (("group",), np.zeros(4)),
                "spectrum": (("group", "rank"), spectra + spectrum),
                "free": (("group", "rank"), dead),
                "triangle": (("group", "rank"), spectra),
            },
            g,
        )

    # first exponents at 2, 5 and 10; spectra at 2 and 5, all and most of them, without what is dead
    assert holds(sf.Fig1b(), record(0.019, 0.019)) == [True] * 7
    assert holds(sf.Fig1b(), record(-0.021, 0.03)) == [False] * 4 + [True, True, False]


def test_figure_1d_compares_shares():
    def record(active):
        return given({"active": (("step",), np.full(4, active)), "expected": (("step",), np.full(4, 0.08))})

    assert holds(sf.Fig1d(), record(0.089)) == [True]
    assert holds(sf.Fig1d(), record(0.091)) == [False]


def control(after, before=-0.49):
    groups = len(after)
    spectra = np.asarray(after)[:, None].repeat(3, 1)
    return given(
        {
            "before": (("group", "network", "rank"), np.full((groups, 3, spectra.shape[-1]), before)),
            "after": (("group", "network", "rank"), spectra),
        },
        {
            "sharpness": (("group",), np.array([0.5, 1.0][:groups])),
            "k": (("group",), np.array([1, 2][:groups])),
        },
    )


def test_figure_2_wants_the_first_exponents_at_0_and_no_others():
    assert holds(sf.Fig2a(), control([[0.04], [-0.04]])) == [True] * 3
    assert holds(sf.Fig2a(), control([[0.06], [-0.06]], before=-0.3)) == [False] * 3
    assert holds(sf.Fig2b(), control([[0.09, -1, -1, -1], [0.0, -0.09, -1, -1]])) == [True] * 4
    assert holds(sf.Fig2b(), control([[0.11, -1, -1, -1], [0.0, -0.11, 0, 0]])) == [False, True, False, False]


def test_figure_3_wants_d_18_solved_by_flossing_alone_and_gradients_to_arrive():
    def record(none, flossed, ratio):
        final = np.full((2, 2, 4), 1.0)
        final[:, 1] = none, flossed
        norms = np.ones((2, 2, 4, 5))
        norms[1] *= ratio
        return given(
            {
                "final_accuracy": (("condition", "delay", "seed"), final),
                "gradient_norm": (("condition", "delay", "seed", "measurement"), norms),
            },
            {"delay": (("delay",), np.array([14, 18]))},
        )

    assert holds(sf.Fig3(), record([0.5] * 4, [0.96, 0.95, 0.7, 0.7], 1.1e4)) == [True] * 6
    found = holds(sf.Fig3(), record([0.5, 0.5, 0.5, 0.7], [0.96, 0.7, 0.7, 0.7], 9e3))
    assert found == [True, True, False, False, False, False]


def test_figure_4_wants_round_off():
    modes = {"mode": (("mode",), np.array(["a", "b"]))}

    def record(step, product):
        return given(
            {"jacobian_error": (("mode",), np.array(step)), "product_error": (("mode",), np.array(product))},
            modes,
        )

    assert holds(sf.Fig4(), record([1e-15, 1e-14], [1e-13, 0.0])) == [True] * 4
    assert holds(sf.Fig4(), record([2e-14, 0.0], [0.0, 2e-12])) == [False, True, True, False]


def test_figures_7_and_8_want_less_scatter_with_fixed_weights():
    time = np.array([75, 150, 300, 750])
    sign = np.array([-1.0, 1.0])[:, None]

    def record(fixed, power):
        scatter = np.stack([np.full(4, 0.5), fixed * (time / 750) ** power])
        running = scatter[:, :, None, None] * sign * np.ones(3)
        return given(
            {"running": (("weights", "time", "network", "index"), running)}, {"time": (("time",), time)}
        )

    for figure in (sf.Fig7(), sf.Fig8()):
        assert holds(figure, record(0.49, -0.6)) == [True] * 3
        assert holds(figure, record(0.51, -0.3)) == [False] * 3


def test_networks_of_figure_7_share_weights_only_where_these_are_fixed():
    experiment = sf.Fig7(**sf.Fig7.scales["smoke"])
    ids = torch.tensor([[0, 1], [0, 0]])
    weights = experiment.network(ids).weight_hh
    assert torch.equal(weights[1, 0], weights[1, 1])
    assert torch.equal(weights[0, 0], weights[1, 0])
    assert (weights[0, 0] != weights[0, 1]).any()
    # realisations differ by more than their weights, and those of number 0 do not differ at all
    running = experiment.record(False)["running"]
    assert (running[1, :, 0] != running[1, :, 1]).any()
    np.testing.assert_array_equal(running[0, :, 0], running[1, :, 0])


def test_table_1_measures_spiking_networks():
    """Of n numbers of state, two for each neuron; the share of flossing is that of the spiking figure."""
    table, sizes = sf.Table1(), Sizes(6, b=2, t=5, k=3, interval=2)
    for part in ("RNN", "flossing"):
        assert [tuple(g.shape) for g in PARTS[part](table.network, sizes)()] == [(3, 3), (3, 1)]
    after, pushed = PARTS["Jacobian"](table.network, sizes)()
    assert (after.shape, pushed.shape) == ((2, 6), (2, 6, 3))
    assert (table.task_epochs, table.floss_epochs) == (sf.Spiking().epochs, sf.Spiking().floss_epochs)
    share = given(
        {"power": (("row",), np.ones(1)), "theory": (("row",), np.ones(1))}
        | {"step_seconds": (("step",), np.ones(2))}
        | {name: ((), np.float64(1)) for name in ("flossing_epoch", "task_epoch")},
        {"part": (("row",), np.array(["QR"])), "doubled": (("row",), np.array(["n"]))},
    )
    (check,) = (check for check in table.checks(share) if check.key == "share")
    assert check.measured == pytest.approx(300 / 1800)
    # that of 10 000 task steps is smaller
    assert check.expected == 0.1


def test_the_copy_of_appendix_c_wants_a_longer_delay_with_flossing():
    def record(none, flossed):
        final = np.array([none, flossed])[..., None].repeat(3, -1)
        return given(
            {"final_accuracy": (("condition", "delay", "seed"), final)},
            {"delay": (("delay",), np.array([4, 6, 8]))},
        )

    assert holds(sf.AppCCopy(), record([1.0, 0.7, 0.5], [1.0, 0.96, 0.5])) == [True] * 3
    assert holds(sf.AppCCopy(), record([1.0, 0.7, 0.5], [1.0, 0.94, 0.5])) == [False, True, True]
    assert holds(sf.AppCCopy(), record([0.6, 0.6, 0.6], [0.5, 0.5, 0.5])) == [False] * 3


def test_appendices_f_and_g_want_slopes_within_two_standard_errors():
    horizon = np.array([10, 20, 30])
    scatter = np.array([-0.01, 0.0, 0.01, 0.0])

    def record(name, expected, offset):
        slopes = -0.3 + offset + scatter
        return given(
            {
                name: (("group", "network", "horizon"), (slopes[:, None] * horizon)[None]),
                expected: (("group", "network"), np.full((1, 4), -0.3)),
            },
            {"sharpness": (("group",), np.array([1.0])), "horizon": (("horizon",), horizon)},
        )

    # the standard error of four slopes is 0.0041
    for figure, names in ((sf.AppF(), ("log_norm", "lambda1")), (sf.AppG(), ("log_kappa", "spread"))):
        assert holds(figure, record(*names, 0.008)) == [True]
        assert holds(figure, record(*names, -0.009)) == [False]


def test_limits_g_wants_the_copy_without_the_xor():
    def record(sharpness, copy, xor):
        curve = np.ones((2, 3, 60))
        return given(
            {
                "sharpness": (("condition", "seed"), np.array([[1.0] * 3, [sharpness] * 3])),
                "copy": (("condition", "seed", "epoch"), curve * copy),
                "xor": (("condition", "seed", "epoch"), curve * np.array(xor)[:, None, None]),
            }
        )

    assert holds(sf.LimitsG(), record(0.3, 1.0, [1.0, 0.5])) == [True] * 4
    assert holds(sf.LimitsG(), record(0.6, 0.9, [0.9, 0.9])) == [False] * 4


def test_spiking_wants_the_xor_solved_by_flossing_alone():
    def record(none, flossed, patterns):
        dims = ("condition", "seed")
        given_patterns = np.array([[0.5] * 2, [0.3] * 2, [patterns] * 2])
        return given(
            {
                "xor9_final": (dims, np.array([none, flossed, flossed])),
                "poisson_final": (dims, given_patterns),
                "latency_final": (dims, given_patterns),
            }
        )

    spiking = sf.Spiking(delays=(5, 9))
    assert holds(spiking, record([0.5, 0.6], [0.95, 1.0], 0.5)) == [True] * 6
    assert holds(spiking, record([0.8, 0.9], [0.6, 1.0], 0.4)) == [False] * 6
