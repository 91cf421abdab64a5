"""A figure cut into parts, each with some of its delays and networks; the whole from what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from lyaptorch._variables import Variable
from lyaptorch.experiments.figure import Along, Figure
from lyaptorch.experiments.thinning import restored
from lyaptorch.record import Given, Record

SEEDS = 8
"""Parts, each with a seed of its own, of a figure that is not cut."""
Labels: TypeAlias = tuple[Any, ...]
"""What stands along a dimension."""


def labels(figure: Figure, along: Along) -> Labels:
    """What stands along a dimension of a figure: its delays, or the numbers of its networks."""
    value = getattr(figure, along.field)
    if isinstance(value, int):
        first: int = getattr(figure, "first", 0)
        return tuple(range(first, first + value))
    return tuple(value)


def with_labels(figure: Figure, along: Along, chosen: Sequence[Any]) -> Figure:
    """The figure with these alone; networks are counted from the first of them."""
    if isinstance(getattr(figure, along.field), int):
        return _with(figure, {along.field: len(chosen), "first": int(chosen[0])})
    return _with(figure, {along.field: tuple(chosen)})


def networks_of(figure: Figure) -> Along | None:
    """Along what its networks stand, if it is cut into networks."""
    return next((along for along in figure.cut if _counts(figure, along)), None)


def with_networks(figure: Figure, count: int) -> Figure:
    """The figure with so many networks at each point; as it is, if it is not cut into networks."""
    own = networks_of(figure)
    return figure if own is None else _with(figure, {own.field: count})


def parts(figure: Figure, seeds: int = SEEDS) -> list[Figure]:
    """The parts of a figure, in the order in which they are worth making.

    Each is the figure itself, with fewer networks or fewer of what they are compared along. One that is not
    cut has as many parts as `seeds`, which differ by their seed alone.

    Example:
        >>> from lyaptorch.experiments import FIGURES
        >>> fig4c = FIGURES["gradient-flossing"]["fig4c"](delays=(10, 70), seeds=6)
        >>> [(part.delays, part.first, part.seeds) for part in parts(fig4c)]
        [((10,), 0, 4), ((70,), 0, 4), ((10,), 4, 2), ((70,), 4, 2)]
    """
    if not figure.cut:
        return [replace(figure, seed=figure.seed + i) for i in range(seeds)]
    found = []
    for chunks in product(*(list(_chunks(labels(figure, a), a.most)) for a in figure.cut)):
        part = figure
        for along, chunk in zip(figure.cut, chunks, strict=True):
            part = with_labels(part, along, chunk)
        found.append(part)
    return found


def name_of(part: Figure) -> str:
    """What the file of a part is called: its seed, and what is in it."""
    words = [f"seed{part.seed}"]
    for along in part.cut:
        own = labels(part, along)
        word = "network" if along.dim == "seed" else along.dim
        words.append(f"{word}{own[0]}" if len(own) == 1 else f"{word}{own[0]}-{own[-1]}")
    # labels may be words: a file is called by letters, digits and the like
    return re.sub(r"[^\w.+-]+", "_", "-".join(words), flags=re.ASCII)


def fits(record: Record, figure: Figure) -> bool:
    """Whether it is a part of the figure: settings agree, but for how many there are.

    A setting that only one of them knows, because it is newer than the other, decides nothing.
    """
    free = {"first", *(along.field for along in figure.cut)} if figure.cut else {"seed"}
    # as a Record has it: JSON turns tuples into lists
    config = Record(record.kind, asdict(figure), {}).config
    common = (config.keys() & record.config.keys()) - free
    alike = all(config[name] == record.config[name] for name in common)
    # how many there are is a number, and along what they are compared a list
    alike &= all(
        type(config[name]) is type(record.config.get(name, config[name])) for name in free & config.keys()
    )
    return alike and record.kind == f"{figure.paper} {figure.figure}"


def own_labels(record: Record, figure: Figure) -> list[Labels]:
    """What stands along each dimension of a part."""
    known = {field.name for field in fields(figure)} & record.config.keys()
    values = {name: record.config[name] for name in known}
    own = _with(figure, {name: tuples(value) for name, value in values.items()})
    return [labels(own, along) for along in figure.cut]


def cells(record: Record, figure: Figure) -> set[Labels]:
    """Where a part has networks: for each a label along each dimension."""
    return set(product(*own_labels(record, figure)))


def missing(figure: Figure, records: Sequence[Record], seeds: int = SEEDS) -> list[Figure]:
    """The parts of a figure that are not there; of one that is there in part, what is left of it."""
    if not figure.cut:
        there = {record.config["seed"] for record in records}
        return [part for part in parts(figure, seeds) if part.seed not in there]
    made = set().union(*(cells(record, figure) for record in records))
    return [left for part in parts(figure) if (left := _left(part, made)) is not None]


def _left(part: Figure, made: AbstractSet[Labels]) -> Figure | None:
    """What of a part is not made: along each dimension from the first to the last label that is not."""
    lacking = set(product(*(labels(part, along) for along in part.cut))) - made
    if not lacking:
        return None
    for i, along in enumerate(part.cut):
        own, there = labels(part, along), {cell[i] for cell in lacking}
        places = [place for place, label in enumerate(own) if label in there]
        part = with_labels(part, along, own[places[0] : places[-1] + 1])
    return part


@dataclass(frozen=True)
class Coverage:
    """How much of a figure is there.

    Attributes:
        seeds: at each point, such as a delay, the numbers of its networks; of a figure that is not cut those
            of its seeds, at one point.
        of: how many there should be.
        left_out: points at which the figure measures nothing; what parts hold there is NaN.
    """

    seeds: Mapping[Labels, frozenset[Any]]
    of: int
    left_out: frozenset[Labels] = frozenset()

    @property
    def common(self) -> int:
        """How many every point has at which something is measured."""
        return len(frozenset.intersection(*(self.seeds[at] for at in self.seeds.keys() - self.left_out)))


def coverage(figure: Figure, records: Sequence[Record], seeds: int = SEEDS) -> Coverage:
    """How much of a figure its parts are."""
    if not figure.cut:
        mine = frozenset(part.seed for part in parts(figure, seeds))
        return Coverage({(): mine & {record.config["seed"] for record in records}}, seeds)
    made = set().union(*(cells(record, figure) for record in records))
    # beside the dimension of networks; without one there is one network at each point, called 0
    points = [labels(figure, along) for along in figure.cut if not _counts(figure, along)]
    seeds_at: dict[Labels, frozenset[Any]] = {point: frozenset() for point in product(*points)}
    for cell in made & set(product(*(labels(figure, along) for along in figure.cut))):
        point, number = _apart(figure, cell)
        seeds_at[point] |= {number}
    own = networks_of(figure)
    of = 1 if own is None else len(labels(figure, own))
    return Coverage(seeds_at, of, frozenset(filter(figure.left_out, seeds_at)))


def gathered(figure: Figure, records: Sequence[Record]) -> Record:
    """The Record of a figure from those of its parts.

    It is that of the figure with fewer networks: all points stay that have any, and the networks that all of
    them have. Curves that were thinned are constant between their points.

    Raises:
        ValueError: if there is no part, or parts do not fit together.
    """
    if not figure.cut:
        return restored(min(records, key=lambda record: int(record.config["seed"])))
    block = _block(figure, records)
    there = [restored(record) for record in records]
    known = {name for record in there for name in record}
    if lacking := sorted(name for record in there for name in known - set(record)):
        raise ValueError(
            f"parts must hold the same, got some without {lacking[0]}; make the older ones again"
        )
    places = {along.dim: own for along, own in zip(figure.cut, block, strict=True)}
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    for record in there:
        of_part = dict(zip(places, own_labels(record, figure), strict=True))
        for given, into in ((record.variables, variables), (record.coordinates, coordinates)):
            for name, variable in given.items():
                into[name] = _filled(into.get(name), name, variable, of_part, places)
    whole = figure
    for along, own in zip(figure.cut, block, strict=True):
        whole = with_labels(whole, along, own)
        if _counts(figure, along):
            coordinates[along.dim] = ((along.dim,), np.array(own))
    return Record(f"{figure.paper} {figure.figure}", asdict(whole), variables, coordinates)


def completed(figure: Figure, raw: Record) -> Record:
    """The Record of a figure from what was measured, perhaps by another figure, of some of its networks."""
    names = {"seed", "first", *(along.field for along in figure.cut)} & raw.config.keys()
    own = _with(figure, {name: tuples(raw.config[name]) for name in names})
    return Record(f"{own.paper} {own.figure}", asdict(own), *own.complete(raw))


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def _with(figure: Figure, values: Mapping[str, Any]) -> Figure:
    """The figure with other values of some fields, named at run time."""
    return replace(figure, **values)


def _chunks(values: Labels, most: int) -> Iterator[Labels]:
    for i in range(0, len(values), most):
        yield values[i : i + most]


def _counts(figure: Figure, along: Along) -> bool:
    """Whether networks stand along it."""
    return isinstance(getattr(figure, along.field), int)


def _apart(figure: Figure, cell: Labels) -> tuple[Labels, Any]:
    """The point of a network, and its number there."""
    at = next((i for i, along in enumerate(figure.cut) if _counts(figure, along)), None)
    return (cell, 0) if at is None else ((*cell[:at], *cell[at + 1 :]), cell[at])


def _block(figure: Figure, records: Sequence[Record]) -> list[Labels]:
    """Along each dimension the labels of the networks that make a whole.

    Points without a network are left out, and with them as little else as it takes; of the networks those
    stay that all other points have.
    """
    seeds = {point: own for point, own in coverage(figure, records).seeds.items() if own}
    along = [list(labels(figure, a)) for a in figure.cut if not _counts(figure, a)]

    def there(place: tuple[int, Any]) -> float:
        mine = [point in seeds for point in product(*along) if point[place[0]] == place[1]]
        return sum(mine) / len(mine)

    while any(point not in seeds for point in product(*along)):
        dim, label = min(((i, label) for i, own in enumerate(along) for label in own), key=there)
        along[dim].remove(label)
    common = sorted(frozenset.intersection(*(seeds[point] for point in product(*along)))) if seeds else []
    if not common:
        raise ValueError(
            f"of {figure.paper} {figure.figure} no network is there at every point; make more of its parts"
        )
    found = iter(along)
    return [tuple(common if _counts(figure, a) else next(found)) for a in figure.cut]


def _filled(
    into: Given | None,
    name: str,
    variable: Variable,
    own: Mapping[str, Labels],
    places: Mapping[str, Labels],
) -> Given:
    """The whole with what a part has of it, each where it belongs."""
    dims, values, attributes = variable
    shape = tuple(len(places[d]) if d in places else n for d, n in zip(dims, values.shape, strict=True))
    whole = np.zeros(shape, values.dtype) if into is None else into[1]
    if whole.shape != shape:
        raise ValueError(f"parts must have {name} alike, got {whole.shape} and {shape}; make them again")
    # texts may be of other lengths
    whole = whole.astype(np.result_type(whole, values))
    to, taken = [], []
    for dim, length in zip(dims, values.shape, strict=True):
        pairs = [(i, i) for i in range(length)]
        if dim in places:
            pairs = [(places[dim].index(x), i) for i, x in enumerate(own[dim]) if x in places[dim]]
        to.append([place for place, _ in pairs])
        taken.append([i for _, i in pairs])
    whole[np.ix_(*to)] = values[np.ix_(*taken)]
    return dims, whole, attributes
