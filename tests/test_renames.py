"""Records and checkpoints of the first version, with the names of then, are read and shown as before."""

import io

import pytest
import torch

import lyaptorch as lt
from lyaptorch._files import sealed
from lyaptorch._renames import current_config
from lyaptorch.record import Record
from lyaptorch.training.checkpoint import load_checkpoint, save_checkpoint


def save_first(record, path, checksum=None):
    """Write a Record as the first version did."""
    dataset = record.dataset.assign_attrs(format_version=1, checksum=checksum or record._digest())
    body = io.BytesIO()
    exact = {name: {"_FillValue": None} for name in dataset.variables}
    dataset.to_netcdf(body, engine="h5netcdf", encoding=exact)
    path.write_bytes(sealed(body.getvalue()))


def test_the_record_of_a_diagnosis_with_remedies(tmp_path):
    found = lt.diagnose(lt.RateCell(1, 8, gain=0.3), torch.randn(80, 2, 1)).record()
    assert "suggestion_title" in found

    def old(group):
        return {
            name.replace("suggestion", "remedy"): (
                tuple(dim.replace("suggestion", "remedy") for dim in v.dims),
                v.values,
                v.attributes,
            )
            for name, v in group.items()
        }

    before = Record("diagnose", found.config, old(found.variables), old(found.coordinates))
    assert before != found
    save_first(before, tmp_path / "old.nc")
    loaded = Record.load(tmp_path / "old.nc")
    assert loaded == found
    assert loaded.page() == found.page()
    assert Record.load(loaded.save(tmp_path / "new.nc")) == found


CONFIG = {
    "schedule": [{"type": "FlossPhase", "epochs": 2, "members": [True, False]}, {"type": "FitPhase"}],
    "members": [3, 5],
    "length": 20,
    "seed": 1,
}
NOW = {
    "schedule": [
        {"type": "FlossPhase", "parameters": None, "epochs": 2, "who": [True, False]},
        {"type": "FitPhase"},
    ],
    "member_ids": [3, 5],
    "steps": 20,
    "seed": 1,
}


def test_the_record_of_a_training_with_members(tmp_path):
    curves = {name: (("member", "epoch"), torch.rand(2, 5)) for name in ("loss", "accuracy")}
    save_first(Record("train", CONFIG, curves), tmp_path / "old.nc")
    loaded = Record.load(tmp_path / "old.nc")
    assert loaded == Record("train", NOW, curves)
    assert len(loaded.plot().axes) > 0
    # of the version of today every name stays
    assert Record.load(Record("train", CONFIG, curves).save(tmp_path / "new.nc")).config == CONFIG


def test_the_length_of_what_is_no_training_stays(tmp_path):
    save_first(Record("demo", {"length": 20, "members": 3}, {}), tmp_path / "old.nc")
    assert Record.load(tmp_path / "old.nc").config == {"length": 20, "member_ids": 3}


def test_a_damaged_one_is_still_refused(tmp_path):
    record = Record("train", CONFIG, {"loss": (("member",), [1.0])})
    save_first(record, tmp_path / "old.nc", "sha256:0")
    with pytest.raises(ValueError, match="values and checksum disagree"):
        Record.load(tmp_path / "old.nc")


def test_a_configuration_of_today_stays():
    assert current_config("train", CONFIG) == current_config("train", NOW) == NOW


def test_a_checkpoint_with_members(tmp_path):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"h": torch.ones(2)}, {"config": CONFIG, "epoch": 4})
    tensors, facts = load_checkpoint(path, NOW)
    assert torch.equal(tensors["h"], torch.ones(2))
    assert facts["epoch"] == 4
    with pytest.raises(ValueError, match="of a run with another member_ids"):
        load_checkpoint(path, {**NOW, "member_ids": [3, 6]})
