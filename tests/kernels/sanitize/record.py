"""A pytest plugin that writes the calls of the compiled kernels to a file, for `replay.cpp` to repeat.

`pytest -p sanitize.record --kernel-calls FILE tests/kernels/test_kernels.py` (tests/kernels on the path). One
call of each kind is kept: two differ in kind if their sizes, activations or wanted gradients do. A call is

    name, dual, bytes of the arguments; the arguments; number of buffers; and for each buffer
    in which earlier buffer its pointer lies (-1: the arguments), at which offset, bytes, whether it is given,
    how it is compared; what is given; what is expected

with every number an int64.
"""

import ctypes
import math
import struct

from lyaptorch.kernels import descent, draws, fit, fused, scanning
from lyaptorch.kernels.arguments import GATED
from lyaptorch.kernels.library import ActivationArgs, FormArgs, UnrollArgs, call, tape_size

NAMES = ("scan_forward", "scan_adjoint", "unroll_forward", "unroll_adjoint", "fit", "descend", "draw")
LARGEST = 1 << 20
"""Bytes of all buffers of a call; larger ones are left out."""
GATES = {GATED["gru"]: 3, GATED["lstm"]: 4}
NOT, BYTES, SINGLE, DOUBLE = range(4)
"""How a buffer is compared."""


def pytest_addoption(parser):
    parser.addoption("--kernel-calls", required=True, help="file for the calls of the kernels")


def pytest_configure(config):
    file = open(config.getoption("--kernel-calls"), "wb")  # noqa: SIM115
    config.add_cleanup(file.close)
    seen = set()

    def recorded(name, args, dtype):
        kind = (name, str(dtype), *shape_of(args))
        buffers = dict(found(name, args, dtype))
        new = kind not in seen and sum(size for _, size, _, _ in buffers.values()) <= LARGEST
        before = {path: ctypes.string_at(at, size) for path, (at, size, _, _) in buffers.items() if new}
        call(name, args, dtype)
        if new and not overflowed(name, args):
            seen.add(kind)
            noise = only_noise(name, args, dtype)
            file.write(written(name, args, dtype, buffers, before, compare=not noise))

    fused.call = scanning.call = fit.call = descent.call = draws.call = recorded


def overflowed(name, args):
    """Whether the scan stopped, which leaves the rest unwritten."""
    if name != "scan_forward":
        return False
    items = args.form.members * args.form.batch
    return max((ctypes.c_int64 * (2 * items)).from_address(args.status)) >= 0


def only_noise(name, args, dtype):
    """Whether something of what a scan computes is round-off: a dead column, or one that nearly is."""
    if not name.startswith("scan"):
        return False
    real = ctypes.c_double if dtype.itemsize == 8 else ctypes.c_float
    count, k = args.spans * args.form.members * args.form.batch * args.k, args.k
    found = (real * count).from_address(args.pivots if name == "scan_forward" else args.log_r)
    pivots = list(found) if name == "scan_forward" else [math.exp(z) for z in found]
    dead = name == "scan_forward" and max((ctypes.c_uint8 * count).from_address(args.dead))
    rows = [pivots[i : i + k] for i in range(0, count, k)]
    return bool(dead) or any(min(row) < dtype.itemsize * 10.0**-dtype.itemsize * max(row) for row in rows)


def shape_of(args):
    """All numbers in the arguments but those of a stream; of pointers only whether they are null."""
    for name, kind in args._fields_:
        if name in ("key", "epoch"):
            continue
        value = getattr(args, name)
        if isinstance(value, FormArgs | ActivationArgs | UnrollArgs):
            yield from shape_of(value)
        else:
            yield (value is None) if kind is ctypes.c_void_p else value


