"""Held-out patients are in no scene, by whatever name the user gives them."""

from pathlib import Path

import pytest

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import DataIndex, ScanEntry
from gcnn_cli.labels.patients import pseudonym
from gcnn_cli.proposals import scenes
from gcnn_cli.proposals.scenes import read_scenes
from gcnn_cli.samples.split import SplitConfig


def test_a_patient_held_out_by_its_own_id_is_not_read_and_its_id_is_kept_nowhere(monkeypatch, caplog):
    patient = pseudonym("SECRET-7")
    index = DataIndex((ScanEntry(Path("unread.mha"), "unread", patient, True),), ())
    monkeypatch.setattr(scenes, "read_index", lambda *_, **__: index)
    split = SplitConfig(hold_out=("SECRET-7", "absent"), share=0.0)
    made, held_out, known = read_scenes([], 1.0, split)
    assert (made, held_out, known.hold_out) == ([], (patient,), (patient,))
    assert "1 of the 2 patients to hold out are not in the data" in caplog.text
    assert "unread" not in caplog.text


def test_an_unreadable_scan_is_left_out_or_refused(tmp_path, monkeypatch, caplog):
    entries = tuple(ScanEntry(tmp_path / f"{name}.mha", name, name, True) for name in ("lost", "gone"))
    monkeypatch.setattr(scenes, "read_index", lambda *_, **__: DataIndex(entries, ()))
    split = SplitConfig(share=0.0)
    assert read_scenes([], 1.0, split)[0] == []
    assert "problems with the labeled data: 2 unreadable files" in caplog.text
    with pytest.raises(InputError, match="--strict: 1 unreadable files; the first: .*lost.mha"):
        read_scenes([], 1.0, split, strict=True)
