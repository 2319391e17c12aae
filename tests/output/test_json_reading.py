"""A saved report is the report again; what does not fit together is refused in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from output.reports import report_of
from scan.scans import axial, oblique, some_hu

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.reports import read_reports
from gcnn_cli.output.csv_format import rich_csv
from gcnn_cli.output.json_format import report_data, report_json
from gcnn_cli.output.json_reading import read_report
from gcnn_cli.scan.volume import Source, Volume

SOURCE = Source("a.mhd", "metaimage", "056", "1.2", "1.3", "c" * 64, (), (), ("one regular grid",))


def make_report(to_world, nodules=2):
    volume = Volume(some_hu(), to_world, SOURCE)
    positions = volume.position_mm(np.array([[1.23456789, 2.5, 3.25], [4, 0, 6]]))
    return report_of(volume, positions[:nodules], warnings=["a warning"])


@pytest.mark.parametrize("to_world", [axial(), oblique()])
@pytest.mark.parametrize("nodules", [2, 0])
def test_reading_undoes_writing(tmp_path, to_world, nodules):
    report = make_report(to_world, nodules)
    path = tmp_path / "a.nodules.json"
    path.write_text(report_json(report))
    again = read_report(path)
    assert np.allclose(again.scan.to_world, report.scan.to_world, atol=1e-9)
    data, before = report_data(again), report_data(report)
    for key in ("axes", "spacing_mm"):
        assert np.allclose(data["input"].pop(key), before["input"].pop(key), atol=1e-12)
    assert data == before
    assert rich_csv(again) == rich_csv(report)  # no number is rounded twice


def set_in(data, value, *keys):
    *way, last = keys
    for key in way:
        data = data[key]
    if value is None:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("value", "keys", "text"),
    [
        ("2.0", ("schema", "version"), "version 2.0"),
        (0, ("nodules", 0, "fp_per_scan"), "more than 0"),
        ("1", ("nodules", 0, "fp_per_scan"), "not a number"),
        ("other", ("schema", "name"), "not a report of gcnn"),
        ("RAS", ("frame",), "frame RAS"),
        (None, ("nodules",), "damaged report: 'nodules'"),
        (None, ("input", "origin_mm"), "damaged report"),
        ([1.0, 2.0], ("nodules", 0, "position_mm"), "damaged report"),
        ([1.0, 2.0, 3.0], ("nodules", 0, "position_mm"), "mm apart"),
        ([0.0, 0.0, 0.0], ("nodules", 1, "index"), "mm apart"),
        (1.5, ("nodules", 1, "probability"), "between 0 and 1"),
        (-3.0, ("nodules", 1, "diameter_mm"), "greater than 0"),
        ("8", ("nodules", 1, "diameter_mm"), "'8' is not a number"),
        (5, ("nodules", 0, "slice"), "not the nearest"),
        ([0.7, 0.8, 0.0], ("input", "spacing_mm"), "do not form a grid"),
        ([[1.0, 0.0, 0.0]] * 3, ("input", "axes"), "do not form a grid"),
        (7, ("weights", "name"), "7 is not text"),
        ([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], ("input", "axes"), "not orthogonal"),
        ([10**400, 0, 0], ("input", "origin_mm"), "too large"),
        ([1e200, 0, 0], ("nodules", 0, "index"), "outside any scan"),
        ([2**31, 3, 3], ("input", "size"), "do not form a grid"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, value, keys, text):
    data = report_data(make_report(axial()))
    set_in(data, value, *keys)
    path = tmp_path / "a.nodules.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=text) as caught:
        read_report(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b'{"schema": 1}', b"null", b"[" * 100_000, b"9" * 5000]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="gcnn detect wrote"):
        read_report(path)


def test_a_report_without_a_checksum_is_still_read(tmp_path):
    report = make_report(axial())
    report = replace(report, scan=replace(report.scan, source=replace(SOURCE, sha256="")))
    path = tmp_path / "a.json"
    path.write_text(report_json(report))
    assert read_report(path).scan.source.sha256 == ""


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"'])
def test_what_could_be_read_but_not_written_again_is_refused(tmp_path, value):
    text = report_json(make_report(axial()))
    path = tmp_path / "a.nodules.json"
    path.write_text(text.replace('"average_over": ', f'"other": {value}, "average_over": ', 1))
    assert path.read_text() != text
    with pytest.raises(InputError, match="not a JSON file"):
        read_report(path)
    with pytest.raises(InputError, match="not JSON"):
        read_reports(path)
