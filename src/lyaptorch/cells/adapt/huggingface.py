"""Recurrent models of transformers as cells: embedded inputs in, their cache as the state, layer by layer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._caller import untouched
from lyaptorch._types import Input, State
from lyaptorch.cells.adapt.functional import Functional
from lyaptorch.cells.adapt.skeleton import fill, listed, take_apart
from lyaptorch.cells.adapt.structure import Structure
from lyaptorch.cells.cell import Cell

CACHES = ("cache", "past_key_values", "cache_params", "state")
"""What transformers calls the state of a model, of which a model has one."""
RWKV = ("shift of the feed-forward", "shift", "numerator", "denominator", "maximum")
"""The five tensors `(b, units, layers)` that RWKV keeps."""
STABILISERS = {"xlstm": ("2", ("0", "1")), "rwkv": ("maximum", ("numerator", "denominator"))}
"""Of a kind of model the part that is a running maximum, and those whose scale it is the logarithm of."""
LEAST_MAXIMUM = -50.0
HANDED_ON = re.compile("conv|shift")
"""Parts that hold the last inputs of a layer, as a shift register does."""


class HuggingFaceCell(Cell):
    """A recurrent model of transformers, one token at a time.

    x is an embedded token `(b, width)`, and the state all that the cache holds, layer by layer. At rest all
    of it is zero. What the model writes into its cache is written into copies. Of parts that a running
    maximum scales, to keep them in range, the state has what they stand for, C e^m, whose exponents are those
    of the memory; the maximum m, which cancels in all outputs, travels with the state.

    Args:
        model: of transformers, with or without a head.

    Raises:
        ValueError: if it has no state, or one that grows.
    """

    alone = layered = True

    def __init__(self, model: nn.Module) -> None:
        base: Any = model.base_model
        embedding = base.get_input_embeddings()
        super().__init__(int(embedding.embedding_dim), 0)
        self.batch_first, self.network = True, model
        # in a tuple, so that its parameters have one name each
        self._base = (base,)
        self._kind = str(getattr(base.config, "model_type", ""))
        if self._kind == "recurrent_gemma":
            _refuse_windows(base)
        with untouched(model, embedding.weight.device), torch.no_grad():
            self._structure, self._first = self._after_two_tokens(embedding.weight.detach()[[0, 0]])
        self.state_size, self.travelling = self._structure.size, self._structure.travelling
        self.nilpotent = int(self.registers().sum())

    def parts(self) -> dict[str, slice]:
        """The slice of each layer."""
        found: dict[str, slice] = {}
        for name, where in self._structure.slices().items():
            layer = f"layer {int(_number(name)) + 1}"
            found[layer] = slice(found[layer].start if layer in found else where.start, where.stop)
        return found

    def registers(self) -> Tensor:
        """Which entries of the state `(n,)` hold the last inputs of a layer, as a convolution does.

        In the Jacobian of the layer such a part is nilpotent: its exponents are exactly -inf.
        """
        found = torch.zeros(self.state_size, dtype=torch.bool, device="cpu")
        for name, where in self._structure.slices().items():
            found[where] = HANDED_ON.search(name) is not None
        return found

    def embedded(self, inputs: Any) -> Any:
        """Token ids `(b, t)`, as a tokenizer gives them, as embeddings `(t, b, width)`; all else as it is."""
        whole = isinstance(inputs, Tensor) and not (inputs.is_floating_point() or inputs.is_complex())
        if not whole:
            return inputs
        if inputs.dim() != 2 or inputs.dtype == torch.bool:
            raise ValueError(
                f"token ids must be integers (b, t), as a tokenizer gives them, got {tuple(inputs.shape)} "
                f"{inputs.dtype}; or pass embeddings (t, b, {self.input_size})"
            )
        return self._base[0].get_input_embeddings()(inputs).detach().transpose(0, 1)

    def rest(self, x: Input) -> State:
        """Zeros, and positions as after one token."""
        return self._first.to(x).expand(*x.shape[:-1], -1).clone()

    def step(self, x: Input, h: State) -> State:
        """The model's own step on its own cache."""
        structure = self._structure.cast(h.dtype)
        after = self._after(x, self._scaled(structure.unpack(h), -1))
        return structure.pack(self._scaled(after, 1))

    def pack(self, state: Any) -> Tensor:
        """A cache of the model as one tensor."""
        return (
            state
            if isinstance(state, Tensor)
            else self._structure.pack(self._scaled(self._by_layers(state), 1))
        )

    def unpack(self, h: Tensor) -> Any:
        """The state as the model keeps it: its cache, for RWKV its list, for RecurrentGemma by layers."""
        return self._whole(self._scaled(self._structure.cast(h.dtype).unpack(h), -1))

    def _after_two_tokens(self, x: Tensor) -> tuple[Structure, Tensor]:
        """The structure of the cache, and the packed state `(1, n)` at rest."""
        base, name = self._base[0], type(self.network).__name__
        try:
            first = self._after(x, None)
            skeleton, one = take_apart(first)
            # a model may write into what holds the tensors, too
            two = take_apart(self._after(x, fill(skeleton, one)))[1]
        except Exception as error:
            raise ValueError(
                f"{name} must take one embedded token and its {_argument(base)}, got an error from it: "
                f"{str(error).splitlines()[0]}; pass a recurrent model of transformers 5, or its recurrent "
                "part as a function step(x, h)"
            ) from error
        if not any(isinstance(z, Tensor) for z in one.values()):
            raise ValueError(
                f"{name} must keep a state from one token to the next, got none after a token; measure it "
                "over its layers with lt.depth_spectrum(layers, embeddings)"
            )
        _refuse_growth(name, one, two)
        # settings are no part of the state: whatever two tokens left as it was and is no tensor
        still = {n: z for n, z in one.items() if not isinstance(z, Tensor) and z == two.get(n)}
        own = STABILISERS.get(self._kind, ("", ()))[0]
        structure = Structure.of(first, 1, steady=lambda n: n.rpartition(".")[-1] == own, still=still)
        packed = structure.pack(first)[:1].float()
        packed[:, : structure.size - structure.travelling] = 0
        return structure, packed

    def _after(self, x: Tensor, state: Any) -> Any:
        """The state after one token, layer by layer; `state` None before the first."""
        if self._kind == "rwkv" and state is not None:
            # transformers mixes trajectories in steps of one token: (b, 1, units) + (b, units)

            def one(y: Tensor, own: Any) -> Any:
                return self._one_after(y[None], _rows(own, None))

            return _rows(torch.func.vmap(one)(x, state), 0)
        return self._one_after(x, state)

    def _one_after(self, x: Tensor, state: Any) -> Any:
        base = self._base[0]
        whole = None if state is None else self._whole(state)
        tensors = [z for z in take_apart(whole)[1].values() if isinstance(z, Tensor)]
        writing = Functional(tensors, wide=x.dtype == torch.float64)
        if self._kind == "recurrent_gemma":
            after: Any = _gemma(base, x, whole, writing)
        else:
            at = _argument(base)
            given = {} if whole is None else {at: whole}
            with _unscaled(base), writing:
                returned = base(inputs_embeds=x.unsqueeze(-2), use_cache=True, **given)
            # a model that hands back nothing has written into what it was given
            after = getattr(returned, at, None)
            after = whole if after is None else after
        skeleton, values = take_apart(after)
        return self._by_layers(fill(skeleton, {name: writing.now(z) for name, z in values.items()}))

    def _by_layers(self, state: Any) -> Any:
        """A state layer by layer, also of a model that keeps all layers in one tensor."""
        if self._kind != "rwkv" or isinstance(state, Mapping):
            return state
        layers = range(state[0].shape[-1])
        return {i: {n: z[..., i] for n, z in zip(RWKV, state, strict=True)} for i in layers}

    def _whole(self, state: Any) -> Any:
        """The same as the model takes it."""
        if self._kind != "rwkv":
            return state
        return [torch.stack([layer[name] for layer in state.values()], -1) for name in RWKV]

    def _scaled(self, state: Any, sign: int) -> Any:
        """Parts times e^m of their running maximum m, or back with sign -1."""
        if self._kind not in STABILISERS:
            return state
        own, scaled = STABILISERS[self._kind]
        skeleton, values = take_apart(state)
        for name in [name for name in values if name.rpartition(".")[-1] == own]:
            m = values[name]
            for other in scaled:
                at = f"{name.rpartition('.')[0]}.{other}"
                z, factor = values[at], (sign * m).exp()
                values[at] = z * factor.reshape(*m.shape, *[1] * (z.dim() - m.dim()))
            # a model may begin with -1e30, from which there is no way back
            values[name] = m.clamp_min(LEAST_MAXIMUM)
        return fill(skeleton, values)