def found(name, args, dtype):
    """For every pointer that is not null its place, and (address, bytes, whether given, how compared).

    A place is the number of the buffer in which it lies, -1 for the arguments, and the offset there.
    """
    if name == "draw":
        out, each = args.members * args.outer * args.row * dtype.itemsize, (8 * args.members, True, NOT)
        yield from pointers(args, {"ids": each, "epochs": each, "out": (out, False, BYTES)}, 0)
        return
    if name == "descend":
        yield from found_of_step(args, dtype)
        return
    form = args.unroll.form if name == "fit" else args.form
    real = (SINGLE, DOUBLE)[dtype.itemsize == 8]
    n, m, t, members = form.n, form.m, form.steps, form.members
    gates = GATES.get(form.neurons, 1)
    size = n if form.neurons in (0, GATED["gru"]) else 2 * n
    items, adjoint = members * form.batch, name.endswith("adjoint")
    matrix = {0: 0, 1: n, 2: 2 * n, 3: n * n}[form.residual]
    drawn = t * (form.batch if form.shared else items) * m
    rows = members * gates * n
    numbers = {"W": rows * n, "V": rows * m, "bias": rows, "recurrent_bias": rows, "A": members * matrix}
    numbers |= {"coupling": members * n, "inputs": drawn, "h0": items * size}
    given = numbers | dict.fromkeys(("sharpness", "alpha", "beta", "threshold"), members * n)
    own = {name: name for name in ("W", "V", "bias", "recurrent_bias", "A", "coupling")}
    wanted = {f"{bar}_bar": numbers[source] for bar, source in {**own, "h": "h0"}.items()}
    wanted |= {f"{f}_bar": members * n for f in ("inner", "outer", "phi")} | {"inputs_bar": t * items * m}
    if name.startswith("scan"):
        s, k = args.spans, args.k
        frames, laid = 1 if args.one_frame else items, members if args.apart else 1
        given |= {"frame": frames * size * k, "c": s * items * k, "log_r": s * items * k}
        wanted |= {"pivots": s * items * k, "longest": s * items, "h": items * size}
        wanted |= {"Q": items * size * k, "frame_bar": items * size * k}
        numbers_of_bytes = {"cuts": (8 * (s + 1) * laid, True, NOT), "twice": (s * laid, True, NOT)}
        numbers_of_bytes |= {"dead": (s * items * k, False, BYTES), "status": (16 * items, False, BYTES)}
    elif name == "fit":
        o, steps, classes = (
            args.outputs,
            t - args.unroll.first,
            args.loss == fit.LOSSES.index("cross_entropy"),
        )
        read = n if args.leaky or gates > 1 else size
        given |= {"R": members * o * read, "offset": members * o}
        wanted |= {"R_bar": members * o * read, "offset_bar": members * o}
        wanted |= {"loss_of": members, "right_of": members}
        counted = ((steps, args.count_step), (members, args.count_member), (form.batch, args.count_row))
        asked = ((steps, args.target_step), (members, args.target_member), (form.batch, args.target_row))
        given["targets"] = extent(*asked, (1 if classes else o, args.target_column))
        units = members * -(-form.batch // fit.CHUNK)
        numbers_of_bytes = {
            "counts": (extent(*counted), True, NOT),
            "sums": (8 * fit.SUMS * units, False, NOT),
        }
    else:
        numbers_of_bytes = {}
        (given if adjoint else wanted)["states"] = t * items * size
        given["states_bar"] = (t - args.first) * items * size
    table = {field: (count * dtype.itemsize, True, NOT) for field, count in given.items()}
    table |= {field: (count * dtype.itemsize, False, real) for field, count in wanted.items()}
    table |= numbers_of_bytes
    table["tape"] = (tape_size(name.split("_")[0], args, dtype), adjoint, NOT)
    if name == "scan_adjoint":
        table["h_bar"] = (table["h_bar"][0], True, real)
        table |= dict.fromkeys(("frame", "pivots", "longest", "dead", "status", "h", "Q"))
    elif name == "scan_forward":
        # arguments serve both ways: what the other way left in them is not looked at
        table |= dict.fromkeys(("c", "log_r", *(field for field in table if field.endswith("_bar"))))
    yield from pointers(args, table, 0)


def found_of_step(args, dtype):
    real, members, tensors = (SINGLE, DOUBLE)[dtype.itemsize == 8], args.members, args.tensors
    arrays = ("parameters", "gradients", "first", "second")
    table = dict.fromkeys(("sizes", *arrays), (8 * tensors, True, NOT))
    table |= {"limits": (8 * members, True, NOT), "lr": (members * dtype.itemsize, True, NOT)}
    table |= {"count": (8 * members, True, BYTES), "fine": (members, False, BYTES)}
    table["lengths"] = (tensors * members * dtype.itemsize, False, real)
    outer = list(pointers(args, table, 0))
    yield from outer
    sizes = (ctypes.c_int64 * tensors).from_address(args.sizes)
    for name in arrays:
        at = getattr(args, name)
        inside = next(i for i, (_, (address, *_)) in enumerate(outer) if address == at)
        # of other rules than Adam the second moments are the first, which stand here apart
        changes = name in ("parameters", "first") or (name == "second" and args.rule == descent.RULES["adam"])
        for i, (size, address) in enumerate(
            zip(sizes, (ctypes.c_void_p * tensors).from_address(at), strict=True)
        ):
            yield (inside, 8 * i), (address, size * members * dtype.itemsize, True, real if changes else NOT)


def extent(*sizes_and_strides):
    """Entries from the first to the last of what has these strides."""
    return 1 + sum((size - 1) * stride for size, stride in sizes_and_strides)


def pointers(args, table, start):
    for name, kind in args._fields_:
        value, offset = getattr(args, name), start + getattr(type(args), name).offset
        if isinstance(value, FormArgs | ActivationArgs | UnrollArgs):
            yield from pointers(value, table, offset)
        elif kind is ctypes.c_void_p and value is not None and table[name] is not None:
            yield (-1, offset), (value, *table[name])


def written(name, args, dtype, buffers, before, *, compare):
    body = ctypes.string_at(ctypes.addressof(args), ctypes.sizeof(args))
    parts = [struct.pack("3q", NAMES.index(name), int(dtype.itemsize == 8), len(body)), body]
    parts.append(struct.pack("q", len(buffers)))
    for place, (address, size, given, compared) in buffers.items():
        compared = compared if compare else NOT
        parts.append(struct.pack("5q", *place, size, int(given), compared))
        parts += [before[place]] if given else []
        parts += [ctypes.string_at(address, size)] if compared else []
    return b"".join(parts)
