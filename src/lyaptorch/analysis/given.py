"""What the user gave `lt.diagnose`, as Python, for the lines that a diagnosis prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lyaptorch._padded import Padded

RNN = "torch.nn.utils.rnn"


@dataclass(frozen=True)
class Given:
    """The arguments of a call, which `inputs`, `lengths`, `h0` and `groups` stand for.

    Attributes:
        others: all but network and inputs, by name, as Python.
        packed: whether the inputs were a PackedSequence.
        ragged: whether lengths were given.
        axes: of the inputs.
    """

    others: dict[str, str]
    packed: bool
    ragged: bool
    axes: int

    def floss(self) -> list[str]:
        """What `lt.floss` needs to know of it."""
        return [f"{name}={name}" for name in ("h0", "lengths") if name in self._named()]

    def again(self, network: str) -> str:
        """The same diagnosis in float64."""
        wide = self._named() | ({"h0": "h0.double()"} if self.others.get("h0") == "h0" else {})
        return _call(f"{network}.double()", "inputs.double()", wide)

    def longer(self, network: str) -> str:
        """The same diagnosis of every sequence four times in a row."""
        others, inputs = self._named(), f"inputs.repeat(4, {', '.join('1' * (self.axes - 1))})"
        if self.packed:
            rows = f"[x.repeat(4, 1) for x in {RNN}.unpack_sequence(inputs)]"
            inputs = f"{RNN}.pack_sequence({rows}, enforce_sorted=False)"
        elif self.ragged:
            rows = "[x[:t].repeat(4, 1) for x, t in zip(inputs.unbind(1), lengths)]"
            inputs, others = (
                f"{RNN}.pad_sequence({rows})",
                others | {"lengths": "4 * torch.as_tensor(lengths)"},
            )
        return _call(network, inputs, others)

    def stronger(self) -> str:
        """Twice the inputs."""
        return "inputs = inputs._replace(data=2 * inputs.data)" if self.packed else "inputs = 2 * inputs"

    def chunks(self, size: int) -> str:
        """The inputs in chunks, with the lengths of those."""
        if not (self.packed or self.ragged):
            return f"chunks = inputs.split({size})"
        padded = f"{RNN}.pad_packed_sequence(inputs)" if self.packed else "inputs, torch.as_tensor(lengths)"
        return (
            f"padded, left = {padded}\nchunks = padded.split({size})\n"
            f"chunk_lengths = [(left - {size} * i).clamp(0, {size}) for i in range(len(chunks))]"
        )

    def _named(self) -> dict[str, str]:
        return self.others | ({"lengths": "lengths"} if self.ragged else {})


def given(numbers: dict[str, Any], objects: dict[str, Any], found: Padded, packed: bool) -> Given:
    """What was given: numbers are told as they are, objects by their names; None is left out."""
    others = {name: name for name, value in objects.items() if value is not None}
    others |= {name: repr(value) for name, value in numbers.items() if value is not None}
    return Given(others, packed, found.lengths is not None and not packed, found.inputs.dim())


def _call(network: str, inputs: str, others: dict[str, str]) -> str:
    return f"print(lt.diagnose({network}, {inputs}{''.join(f', {k}={v}' for k, v in others.items())}))"
