"""The result format: exact round trips, atomic writes, and no damaged or foreign file gets through."""

import copy
import dataclasses
import errno
import io
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lyaptorch import _files
from lyaptorch._files import run_path
from lyaptorch.record import Record

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "U4"]
LENGTHS = {"member": 2, "epoch": 3, "delay": 1, "empty": 0}
INF, NAN = float("inf"), float("nan")
quick = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def example(**changes):
    parts = {
        "kind": "train",
        "config": {"lr": 0.1, "sizes": (3, 4), "name": "é", "none": None, "deep": {"b": True}},
        "variables": {
            "loss": (("member", "epoch"), np.array([[1, -INF, NAN], [0.1, -0.0, INF]]), {"units": "nats"}),
            "ok": (("member",), np.array([True, False])),
            "label": (("member",), np.array(["", "Λ₁ and more"])),
            "best": ((), np.int64(2**62 + 1)),
            "none": (("empty", "member"), np.zeros((0, 2), np.float32)),
        },
        "coordinates": {
            "epoch": (("epoch",), np.array([10, 20, 30])),
            "member": (("member",), ["tanh", "relu"]),
            "gain": (("member",), torch.tensor([1.0, 1.5]), {"long_name": "gain at the start"}),
        },
    }
    return Record(**{**parts, **changes})


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The bytes of a saved Record, whole."""
    return example().save(tmp_path_factory.mktemp("record") / "whole").read_bytes()


def same(a, b):
    """Equality of two Records by other means than their checksum."""
    assert (a.kind, a.config) == (b.kind, b.config)
    for left, right in ((a.variables, b.variables), (a.coordinates, b.coordinates)):
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dims == right[name].dims
            assert left[name].attributes == right[name].attributes
            assert left[name].values.dtype == right[name].values.dtype
            assert left[name].values.shape == right[name].values.shape
            np.testing.assert_array_equal(left[name].values, right[name].values)
    return True


@st.composite
def parts_of_a_record(draw):
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
    plain = (
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
    )

    def variable(dims):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        elements = text if dtype.kind == "U" else hnp.from_dtype(dtype)
        values = draw(hnp.arrays(dtype, tuple(LENGTHS[d] for d in dims), elements=elements))
        return dims, values, draw(st.dictionaries(st.sampled_from(["units", "comment"]), text.filter(bool)))

    def group(names):
        chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=4))
        return {
            n: variable(tuple(draw(st.lists(st.sampled_from(sorted(LENGTHS)), unique=True)))) for n in chosen
        }

    labels = draw(st.lists(st.sampled_from(sorted(LENGTHS)), unique=True))
    coordinates = {name: variable((name,)) for name in labels} | group(["gain", "Seed_2"])
    tree = st.recursive(plain, lambda s: st.lists(s) | st.dictionaries(text, s), max_leaves=5)
    config = draw(st.dictionaries(text, tree, max_size=3))
    return draw(text.filter(bool)), config, group(["loss", "a", "x9", "kind"]), coordinates


@settings(quick, max_examples=60)
@given(parts_of_a_record())
def test_round_trip_is_exact(tmp_path, parts):
    record = Record(*parts)
    loaded = Record.load(record.save(tmp_path / "any.nc"))
    assert same(record, loaded)
    assert record == loaded


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2,), (2, 0), (2, 3)])
def test_every_dtype_and_shape_comes_back_also_as_label(tmp_path, dtype, shape):
    dims = ("a", "b")[: len(shape)]
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    labels = {d: ((d,), np.arange(n).astype(dtype)) for d, n in zip(dims, shape, strict=True)}
    record = Record("test", {}, {"x": (dims, values)}, labels)
    loaded = Record.load(record.save(tmp_path / "x"))
    assert same(record, loaded)
    assert loaded["x"].shape == shape
    assert dtype == "U4" or loaded["x"].dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_tensors_are_detached_and_copied(dtype):
    x = torch.arange(6).reshape(2, 3).to(dtype).T
    record = Record("test", {}, {"x": (("a", "b"), x.requires_grad_(dtype.is_floating_point))})
    np.testing.assert_array_equal(record["x"], x.detach().numpy())
    before = record["x"]
    with torch.no_grad():
        x.zero_()
    np.testing.assert_array_equal(record["x"], before)
    assert record["x"].dtype == x.detach().numpy().dtype


def test_a_long_dimension_without_labels_costs_nothing(tmp_path):
    record = Record("train", {}, {"loss": (("member", "epoch"), np.ones((1, 50_000), np.float32))})
    assert Record.load(record.save(tmp_path / "long")) == record


def test_values_inside_are_read_only_and_getitem_copies():
    record = example()
    with pytest.raises(ValueError, match="read-only"):
        record.variables["loss"].values[0, 0] = 2
    record["loss"][0, 0] = 2
    assert record["loss"][0, 0] == 1
    torch.as_tensor(record["loss"])  # warns, and so fails here, if the array is read-only


def test_foreign_byte_order_long_strings_and_nan_patterns_become_canonical():
    big = np.array([1.5, NAN]).astype(">f8")
    wide = np.array(["a", "bc"], dtype="U50")
    odd_nan = np.array([0x3FF8000000000000, 0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    first = Record("test", {}, {"x": (("a",), big), "s": (("a",), wide)})
    second = Record("test", {}, {"x": (("a",), odd_nan), "s": (("a",), ["a", "bc"])})
    assert first == second
    assert first["x"].dtype.isnative
    assert first["s"].dtype == np.dtype("U2")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "spectrum"},
        {"config": {"lr": 0.2}},
        {"variables": {}},
        {"coordinates": {}},
        {"coordinates": None},
        {"variables": {"loss": (("member", "epoch"), np.zeros((2, 3)))}},
    ],
)
def test_any_change_makes_records_unequal(change):
    assert example() == example()
    assert example() != example(**change)


def test_equality_sees_dtype_sign_units_dims_and_group_but_not_order():
    def one(values=(0.0, 1.0), dims=("a",), **attributes):
        return Record("test", {}, {"x": (dims, np.asarray(values), attributes)})

    others = [one((-0.0, 1.0)), one(np.float32([0, 1])), one(units="s"), one(dims=("b",)), one((False, True))]
    others.append(Record("test", {}, {}, {"x": (("a",), [0.0, 1.0])}))
    assert all(one() != other for other in others)
    assert one() != "x"
    x, y = (("a",), [1]), (("a",), [2])
    assert Record("t", {}, {"x": x, "y": y}) == Record("t", {}, {"y": y, "x": x})


def test_records_survive_pickling_and_copying():
    assert pickle.loads(pickle.dumps(example())) == copy.deepcopy(example()) == example()


def test_configuration_is_kept_as_json_and_replace_works():
    record = Record("test", {"sizes": (3, (4,)), "by_layer": {2: 0.5, 10: 0.1}}, {"x": (("a",), [1])})
    assert record.config == {"sizes": [3, [4]], "by_layer": {"2": 0.5, "10": 0.1}}
    assert dataclasses.replace(record, kind="demo") == Record("demo", record.config, record.variables)


def test_contains_and_repr():
    record = example()
    assert "loss" in record
    assert "gain" in record
    assert "nothing" not in record
    assert repr(Record("demo", {}, {"x": (("a",), [1, 2]), "y": ((), 1)})) == "Record('demo': x (a 2), y ())"


def test_dataset_carries_the_configuration_as_one_json_attribute():
    data = example().dataset
    assert isinstance(data, xarray.Dataset)
    assert data.attrs.keys() == {"kind", "config", "format", "format_version"}
    assert (data.attrs["kind"], data.attrs["format"], data.attrs["format_version"]) == (
        "train", "lyaptorch record", 2,
    )  # fmt: skip
    assert data.attrs["config"] == json.dumps(example().config, sort_keys=True)
    assert data["loss"].sel(member="tanh", epoch=10) == 1
    assert data["loss"].attrs == {"units": "nats"}


def test_plain_xarray_reads_the_file(tmp_path):
    path = example().save(tmp_path / "x")
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        np.testing.assert_array_equal(data["loss"].values, example()["loss"])
        np.testing.assert_array_equal(data["label"].values, example()["label"])
        assert data["ok"].dtype == bool
        assert set(data.coords) == {"epoch", "member", "gain"}


def test_large_configuration_and_many_variables(tmp_path):
    # HDF5 keeps at most 64 KiB in an object header, and stores 9 attributes or links otherwise than 8
    config = {f"key {i}": "value é" * 100 for i in range(2000)}
    many = {f"x{i}": ((f"d{i}",), np.arange(i)) for i in range(40)}
    record = Record("test", config, many)
    assert same(record, Record.load(record.save(tmp_path / "large")))


def test_equal_records_give_equal_bytes(tmp_path, sealed):
    time.sleep(1.1)  # HDF5 counts time in seconds
    assert example().save(tmp_path / "again").read_bytes() == sealed
    loaded = Record.load(tmp_path / "again")
    assert loaded.save(tmp_path / "third").read_bytes() == sealed


def test_save_adds_the_suffix_and_folders_and_returns_the_path(tmp_path):
    path = example().save(str(tmp_path / "a" / "b" / "gain-0.5"))
    assert path == tmp_path / "a" / "b" / "gain-0.5.nc"
    assert Record.load(tmp_path / "a" / "b" / "gain-0.5") == Record.load(path) == example()
    assert sorted(p.name for p in path.parent.iterdir()) == ["gain-0.5.host.json", "gain-0.5.nc"]
    os.rename(path, tmp_path / "renamed.data")
    assert Record.load(tmp_path / "renamed.data") == example()


def test_volatile_facts_go_to_the_side_file(tmp_path, sealed):
    path = example().save(tmp_path / "x.nc", host={"wall_seconds": 1.5, "threads": 7})
    assert path.read_bytes() == sealed
    facts = json.loads((tmp_path / "x.host.json").read_text())
    assert facts["wall_seconds"] == 1.5
    assert facts["threads"] == 7
    assert facts["torch"] == torch.__version__
    assert {"time", "host", "platform", "python"} <= facts.keys()


def test_a_host_that_is_no_json_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"host must hold dicts, lists, text, finite.*got .*convert it with"):
        example().save(tmp_path / "x", host={"wall": NAN})
    assert not list(tmp_path.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "fault", "raised"),
    [
        (os, "fsync", full_disk, ValueError),
        (Path, "replace", full_disk, ValueError),
        (os, "fsync", interrupt, KeyboardInterrupt),
        (Path, "replace", interrupt, KeyboardInterrupt),
        (xarray.Dataset, "to_netcdf", interrupt, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_a_failure_while_writing_leaves_the_old_file_and_no_draft(
    tmp_path, monkeypatch, sealed, owner, name, fault, raised, after
):
    path = example().save(tmp_path / "x")
    calls, real = iter(range(100)), getattr(owner, name)
    late = after if owner is not xarray.Dataset else 0
    monkeypatch.setattr(owner, name, lambda *a, **k: real(*a, **k) if next(calls) < late else fault())
    with pytest.raises(
        raised, match="cannot write .*x.*No space.*free space or" if raised is ValueError else None
    ):
        example(kind="newer").save(path)
    assert path.read_bytes() == sealed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.host.json", "x.nc"]


def test_a_disk_that_fills_up_does_not_end_the_process(tmp_path):
    code = f"""
