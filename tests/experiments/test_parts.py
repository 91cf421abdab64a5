"""Figures cut into parts: parts equal the whole, and what is there of a figure is gathered."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from figures import NAMES
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch._files import run_path
from lyaptorch.experiments import FIGURES, thinning
from lyaptorch.experiments.parts import (
    SEEDS,
    completed,
    coverage,
    fits,
    gathered,
    labels,
    missing,
    name_of,
    own_labels,
    parts,
    with_networks,
)
from lyaptorch.experiments.recorded import gathered_checks
from lyaptorch.experiments.thinning import LARGE, MANY, POINTS, restored, stands_for, thinned
from lyaptorch.record import Record
from lyaptorch.training.metrics import floss_flops

CUT = [name for name in NAMES if FIGURES[name[0]][name[1]].cut]
FIG3C = FIGURES["gradient-flossing"]["fig3c"]
FIG4C = FIGURES["gradient-flossing"]["fig4c"]


def made_up(part, **more):
    """The Record of a part of figure 4c: accuracy tells delay and number of each network."""
    delays = np.array(part.delays, dtype=float)[None, :, None]
    networks = part.first + np.arange(part.seeds)[None, None, :]
    values = np.broadcast_to(delays + networks / 100, (3, len(part.delays), part.seeds))
    curves = values[..., None] + np.arange(part.epochs) / 1e4
    dims = ("condition", "delay", "seed")
    names = [c.name for c in part.conditions()]
    return Record(
        f"{part.paper} {part.figure}",
        {**asdict(part), **more},
        {"final_accuracy": (dims, values), "accuracy": ((*dims, "epoch"), curves)},
        {"condition": (("condition",), names), "delay": (("delay",), np.array(part.delays))},
    )


@pytest.fixture
def double():
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(kept)


# every fourth always, but for the longest; all where there is time
LONG = {("weak-coupling", name) for name in ("fig3", "fig4", "table2")}
EACH = [
    pytest.param(*c, marks=[pytest.mark.slow] if i % 4 or c in LONG else [], id=" ".join(c))
    for i, c in enumerate(CUT)
]


@pytest.mark.parametrize(("paper", "name"), EACH)
def test_parts_are_the_whole(paper, name, monkeypatch, double):
    """To round-off, which float64 tells from all else; along all dimensions at once."""
    # what is counted of a batch in an ensemble is that of its longest delay, or of its longest recording
    counted = {"floss_share": 2e-3} | ({"flops": 0.2} if name == "spoken-digits" else {})
    figure = FIGURES[paper][name]
    whole = figure(**figure.scales["smoke"])
    if paper == "gradient-flossing" and len(whole.delays) == 1:
        whole = replace(whole, delays=(2, 4))
    if getattr(whole, "seeds", 2) == 1:
        whole = replace(whole, seeds=2)
    monkeypatch.setattr(figure, "cut", tuple(along._replace(most=1) for along in figure.cut))
    pieces = parts(whole)
    assert len(pieces) > 1
    # in any order
    records = [part.raw(False) for part in reversed(pieces)]
    found, expected = gathered(whole, records), whole.raw(False)
    assert set(found) - set(expected) <= {along.dim for along in figure.cut}
    assert found.config == expected.config
    assert missing(whole, records) == []
    for key in expected:
        assert found[key].dtype == expected[key].dtype
        if key == "step_seconds":
            # a measured time
            assert found[key].shape == expected[key].shape
            continue
        if expected[key].dtype.kind == "f":
            scale = np.nanmax(np.abs(expected[key][np.isfinite(expected[key])]), initial=1e-300)
            np.testing.assert_allclose(
                found[key], expected[key], rtol=0, atol=counted.get(key, 1e-7) * scale, err_msg=key
            )
        else:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)
    # and the checks are made of it
    record = completed(whole, found)
    checks = {check.key for check in whole.checks(record)}
    assert len(checks) == len(whole.checks(record))
    # none is lost where a delay, or a residual, has no part yet
    for at, along in enumerate(figure.cut):
        for label in labels(whole, along):
            rest = [record for record in records if label not in own_labels(record, whole)[at]]
            if rest:
                some = completed(whole, gathered(whole, rest))
                assert {check.key for check in gathered_checks(some, whole)} >= checks, label


def test_parts_come_in_the_order_of_their_worth_and_have_names():
    figure = FIG4C(delays=(10, 70), seeds=6)
    assert [(p.delays, p.first, p.seeds) for p in parts(figure)] == [
        ((10,), 0, 4),
        ((70,), 0, 4),
        ((10,), 4, 2),
        ((70,), 4, 2),
    ]
    names = list(map(name_of, parts(figure)))
    assert names[0] == "seed0-network0-3-delay10"
    assert len(set(names)) == 4
    # a figure that is not cut has other seeds as its parts
    whole = FIGURES["gradient-flossing"]["fig1b"](seed=3)
    assert [p.seed for p in parts(whole)] == list(range(3, 3 + SEEDS))
    assert [name_of(p) for p in parts(whole, 2)] == ["seed3", "seed4"]


def test_of_a_part_that_grew_what_is_left_is_made():
    few, many = (FIG4C(delays=(10, 70), seeds=seeds) for seeds in (2, 5))
    records = list(map(made_up, parts(few)))
    assert missing(few, records) == []
    left = missing(many, records)
    ends = [(part.delays, part.first, part.seeds) for part in left]
    assert ends == [((10,), 2, 2), ((70,), 2, 2), ((10,), 4, 1), ((70,), 4, 1)]
    assert missing(many, [*records, *map(made_up, left)]) == []
    # and what is there of more is there of fewer
    assert missing(few, list(map(made_up, parts(many)))) == []


@pytest.mark.parametrize(("paper", "name"), CUT)
def test_every_part_has_a_file_of_its_own(paper, name, tmp_path):
    every = parts(FIGURES[paper][name]())
    paths = {run_path(tmp_path, name_of(part)) for part in every}
    assert len(paths) == len(every)


def test_a_part_fits_where_settings_agree_that_both_know():
    figure = FIG4C(delays=(10, 70), seeds=6)
    part = parts(figure)[3]
    record = made_up(part)
    assert fits(record, figure)
    assert not fits(record, replace(figure, epochs=9))
    assert not fits(record, replace(figure, seed=1))
    assert not fits(record, FIGURES["gradient-flossing"]["fig14c"](delays=(10, 70)))
    # of one that is not cut the seed tells the parts apart
    whole = FIGURES["gradient-flossing"]["fig1b"]()
    assert all(fits(Record("gradient-flossing fig1b", asdict(part), {}), whole) for part in parts(whole))
    # one that is newer or older than the figure by a setting
    assert fits(made_up(part, novel=1), figure)
    del record.config["floss_clip"]
    assert fits(record, figure)


def test_points_at_which_nothing_is_measured_do_not_count_as_there():
    figure = FIGURES["beyond"]["spoken-digits"](tasks=("frames", "4 kHz"), starts=("GRU", "LSTM"))
    records = [Record("beyond spoken-digits", asdict(part), {}) for part in parts(figure)]
    there = coverage(figure, records)
    assert (there.common, there.of, there.left_out) == (3, 3, {("4 kHz", "LSTM")})
    # they say nothing of the others
    alone = [r for r in records if r.config["tasks"] == ["4 kHz"] and r.config["starts"] == ["LSTM"]]
    assert len(alone) == 1
    assert coverage(figure, alone).common == 0
    assert coverage(figure, [r for r in records if r is not alone[0]]).common == 3
    assert not coverage(FIG4C(), [made_up(part) for part in parts(FIG4C(seeds=2))]).left_out


def test_what_is_there_is_gathered():
    figure = FIG4C(delays=(10, 40, 70), seeds=6)
    first, second, third, *others = parts(figure)
    assert missing(figure, []) == [first, second, third, *others]
    # all networks of 10 and 70, four of 40
    records = list(map(made_up, (first, second, third, others[0], others[2])))
    assert missing(figure, records) == [others[1]]
    there = coverage(figure, records)
    assert {point: len(own) for point, own in there.seeds.items()} == {(10,): 6, (40,): 4, (70,): 6}
    assert (there.common, there.of) == (4, 6)
    found = gathered(figure, records)
    assert found.config["seeds"] == 4
    assert found["final_accuracy"].shape == (3, 3, 4)
    np.testing.assert_allclose(found["final_accuracy"][0, :, 3], [10.03, 40.03, 70.03])
    # a delay without networks is left out, and counts
    found = gathered(figure, records[::2])
    assert found["delay"].tolist() == [10, 70]
    assert found["final_accuracy"].shape == (3, 2, 4)
    assert coverage(figure, records[::2]).common == 0
    # a part that is there twice, cut otherwise, counts once
    twice = made_up(replace(figure, delays=(10, 70), first=2, seeds=4))
    found = gathered(figure, [*records[::2], twice])
    assert found["final_accuracy"].shape == (3, 2, 6)
    assert found["seed"].tolist() == list(range(6))
    assert len(coverage(figure, [*records, twice]).seeds[(40,)]) == 4
    # of fewer networks than there are
    assert missing(with_networks(figure, 4), records) == []
    assert gathered(with_networks(figure, 2), records)["seed"].tolist() == [0, 1]


def test_what_has_no_network_in_common_is_refused():
    figure = FIG4C(delays=(10, 70), seeds=6)
    first, _, _, last = parts(figure)
    with pytest.raises(ValueError, match="no network is there at every point; make more of its parts"):
        gathered(figure, [made_up(first), made_up(last)])
    with pytest.raises(ValueError, match="no network is there"):
        gathered(figure, [])


def test_checks_of_points_that_are_not_there_are_not_decided():
    figure = FIG4C(delays=(10, 50, 70), seeds=4, epochs=10)
    record = gathered(figure, [made_up(part) for part in parts(figure) if part.delays != (70,)])
    expected = {
        check.key: check for check in figure.checks(gathered(figure, list(map(made_up, parts(figure)))))
    }
    found = {check.key: check for check in gathered_checks(record, figure)}
    assert found.keys() == expected.keys()
    lacking = {key for key in found if found[key].outcome == UNDECIDED}
    assert "before and during, d 70" in lacking
    assert all(found[key] == expected[key] for key in found if key.endswith("d 50"))


def test_what_is_said_of_the_whole_waits_for_all_of_it():
    """A longest delay of three that all solve is not the longest that they solve."""
    figure = FIG3C(delays=(10, 20, 30, 70), seeds=4, epochs=10)

    def made(part, none, flossed):
        values = np.array([none, flossed])[:, None, None] * np.ones((1, len(part.delays), part.seeds))
        dims = ("condition", "delay", "seed")
        variables = {
            "final_accuracy": (dims, values),
            "accuracy": ((*dims, "epoch"), np.repeat(values[..., None], 10, -1)),
        }
        axes = {
            "condition": (("condition",), ["none", "before"]),
            "delay": (("delay",), np.array(part.delays)),
        }
        return Record(f"{part.paper} {part.figure}", asdict(part), variables, axes)

    def outcome(*scores):
        few = list(zip(parts(figure), scores, strict=False))
        record = gathered(figure, [made(part, *score) for part, score in few])
        return {check.key: check.outcome for check in gathered_checks(record, figure)}

    both, one, none = (0.9, 0.9), (0.1, 0.9), (0.1, 0.1)
    assert outcome(both, both, one, none)["longest delay, ratio"] == HOLDS
    assert outcome(both, both, both, none)["longest delay, ratio"] == FAILS
    # what the last one is may change both
    assert outcome(both, both, one)["longest delay"] == UNDECIDED
    assert outcome(both, both, both)["longest delay, ratio"] == UNDECIDED


def test_parts_of_other_shapes_are_refused():
    figure = FIG4C(delays=(10, 70), seeds=4, epochs=10)
    first, second = parts(figure)
    other = made_up(replace(second, epochs=9), epochs=10)
    with pytest.raises(ValueError, match="parts must have accuracy alike"):
        gathered(figure, [made_up(first), other])
    # of an older version, which measured less
    whole = made_up(second)
    few = {name: v for name, v in whole.variables.items() if name != "accuracy"}
    older = Record(whole.kind, whole.config, few, whole.coordinates)
    with pytest.raises(ValueError, match="the same, got some without accuracy; make the older"):
        gathered(figure, [made_up(first), older])


@pytest.mark.parametrize("dim", ["epoch", "floss_epoch"])
@pytest.mark.parametrize(("epochs", "stride"), [(300, 1), (301, 2), (3001, 20), (6000, 20), (10_000, 50)])
def test_curves_are_thinned_to_means_and_held_between(epochs, stride, dim):
    rising = np.arange(2 * epochs, dtype=np.float64).reshape(2, epochs)
    rising[0, 0] = np.nan
    at = np.arange(0, epochs, 10)
    given = {
        "accuracy": (("seed", dim), rising),
        "norm": (("seed", "measurement"), np.stack([at, at]) * 1.0),
        "measured_at": (("measurement",), at),
        "final": (("seed",), np.ones(2)),
    }
    record = Record("made up", {}, given)
    thin = thinned(record)
    points = thin["accuracy"].shape[1]
    assert points == -(-epochs // stride) <= POINTS
    if stride == 1:
        assert thin == record
        return
    # without what is NaN
    np.testing.assert_allclose(thin["accuracy"][:, 0], [stride / 2, epochs + (stride - 1) / 2])
    assert thin[dim][-1] == epochs
    assert thin["norm"].shape[1] == len(thin["measured_at"]) <= POINTS
    np.testing.assert_array_equal(thin["norm"][0], thin["measured_at"])
    whole = restored(thin)
    assert whole["accuracy"].shape == record["accuracy"].shape
    assert dim not in whole
    np.testing.assert_allclose(whole["accuracy"][1, :stride], epochs + (stride - 1) / 2)
    assert np.nanmax(np.abs(whole["accuracy"][1] - record["accuracy"][1])) <= stride / 2
    np.testing.assert_array_equal(whole["final"], record["final"])
    # what is drawn says so
    assert (stands_for(whole["accuracy"]), stands_for(rising)) == (stride, 1)


def test_of_very_many_curves_fewer_points_are_kept():
    values = np.random.default_rng(0).normal(size=(200, MANY // 200 + 1))
    thin = thinned(Record("made up", {}, {"exponents": (("floss_epoch", "index"), values)}))
    np.testing.assert_allclose(thin["exponents"], values.reshape(100, 2, -1).mean(1), rtol=1e-6, atol=1e-7)
    whole = restored(thin)
    assert whole["exponents"].shape == values.shape
    assert stands_for(whole["exponents"].T) == 2
    np.testing.assert_array_equal(thin["floss_epoch"], np.arange(2, 201, 2))
    assert thinned(thin) == thin


def test_what_was_thinned_is_thinned_again_by_another_rule(monkeypatch):
    curves = np.random.default_rng(0).normal(size=(1000, 3))
    whole = Record("made up", {}, {"exponents": (("floss_epoch", "index"), curves)})
    once = thinned(whole)
    assert once["floss_epoch"][0] == 5
    monkeypatch.setattr(thinning, "MANY", 100)
    again = thinned(once)
    np.testing.assert_array_equal(again["floss_epoch"], np.arange(10, 1001, 10))
    np.testing.assert_allclose(again["exponents"], thinned(whole)["exponents"], rtol=1e-12)


def test_large_variables_are_kept_with_seven_digits():
    values = np.random.default_rng(0).normal(size=(LARGE // 100, 101))
    given = {"few": (("x",), values[0]), "many": (("y", "x"), values)}
    thin = thinned(Record("made up", {}, given))
    np.testing.assert_array_equal(thin["few"], values[0])
    assert thin["many"].dtype == np.float32
    np.testing.assert_allclose(thin["many"], values, rtol=1e-7)


def test_figures_gather_thinned_parts():
    figure = FIG4C(delays=(10, 70), seeds=4, epochs=1000)
    found = gathered(figure, [thinned(made_up(part)) for part in parts(figure)])
    assert found["accuracy"].shape == (3, 2, 4, 1000)
    np.testing.assert_allclose(found["accuracy"][0, 1, 2, :5], 70.02 + 2e-4)


@pytest.mark.parametrize(("paper", "name"), NAMES)
def test_a_figure_that_is_made_from_the_parts_of_another_has_its_settings(paper, name):
    own, other = (FIGURES[paper][n] for n in (name, FIGURES[paper][name].measured_by))
    own, other = asdict(own()), asdict(other())
    assert all(own[key] == other[key] for key in own.keys() & other.keys() - {"schedules"})
    assert FIGURES[paper][name].cut == FIGURES[paper][FIGURES[paper][name].measured_by].cut


@pytest.mark.parametrize(
    ("name", "other"),
    [("fig5", "fig7"), ("fig4d", "fig13"), ("fig9", "fig8"), ("fig1d", "fig1c"), ("fig2b", "fig2a")],
)
def test_a_figure_is_made_from_the_parts_of_another(name, other):
    """Figure 5 is half of figure 7; figure 13 measures more than figure 4d."""
    figures = FIGURES["gradient-flossing"]
    assert figures[name].measured_by == other
    smoke = {**figures[name].scales["smoke"], **({"ks": (1, 12)} if name == "fig5" else {})}
    mine = figures[name](**smoke)
    theirs = figures[other](**{k: v for k, v in smoke.items() if k in figures[other].__dataclass_fields__})
    found = completed(mine, theirs.raw(False))
    expected = mine.record(False)
    assert (found.kind, found.config) == (expected.kind, expected.config)
    for key in expected:
        if expected[key].dtype.kind == "f":
            np.testing.assert_allclose(found[key], expected[key], atol=1e-3, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], expected[key])


def test_operations_grow_with_networks_and_with_what_is_flossed():
    figure = FIG4C()
    assert figure.operations() == pytest.approx(sum(part.operations() for part in parts(figure)), rel=0.01)
    assert replace(figure, epochs=20_000).operations() > 1.5 * figure.operations()
    controls = FIGURES["gradient-flossing"]["controls"]()
    # a joint loss flosses beside every task step
    joint = controls.operations() - replace(controls, joint_weight=0.0).operations()
    networks = len(controls.delays) * controls.seeds
    assert joint == pytest.approx(networks * controls.epochs * floss_flops(80, controls.k, 55))