def huggingface(network: nn.Module) -> Cell | None:
    """The cell of a model of transformers; None for any other module."""
    theirs = any(kind.__module__.partition(".")[0] == "transformers" for kind in type(network).__mro__)
    whole = all(hasattr(network, name) for name in ("config", "base_model", "get_input_embeddings"))
    return HuggingFaceCell(network) if theirs and whole else None


def _argument(base: nn.Module) -> str:
    """The name of its argument that takes the state."""
    names = set(inspect.signature(type(base).forward).parameters)
    return next((name for name in CACHES if name in names), CACHES[0])


def _number(name: str) -> str:
    """The number of the layer in the name of a part, the first that there is."""
    return next((piece for piece in name.split(".") if piece.isdigit()), "0")


def _refuse_growth(name: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    sizes = {n: [tuple(z.shape) for z in (one[n], two.get(n)) if isinstance(z, Tensor)] for n in one}
    grown = [n for n, shapes in sizes.items() if len(shapes) == 2 and shapes[0] != shapes[1]]
    if grown:
        layers = sorted({int(_number(n)) + 1 for n in grown})
        raise ValueError(
            f"{name} must have a state of fixed size, got a cache that grows with every token in layers "
            f"{listed([str(layer) for layer in layers])} ({grown[0]}: {sizes[grown[0]][0]}, then "
            f"{sizes[grown[0]][1]}): attention keeps all of the past, so that no number of exponents "
            "describes it; take a configuration without attention layers, or pass a recurrent layer of it as "
            "a function step(x, h)"
        )


def _refuse_windows(base: Any) -> None:
    sliding = [i + 1 for i, kind in enumerate(base.config.layers_block_type) if kind.startswith("sliding")]
    if sliding:
        raise ValueError(
            f"{type(base).__name__} must have a state of fixed size, got attention in layers "
            f"{listed([str(i) for i in sliding])}, whose window of keys and values fills up token by token; "
            'take a configuration with block_types=["recurrent"]'
        )


def _rows(state: Any, at: int | None) -> Any:
    """Parts with a dimension of one in front, or (0) without the second dimension, which is such."""
    return {i: {n: z[None] if at is None else z[:, at] for n, z in own.items()} for i, own in state.items()}


@contextmanager
def _unscaled(base: Any) -> Iterator[None]:
    """RWKV halves its weights in place when it is first called in another mode: it is called in the same."""
    if not hasattr(base, "layers_are_rescaled"):
        yield
        return
    before = base.training
    base.__dict__["training"] = not base.layers_are_rescaled
    try:
        yield
    finally:
        base.__dict__["training"] = before


def _gemma(base: Any, x: Tensor, state: Any, writing: Functional) -> dict[int, dict[str, Tensor]]:
    """One token of RecurrentGemma, which keeps its state in its modules and its positions in its mask."""
    from transformers import DynamicCache

    blocks = [layer.temporal_block for layer in base.layers]
    before = [(block.conv1d_state, block.rg_lru.recurrent_states) for block in blocks]
    b = len(x)
    try:
        for i, block in enumerate(blocks):
            zeros = x.new_zeros(b, block.lru_width)
            own = {} if state is None else state[i]
            block.conv1d_state = own.get(
                "convolution", zeros.unsqueeze(-1).repeat(1, 1, block.conv1d_width - 1)
            )
            block.rg_lru.recurrent_states = own.get("recurrent", zeros)
        # at position 0 all memory is reset
        positions = torch.ones(b, 1, dtype=torch.int64, device=x.device)
        cache, mask = DynamicCache(config=base.config), {"sliding_attention": None}
        with writing:
            base(
                inputs_embeds=x.unsqueeze(-2),
                position_ids=positions,
                use_cache=True,
                cache=cache,
                attention_mask=mask,
            )
        return {
            i: {"convolution": block.conv1d_state, "recurrent": block.rg_lru.recurrent_states}
            for i, block in enumerate(blocks)
        }
    finally:
        for block, (convolved, recurrent) in zip(blocks, before, strict=True):
            block.conv1d_state, block.rg_lru.recurrent_states = convolved, recurrent