import resource, signal
from lyaptorch.record import Record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = Record("test", {{}}, {{"x": (("a",), list(range(9999)))}})
record.dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    record.save({str(tmp_path / "x")!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["x.host.json"]


@pytest.mark.parametrize("folder", ["file/runs", "file", "/proc/none/runs"])
def test_an_unwritable_folder_is_named(tmp_path, folder):
    (tmp_path / "file").write_text("in the way")
    advice = rf"cannot write to the folder .*{folder}, got .*; pass another folder .*--runs"
    with pytest.raises(ValueError, match=advice):
        example().save(tmp_path / folder / "x.nc")
    with pytest.raises(ValueError, match=advice):
        run_path(tmp_path / folder, "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "x.nc").mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*x\.nc, got .*directory.*--runs"):
        example().save(tmp_path / "x")
    with pytest.raises(ValueError, match=r"cannot load .*x\.nc: got .*directory.*check the path"):
        Record.load(tmp_path / "x.nc")


def test_fresh_saves_count_up_and_never_replace(tmp_path):
    path = run_path(str(tmp_path / "new" / "runs"), "demo")
    records = [Record("demo", {"number": i}, {}) for i in range(3)]
    paths = [record.save(path, fresh=True) for record in records]
    assert [p.name for p in paths] == ["demo.nc", "demo-2.nc", "demo-3.nc"]
    assert [Record.load(p) for p in paths] == records
    assert all(p.with_suffix(".host.json").is_file() for p in paths)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "a\n", "x" * 101, 3, None])
