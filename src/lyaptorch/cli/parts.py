"""Figures at paper scale: parts are made in any order, and a figure is gathered from what is there."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro
from rich.console import RenderableType

from lyaptorch._brief import counted
from lyaptorch.cli.figures import UNITS, other_seed, rough_seconds, seed_of
from lyaptorch.cli.output import Output, Work, draw
from lyaptorch.cli.tables import check_table, seeds_table, tabulated
from lyaptorch.experiments import FIGURES, Check
from lyaptorch.experiments.figure import SCALES, Figure
from lyaptorch.experiments.over_seeds import OverSeeds, over_seeds
from lyaptorch.experiments.parts import SEEDS, Coverage, completed, coverage, gathered, name_of, networks_of
from lyaptorch.experiments.recorded import as_recorded, gathered_checks
from lyaptorch.experiments.store import Store
from lyaptorch.experiments.thinning import restored
from lyaptorch.plots.pages import duration
from lyaptorch.record import Record
from lyaptorch.sweep import Group, Processes, Serial, Workers

PAPER = SCALES[-1]
"""The scale of which figures are cut into parts."""
FEW = 8
"""Missing parts that are named in a line."""
LONG = 4 * 3600.0
"""Seconds from which on a figure that is not cut is made with one seed instead of `SEEDS`."""


@dataclass(frozen=True)
class Parts:
    """Of paper scale, where figures are cut into parts that are made one by one.

    Attributes:
        records: Folder of finished parts; RUNS/records when missing.
        budget: Time limit, such as 2h or 30min: a part starts only if it should finish within it.
        gather: Compute nothing: draw and check the figure from finished parts, and list missing ones.
    """

    records: Path | None = None
    budget: str = ""
    gather: bool = False

    def folder(self, output: Output) -> Path:
        """That of finished parts."""
        return output.runs / "records" if self.records is None else self.records

    def seconds(self) -> float:
        """Those that there are."""
        if not self.budget:
            return float("inf")
        found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(day|h|min|s)", self.budget.strip())
        if found is None:
            raise ValueError(f"budget must be a time such as 2h or 30min, got {self.budget!r}; correct it")
        return float(found[1]) * UNITS[found[2]]


PartsOptions: TypeAlias = Annotated[Parts, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class PaperOrder:
    """What is to be made at paper scale.

    Attributes:
        folder: of finished parts.
        seed: of networks and batches; each figure's own when None.
        seeds: networks at each point, or seeds of a figure that is not cut; the paper's when None.
        work: how.
    """

    folder: Path
    seed: int | None
    seeds: int | None
    work: Work

    def figure(self, paper: str, name: str) -> Figure:
        """A figure at paper scale."""
        chosen = FIGURES[paper][name]
        return chosen(**{**chosen.scales.get(PAPER, {}), "seed": seed_of(paper, name, self.seed)})

    def store(self, paper: str, name: str) -> Store:
        """Where the parts are from which a figure is made."""
        measured, seeds = self.figure(paper, FIGURES[paper][name].measured_by), self.seeds
        if seeds is None and not measured.cut:
            seeds = SEEDS if rough_seconds(measured.costs()[PAPER]) < LONG else 1
        return Store.below(self.folder, measured, seeds)

    def called(self, paper: str, name: str) -> str:
        """What the files of the figure are called: of other networks than the paper's they are others."""
        usual, own = (order.store(paper, name).figure for order in (replace(self, seeds=None), self))
        other = "" if usual == own else f"-seeds{self.seeds}"
        return f"{paper}-{name}-{PAPER}{other_seed(paper, name, self.seed)}{other}"


def refuse_seeds(paper: str, name: str, order: PaperOrder) -> None:
    """Raise if a figure has one network at each point, however many are asked for."""
    figure = order.figure(paper, FIGURES[paper][name].measured_by)
    if figure.cut and networks_of(figure) is None:
        raise ValueError(
            f"{paper} {name} has one network at each point, got --seeds {order.seeds}; drop it, or give "
            "another --seed"
        )


def make_parts(
    figures: Sequence[tuple[str, str]], order: PaperOrder, budget: float, workers: int
) -> dict[str, Any]:
    """Make the parts that are missing while there is time; return what was made, and why others were not."""
    deadline, groups, work = time.time() + budget, [], 0.0
    # figures that are made from the same parts make them once
    stores = {store.folder: store for store in (order.store(*name) for name in figures)}
    for store in stores.values():
        said(order, *(f"refused: {why}" for why in store.look()[1].values()))
        for part in store.missing():
            work += seconds_of(store, part)
            config = {
                "paper": part.paper,
                "figure": part.figure,
                "fields": asdict(part),
                "deadline": deadline,
            }
            groups.append(Group((config,), (f"{part.paper} {part.figure} {name_of(part)}",)))
    about = f", about {duration(work)} of one core" if groups else ""
    said(order, f"{counted(len(groups), 'part')} to make{about}")
    done: dict[str, Any] = {"made": [], "failed": {}, "no_time": [], "elsewhere": []}
    pool: Workers = Serial() if workers == 1 else Processes(workers)
    # bars of several processes would write over each other
    shown = order.work.show_progress if workers == 1 else False
    for group, result in pool.execute(functools.partial(_work, order, shown), groups):
        (name,) = group.ids
        if isinstance(result, Exception):
            done["failed"][name] = " ".join([type(result).__name__ + ":", *str(result).splitlines()[:1]])
            said(order, f"{name}: {done['failed'][name]}")
        elif result is None:
            done["no_time"].append(name)
        elif result:
            done["made"].append(name)
            said(order, f"{len(done['made'])}/{len(groups)} {name}: {duration(result)}")
        else:
            done["elsewhere"].append(name)
            said(order, f"{name}: another process is at it")
    if done["no_time"]:
        said(order, f"{counted(len(done['no_time']), 'part')} would not fit into the budget")
    return done


