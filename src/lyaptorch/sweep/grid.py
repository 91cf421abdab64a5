"""A grid of configurations, and how its runs are packed into ensembles: by the grid alone."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from lyaptorch import _checks
from lyaptorch._files import to_json

Config: TypeAlias = Mapping[str, Any]
"""The settings of one run, as JSON can hold them."""
Axes: TypeAlias = Mapping[str, Sequence[Any]]
"""The values of each setting that is varied."""

MOST = 100_000
"""Most values of an axis."""


def axis(text: str) -> tuple[str, list[Any]]:
    """The name and the values in `name=first:last:step`, both ends included, or `name=a,b,c`.

    Cost O(values).

    Raises:
        ValueError: if it is neither, or holds no value or one twice.

    Example:
        >>> axis("delay=10:40:10"), axis("k=1,16,75"), axis("schedule=none,pre")
        (('delay', [10, 20, 30, 40]), ('k', [1, 16, 75]), ('schedule', ['none', 'pre']))
    """
    name, sign, values = text.partition("=")
    if not (sign and name.strip() and values.strip()):
        raise ValueError(
            f"an axis must be name=first:last:step or name=a,b,c, got {text!r}; write delay=10:80:10"
        )
    if ":" in values:
        return name.strip(), _range(text, values.split(":"))
    return name.strip(), [_value(v.strip()) for v in values.split(",")]


def grid(config: Config, axes: Axes) -> list[dict[str, Any]]:
    """The configurations of all points, the last axis fastest.

    Cost O(points).

    Raises:
        ValueError: for an axis without values, or with one twice.

    Example:
        >>> grid({"lr": 0.1}, {"delay": [10, 20], "network": range(2)})[1]
        {'lr': 0.1, 'delay': 10, 'network': 1}
    """
    for name, values in axes.items():
        # as text: 1, 1.0 and True are equal in Python, and three configurations
        texts = [to_json(name, value) for value in values]
        twice = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
        if not texts or twice is not None:
            got = "none" if not texts else f"{twice} twice"
            raise ValueError(
                f"the axis {name} must hold different values, at least one, got {got}; correct it"
            )
    return [{**config, **dict(zip(axes, point, strict=True))} for point in itertools.product(*axes.values())]


def run_id(name: str, config: Config) -> str:
    """What a run is called: a digest of the sweep's name and the configuration, whatever its order.

    Cost O(settings).

    Example:
        >>> run_id("train", {"a": 1, "b": 2}) == run_id("train", {"b": 2, "a": 1})
        True
    """
    return _digest([name, dict(config)])


@dataclass(frozen=True)
class Group:
    """Runs that are executed at once, as one ensemble.

    Attributes:
        configs: their configurations.
        ids: what they are called.

    Example:
        >>> packs("train", grid({}, {"seed": range(2)}), None, 1)[0].configs
        ({'seed': 0},)
    """

    configs: tuple[Config, ...]
    ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """A digest of the ids: the name of its file."""
        return _digest(list(self.ids))

    def without(self, finished: frozenset[str]) -> Group:
        """The runs that are not finished."""
        left = [(c, i) for c, i in zip(self.configs, self.ids, strict=True) if i not in finished]
        return Group(tuple(c for c, _ in left), tuple(i for _, i in left))


def packs(
    name: str, configs: Sequence[Config], together: Callable[[Config], str] | None, most: int
) -> list[Group]:
    """Runs for which `together` gives the same text share an ensemble of at most `most`, in their order.

    Without `together` each is alone.

    Cost O(runs).

    Example:
        >>> configs = grid({}, {"n": [1, 2], "seed": range(5)})
        >>> [len(p.ids) for p in packs("train", configs, lambda c: str(c["n"]), 3)]
        [3, 2, 3, 2]
    """
    _checks.integer("most", most, 1)
    groups: dict[str, list[Config]] = {}
    for i, config in enumerate(configs):
        groups.setdefault(str(i) if together is None else together(config), []).append(config)
    # by the grid alone: were packs as many as there are workers, another machine would have other Records
    size = 1 if together is None else most
    parts = [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]
    return [Group(tuple(part), tuple(run_id(name, config) for config in part)) for part in parts]


def _digest(value: Any) -> str:
    return hashlib.sha256(to_json("config", value).encode()).hexdigest()[:16]


def _value(text: str) -> Any:
    """A number, true, false or null; else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict | list):
        raise ValueError(
            f"a value of an axis must be a number, a word, true, false or null, got {text!r}; correct it"
        )
    return value


def _range(text: str, ends: list[str]) -> list[int | float]:
    try:
        # exact: 0:1:0.1 has eleven values, and 0.3 is 0.3 and not 3 * 0.1
        first, last, step = (Fraction(end.strip()) for end in (*ends, *["1"] * (3 - len(ends))))
    except ValueError:
        raise ValueError(
            f"a range must be first:last:step, three numbers, got {text!r}; write delay=10:80:10"
        ) from None
    if step == 0 or (last - first) / step < 0 or (last - first) / step > MOST:
        raise ValueError(
            f"a range must hold between one and {MOST} values, got {text!r}; correct its ends or step"
        )
    whole = all(value.denominator == 1 for value in (first, step))
    values = [first + i * step for i in range(int((last - first) / step) + 1)]
    return [int(value) if whole else float(value) for value in values]