def test_run_path_refuses_names_that_are_no_file_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"name must be letters, digits.*got .*; put folders into runs"):
        run_path(tmp_path, name)


@pytest.mark.parametrize("missing", ["xarray", "h5netcdf"])
def test_run_path_misses_the_writer_before_the_work(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=f"written by {missing}; pip install xarray"):
        run_path(tmp_path, "x")


def test_construction_needs_no_xarray():
    code = """
import sys
sys.modules.update(xarray=None, h5netcdf=None, h5py=None, pandas=None)
import torch
from lyaptorch.record import Record
assert Record("test", {}, {"x": (("a",), torch.ones(2))})["x"].sum() == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


line = (("a",), [1, 2])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": ""}, "kind must be text without NUL or lone surrogates, got ''; change it"),
        ({"kind": 3}, "kind must be text .*got 3; change it"),
        ({"config": [1]}, "config must be a dict, got list; use dataclasses.asdict"),
        ({"config": {"x": NAN}}, "config must hold dicts, lists.*got .*; convert it with"),
        ({"config": {"x": -INF}}, "config must hold dicts, lists.*got .*; convert it with"),
        ({"config": {"x": np.int64(1)}}, r"got .*int64 is not JSON.*; convert it with str\(\), float\(\)"),
        ({"config": {"x": torch.ones(1)}}, "got .*Tensor is not JSON.*; convert it with"),
        ({"config": {"x": Path("a")}}, "got .*Path is not JSON.*; convert it with"),
        ({"config": {1: 0, "1": 1}}, "config must hold dicts.*got .*; convert it with"),
        (
            {"variables": {"x": [1, 2]}},
            r"x must be \(dims, values\) with dims a tuple of names, got \[1, 2\]",
        ),
        ({"variables": {"x": ("a", [1, 2])}}, r"x must be \(dims, values\) with dims a tuple of names"),
        ({"variables": {"x": (("a",), [1], {}, 4)}}, r"x must be \(dims, values\)"),
        ({"variables": {"x": (("a", "b"), [1, 2])}}, r"name for each axis.*\('a', 'b'\) for shape \(2,\)"),
        ({"variables": {"x": (("a", "a"), np.eye(2))}}, r"none twice, got \('a', 'a'\).*name or rename"),
        (
            {"variables": {"no name": line}},
            "a name must be ASCII letters, digits and _, got 'no name'; rename",
        ),
        ({"variables": {"_x": line}}, "a name must be ASCII letters.*got '_x'; rename"),
        ({"variables": {"x\n": line}}, "a name must be ASCII letters.*; rename"),
        ({"variables": {"x": (("a/b",), [1])}}, "a name must be ASCII letters.*got 'a/b'; rename"),
        ({"variables": {"x": ((1,), [1])}}, "a name must be ASCII letters.*got 1; rename"),
        (
            {"variables": {"x": line, "y": (("a",), [1])}},
            "a must have one length, got 2 in x and 1 in y; rename",
        ),
        (
            {"variables": {"x": line}, "coordinates": {"x": line}},
            "variable or a coordinate, got x as both; ren",
        ),
        ({"variables": {"a": line}}, "a names a dimension, so it must be a coordinate along it; rename one"),
        (
            {"variables": {"x": line}, "coordinates": {"a": ((), 1)}},
            "a names a dimension, so it must be a coo",
        ),
        (
            {"coordinates": {"a": (("a", "b"), [[1]])}},
            "a names a dimension, so it must be a coordinate along",
        ),
        ({"variables": {"x": (("a",), [1j])}}, "x must hold booleans.*got complex128; convert it"),
        ({"variables": {"x": (("a",), [b"x"])}}, r"x must hold booleans.*got \|S1; convert it"),
        ({"variables": {"x": (("a",), [None])}}, "x must hold booleans.*got object; convert it"),
        ({"variables": {"x": (("a",), np.array(["2020"], "M8[Y]"))}}, "x must hold booleans.*got datetime64"),
        ({"variables": {"x": (("a",), torch.ones(2).half())}}, r"got float16; convert it, .*\.float\(\)"),
        (
            {"variables": {"x": (("a",), torch.ones(2).bfloat16())}},
            r"x must be a tensor.*BFloat16; call \.float",
        ),
        ({"variables": {"x": (("a",), [[1], [1, 2]])}}, "x must be a tensor or array, got .*or pad it"),
        ({"variables": {"x": (("a",), ["a\0b"])}}, "x must be text without NUL"),
        ({"variables": {"x": (("a",), ["\ud800"])}}, "x must be text without NUL or lone surrogates"),
        (
            {"variables": {"x": (("a",), [1], {"unit": "s"})}},
            "unknown attribute of x 'unit', did you mean 'units'",
        ),
        ({"variables": {"x": (("a",), [1], {"units": 3})}}, "units must be text .*got 3; change it"),
    ],
)
def test_construction_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        Record(**{"kind": "test", "config": {}, "variables": {}, **changes})


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"unknown variable or coordinate 'los', did you mean 'loss'\?"):
        example()["los"]


def test_deep_and_circular_configurations_are_refused():
    circle: dict[str, object] = {}
    circle["self"] = circle
    with pytest.raises(ValueError, match=r"config must hold .*got .*; convert it"):
        Record("test", circle, {})


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no Record or cut off: no checksum at its end; restore it from a copy or run again"),
        (b"\x89HDF\r\n\x1a\n", "no Record or cut off"),
        (b"CDF\x01 an older netCDF", "no Record or cut off"),
        (pickle.dumps({"a": 1}), "no Record or cut off"),
        (_files.sealed(b""), "it is damaged, OSError.*; restore it"),
        (_files.sealed(b"\x89HDF\r\n\x1a\n" + bytes(200)), "it is damaged, OSError.*; restore it"),
    ],
)
def test_files_that_are_no_record(tmp_path, data, message):
    with pytest.raises(ValueError, match=rf"cannot load .*odd\.nc: {message}"):
        Record.load(written(tmp_path / "odd.nc", data))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot load .*none\.nc: got .*No such file.*; check the path"):
        Record.load(tmp_path / "none.nc")
    with pytest.raises(ValueError, match=r"cannot load .*none\.nc: got .*No such file.*; check the path"):
        Record.load(tmp_path / "none")


@quick
@given(st.data())
def test_a_truncated_file_never_loads(tmp_path, sealed, data):
    length = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(ValueError, match=r"cannot load .*cut\.nc: (no Record or cut off|it is damaged)"):
        Record.load(written(tmp_path / "cut.nc", sealed[:length]))


@quick
@given(st.data())
def test_a_flipped_byte_never_loads(tmp_path, sealed, data):
    at, flip = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(1, 255))
    damaged = sealed[:at] + bytes([sealed[at] ^ flip]) + sealed[at + 1 :]
    with pytest.raises(ValueError, match=r"cannot load .*bad\.nc: (no Record or cut off|it is damaged)"):
        Record.load(written(tmp_path / "bad.nc", damaged))


def test_appended_bytes_never_load(tmp_path, sealed):
    with pytest.raises(ValueError, match="it is damaged, its bytes and checksum disagree"):
        Record.load(written(tmp_path / "long.nc", sealed + b"\n"))


def test_a_seal_among_the_values_confuses_nobody(tmp_path):
    text = _files.sealed(b"x").decode()
    record = Record("test", {"text": text}, {"x": ((), text)})
    path = record.save(tmp_path / "x")
    assert Record.load(path) == record
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="it is damaged"):
        Record.load(written(tmp_path / "cut.nc", whole[: whole.index(_files.SEAL) + 150]))


def forged(path, change, record=None):
    """A Record changed by `change(h5py file)` and sealed again, as by an attacker."""
    body = io.BytesIO(_files.unsealed((record or example()).save(path)))
    with h5py.File(body, "r+") as file:
        change(file)
    return written(path, _files.sealed(body.getvalue()))


def put(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["loss"].write_direct(np.ones((2, 3))), "values and checksum disagree, so it is"),
        (lambda f: f["ok"].attrs.__delitem__("dtype"), "values and checksum disagree"),
        (lambda f: f.__delitem__("best"), "values and checksum disagree"),
        (put("config", "{}"), "values and checksum disagree"),
        (put("kind", "demo"), "values and checksum disagree"),
        (lambda f: f.attrs.__delitem__("config"), "it must have the attributes config, got none; restore it"),
        (lambda f: f.attrs.__delitem__("checksum"), "it must have the attributes checksum, got none; re"),
        (put("format", "zarr"), "format must be 'lyaptorch record', got zarr; update lyaptorch"),
        (put("format_version", 3), "format_version must be 1 or 2, got 3; update lyaptorch"),
        (put("format_version", [1, 1]), r"format_version must be 1 or 2, got \[1 1\]; update lyaptorch"),
        (put("config", "{"), "it is damaged, JSONDecodeError.*; restore"),
        (put("config", "[" * 100_000), "it is damaged, RecursionError"),
        (put("config", '{"x": NaN}'), "config must hold dicts"),
        (put("config", 3), "it is damaged, TypeError"),
        (put("kind", 3), "kind must be text"),
        (lambda f: f["loss"].attrs.__setitem__("units", 3), "units must be text"),
        (lambda f: f["loss"].attrs.__setitem__("scale", "x"), "unknown attribute of loss 'scale'"),
        (lambda f: f.create_dataset("raw", data=np.bytes_(b"abc")), "raw must hold booleans.*got .S3"),
        (lambda f: f.create_dataset("half", data=np.float16(1)), "half must hold booleans.*got float16"),
        (lambda f: f.create_dataset("refs", data=f["loss"].ref, dtype=h5py.ref_dtype), "refs must hold"),
        (lambda f: f.create_dataset("more", data=1), "values and checksum disagree"),
    ],
)  # fmt: skip
def test_forged_contents_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"cannot load .*forged\.nc.*{message}"):
        Record.load(forged(tmp_path / "forged.nc", change))


class Marker:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def opaque(tag, size=8):
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, size)
    kind.set_tag(tag)
    return kind


def compound():
    kind = h5py.h5t.create(h5py.h5t.COMPOUND, 8)
    kind.insert(b"member", 0, opaque(b"NUMPY:|O"))
    return kind


def dataset_of(kind):
    return lambda f: h5py.h5d.create(f.id, b"evil", kind, h5py.h5s.create_simple((2,)))


def attribute_of(kind, name=b"evil"):
    return lambda f: h5py.h5a.create(f["loss"].id, name, kind, h5py.h5s.create_simple((2,)))


def virtual(file):
    layout = h5py.VirtualLayout((3,), "i8")
    layout[:] = h5py.VirtualSource("/etc/hostname.nc", "x", (3,))
    file.create_virtual_dataset("evil", layout)


def pickled(file):
    file["evil"] = np.void(pickle.dumps(Marker()))


@pytest.mark.parametrize(
    "change",
    [
        pickled,
        lambda f: f.attrs.__setitem__("evil", np.void(pickle.dumps(Marker()))),
        dataset_of(opaque(b"NUMPY:|O")),
        dataset_of(opaque(b"PYTHON:OBJECT")),
        dataset_of(h5py.h5t.vlen_create(opaque(b"NUMPY:|O"))),
        dataset_of(h5py.h5t.array_create(opaque(b"NUMPY:|O"), (2,))),
        dataset_of(compound()),
        attribute_of(opaque(b"NUMPY:|O")),
        attribute_of(h5py.h5t.vlen_create(opaque(b"NUMPY:|O"))),
        attribute_of(compound()),
        lambda f: f.create_dataset("evil", data=h5py.Empty("f8"), dtype=h5py.enum_dtype({"a": 1}, "i4")),
        lambda f: f.__setitem__("evil", h5py.ExternalLink("/etc/hostname", "x")),
        lambda f: f.__setitem__("evil", h5py.SoftLink("/loss")),
        lambda f: f.__setitem__("evil", np.dtype("f8")),
        lambda f: f.create_group("evil"),
        lambda f: f.create_dataset("evil", (8,), "u1", external=[("/etc/hostname", 0, 8)]),
        virtual,
    ],
)
def test_nothing_but_numbers_and_text_is_read(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    path = forged(tmp_path / "evil.nc", change)
    monkeypatch.setattr(pickle, "loads", interrupt)
    monkeypatch.setattr(pickle, "load", interrupt)
    with pytest.raises(
        ValueError, match=r"cannot load .*evil\.nc: it must hold numbers and text only, got .*do not"
    ):
        Record.load(path)
    assert not (tmp_path / "executed").exists()