def said(order: PaperOrder, *lines: str) -> None:
    """Print at once, as a line may be the last for an hour."""
    for line in lines:
        if order.work.talks:
            print(line, flush=True)


def seconds_of(store: Store, part: Figure) -> float:
    """What a part will take, on one core."""
    return store.seconds(part, rough_seconds(part.costs()[PAPER]))


def _work(order: PaperOrder, shown: bool | None, group: Group) -> float | None:
    """Make a part: its seconds, 0 where another process is at it, None where there is no time."""
    config = dict(group.configs[0])
    paper, name = config["paper"], config["figure"]
    order.work.prepare()
    store, part = order.store(paper, name), FIGURES[paper][name](**config["fields"])
    start = time.time()
    if start + seconds_of(store, part) > config["deadline"]:
        return None
    made = store.make(part, shown)
    return 0.0 if made is None else max(time.time() - start, 1e-3)


def gather(paper: str, name: str, order: PaperOrder) -> tuple[dict[str, Any], list[RenderableType]]:
    """Draw and check what is there of a figure; return it for a script, and as tables and lines."""
    store, chosen, title = order.store(paper, name), order.figure(paper, name), f"{paper} {name}"
    records, refused = store.look()
    if not records:
        why = "".join(f"; {reason}" for reason in refused.values())
        raise ValueError(f"no part of {title} is in {store.folder}; make some without --gather{why}")
    record, runs = checked(chosen, store, records)
    path = record.save(order.work.runs / f"{order.called(paper, name)}.nc")
    files = {"record": str(path), "figure": str(draw(record, path))}
    heading = f"{title}, {PAPER} scale"
    checks: Sequence[Check | OverSeeds]
    if chosen.cut:
        checks, table = runs[0], check_table(heading, runs[0])
    else:
        checks = told = over_seeds(runs)
        table = seeds_table(heading, told)
    there, todo = coverage(store.figure, records, store.seeds), list(map(name_of, store.missing()))
    called = {point: ", ".join(map(str, point)) or "all" for point in there.seeds}
    points = {called[at]: len(own) for at, own in there.seeds.items() if at not in there.left_out}
    left_out = [name for at, name in called.items() if at in there.left_out]
    rows = [(point, f"{number} of {there.of}") for point, number in points.items() if number]
    rows += [(point, "left out") for point in left_out]
    if empty := list(points.values()).count(0):
        rows.append((counted(empty, "other point"), "none"))
    along = ", ".join(a.field for a in store.figure.cut if a != networks_of(store.figure)) or "at"
    lines = [f"refused: {why}" for why in refused.values()]
    # of hundreds the names of some say how they are called; JSON has all
    more = f" and {len(todo) - FEW} more" * (len(todo) > FEW)
    lines += [f"missing {counted(len(todo), 'part')}: {', '.join(todo[:FEW])}{more}"] if todo else []
    lines += [f"{what.capitalize()} {file}" for what, file in files.items()]
    facts = {
        "checks": [check.facts() for check in checks],
        "gathered": {"seeds": there.common, "of": there.of},
    }
    facts |= {
        "seeds": points,
        "left_out": left_out,
        "missing": todo,
        "refused": list(refused.values()),
        **files,
    }
    return facts, [table, tabulated((along, "networks"), rows, words=(along,)), *lines]


def checked(chosen: Figure, store: Store, records: Sequence[Record]) -> tuple[Record, list[list[Check]]]:
    """The Record of a figure from what is there of its parts, and the checks of each of its runs.

    One that is cut is a single run of all its networks, another one a run for each seed.
    """
    record = completed(chosen, gathered(store.figure, records))
    if chosen.cut:
        return record, [gathered_checks(record, chosen)]
    wholes = [completed(chosen, restored(raw)) for raw in records]
    return record, [as_recorded(whole, type(chosen)).checks(whole) for whole in wholes]


def reproduce_parts(
    figures: Sequence[tuple[str, str]], order: PaperOrder, parts: Parts, workers: int
) -> None:
    """Make what is missing of figures, unless only gathering is asked for; gather those that are there."""
    facts: dict[str, Any] = {}
    if not parts.gather:
        facts = make_parts(figures, order, parts.seconds(), workers)
    answers, shown, left = [], [], []
    for paper, name in figures:
        store = order.store(paper, name)
        todo = store.missing()
        # of several figures those are left out that have no part; one that is asked for by name is refused
        if not todo or (parts.gather and (len(figures) == 1 or store.look()[0])):
            try:
                answer, tables = gather(paper, name, order)
            except ValueError as error:
                # of several figures one that cannot be gathered keeps none of the others
                if len(figures) == 1:
                    raise
                left.append(f"{paper} {name}: {error}")
                continue
            answers.append({"paper": paper, "name": name, **answer})
            shown += tables
        else:
            left.append(f"{paper} {name} lacks {counted(len(todo), 'part')}")
    told = answers[0] if len(figures) == 1 and answers else {"figures": answers}
    facts |= {"left": left} if len(figures) > 1 else {}
    order.work.answer({**facts, **told}, [*shown, *left])
    if failed := facts.get("failed"):
        raise ValueError(f"{counted(len(failed), 'part')} failed, the others are saved: {', '.join(failed)}")


def coverage_of(paper: str, name: str, order: PaperOrder) -> tuple[Coverage, dict[Path, str]]:
    """How much of a figure is there, and why other Records among its parts are refused."""
    store = order.store(paper, name)
    records, refused = store.look()
    return coverage(store.figure, records, store.seeds), refused
