"""Every format of a report with and without nodules; files are whole, and never replaced unasked."""

import csv
import errno
import io
import json
import os
from contextlib import suppress
from dataclasses import replace

import jsonschema
import pytest
from output.reports import report_of
from rich.console import Console

from gcnn_cli.detection.findings import ModelSummary, Nodule, Report, ScanSummary
from gcnn_cli.errors import InputError, OutputError, UsageError
from gcnn_cli.files import csv_text, write_bytes, write_together
from gcnn_cli.output.csv_format import LUNA16_COLUMNS, RICH_COLUMNS, luna16_csv, rich_csv
from gcnn_cli.output.formats import output_paths, parse_formats, render_report, write_report
from gcnn_cli.output.json_format import report_data, report_json, report_schema
from gcnn_cli.output.rates import rate_text
from gcnn_cli.output.table import show_report
from gcnn_cli.scan.volume import Source

NODULES = (
    Nodule((1.25, -20.5, 300.125), (10.4, 20.6, 30.2), 0.987654321, 8.1234, 280.5, 11, "1.2.3", 0.125),
    Nodule((0.0, 0.0, 0.0), (0.0, 1.0, 2.0), 0.5, 4.0, 33.5, 1, "1.2.4"),
)


def make_report(nodules=NODULES):
    return Report(
        scan=ScanSummary(
            Source("056.mhd", "metaimage", "056", sha256="a" * 64, checks=("one regular grid",)),
            (100, 200, 300),
            (2.5, 0.8, 0.7),
            ((0.0, 0.0, 0.7, -1.0), (0.0, 0.8, 0.0, -2.0), (2.5, 0.0, 0.0, -3.0), (0.0, 0.0, 0.0, 1.0)),
        ),
        model=ModelSummary("octahedral", "b" * 64, "O"),
        nodules=nodules,
        threshold=0.4,
        candidates=321,
        options={"batch_size": 32},
        device="cpu float32",
        seconds=1.5,
        warnings=("a warning",),
    )


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_rich_csv():
    rows = rows_of(rich_csv(make_report()))
    assert tuple(rows[0]) == RICH_COLUMNS
    assert rows[0] == {
        "seriesuid": "056", "nodule": "1", "coordX": "1.250", "coordY": "-20.500", "coordZ": "300.125",
        "diameter_mm": "8.12", "volume_mm3": "280.5", "probability": "0.9877",
        "fp_per_scan": "0.125", "i": "30", "j": "21", "k": "10", "slice": "11", "sop_instance_uid": "1.2.3",
    }  # fmt: skip


def test_the_luna16_csv_has_exactly_its_columns():
    rows = rows_of(luna16_csv(make_report()))
    assert tuple(rows[0]) == LUNA16_COLUMNS
    assert [row["probability"] for row in rows] == ["0.987654", "0.5"]


@pytest.mark.parametrize("write", [rich_csv, luna16_csv])
def test_without_nodules_the_header_stays(write):
    assert len(write(make_report(())).splitlines()) == 1


@pytest.mark.parametrize("nodules", [NODULES, ()])
def test_the_json_fits_its_schema(nodules):
    jsonschema.Draft202012Validator.check_schema(report_schema())
    data = json.loads(report_json(make_report(nodules)))
    jsonschema.validate(data, report_schema())
    assert len(data["nodules"]) == len(nodules)
    assert len(report_json(make_report(nodules), indent=None).splitlines()) == 1


def test_the_json_says_where_in_files_order():
    data = report_data(make_report())
    assert data["input"]["size"] == [300, 200, 100]
    assert data["input"]["spacing_mm"] == [0.7, 0.8, 2.5]
    assert data["input"]["axes"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert data["input"]["origin_mm"] == [-1, -2, -3]
    assert data["nodules"][0]["index"] == [30.2, 20.6, 10.4]


def test_rates_of_false_positives_are_where_they_were_counted():
    report = make_report()
    assert [n.get("fp_per_scan") for n in report_data(report)["nodules"]] == [0.125, None]
    assert [row["fp_per_scan"] for row in rows_of(rich_csv(report))] == ["0.125", ""]


def test_the_schema_can_fail():
    data = report_data(make_report())
    data["nodules"][0]["probability"] = 1.5
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, report_schema())


def test_the_table_names_every_nodule():
    buffer = io.StringIO()
    show_report(make_report(), Console(file=buffer, width=100))
    assert "300.1" in buffer.getvalue()
    assert "0.988" in buffer.getvalue()
    show_report(make_report(()), Console(file=buffer, width=100))
    assert "No nodules at or above probability 0.4" in buffer.getvalue()


@pytest.mark.parametrize("nodules", [NODULES, ()])
def test_every_report_for_people_states_the_volume_of_the_lungs(phantom, nodules):
    """Air that was taken for lung shows there."""
    report = replace(report_of(phantom.volume, ()), lungs_ml=4321.4)
    buffer = io.StringIO()
    show_report(replace(make_report(nodules), lungs_ml=4321.4), Console(file=buffer, width=100))
    assert "lungs 4321 mL" in buffer.getvalue()
    assert "4321 mL searched" in render_report(report, ("html",), phantom.volume)["html"].decode()
    assert json.loads(report_json(report))["lungs_ml"] == 4321.4


def test_a_probability_is_one():
    with pytest.raises(InputError):
        Nodule((0, 0, 0), (0, 0, 0), 1.5, 1, 1, 1)


def test_names_come_from_the_scan(tmp_path):
    (tmp_path / "LIDC 1").mkdir()
    assert output_paths(tmp_path / "LIDC 1", tmp_path, ("csv",))["csv"].name == "LIDC 1.nodules.csv"
    names = [p.name for p in output_paths(tmp_path / "1.2.3.nii.gz", tmp_path, ("json", "luna16")).values()]
    assert names == ["1.2.3.nodules.json", "1.2.3.luna16.csv"]


def test_unknown_formats_are_refused():
    assert parse_formats("json, csv") == ("json", "csv")
    for names in ("xml", "", "csv,xml"):
        with pytest.raises(UsageError, match="choose from csv, json"):
            parse_formats(names)


def test_nothing_is_replaced_unasked(tmp_path):
    paths = output_paths(tmp_path / "a.mhd", tmp_path / "new" / "folder", ("csv", "json"))
    write_report(make_report(), paths, overwrite=False)
    with pytest.raises(UsageError, match="exists already"):
        write_report(make_report(()), paths, overwrite=False)
    assert len(rows_of(paths["csv"].read_text())) == 2
    write_report(make_report(()), paths, overwrite=True)
    assert rows_of(paths["csv"].read_text()) == []
    assert sorted(p.name for p in paths["csv"].parent.iterdir()) == ["a.nodules.csv", "a.nodules.json"]


@pytest.mark.parametrize("name", ["html", "png", "sr"])
def test_pictures_and_evidence_need_the_scan(tmp_path, name):
    with pytest.raises(UsageError, match="no scan was given"):
        write_report(make_report(), output_paths(tmp_path, tmp_path, ("csv", name)), overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "out.csv", b"x", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, overwrite):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(tmp_path / "out.csv", b"x", overwrite=overwrite)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, hard_links):
    """Between the check and the last step another process writes the same name."""
    path = tmp_path / "out.csv"
    synced = os.fsync

    def let_another_write(number):
        path.write_bytes(b"theirs")
        synced(number)

    def unsupported(*_):
        raise OSError(errno.EPERM, "no hard links here")

    if not hard_links:
        monkeypatch.setattr(os, "link", unsupported)
        write_bytes(tmp_path / "other.csv", b"x", overwrite=False)
        assert (tmp_path / "other.csv").read_bytes() == b"x"
        (tmp_path / "other.csv").unlink()
    monkeypatch.setattr(os, "fsync", let_another_write)
    with pytest.raises(UsageError, match="exists already"):
        write_bytes(path, b"ours", overwrite=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"out.csv": b"theirs"}


def test_contents_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    """After a loss of power a file under its own name is whole."""
    events = []
    synced, replaced = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(
        os, "fsync", lambda number: events.append(f"{os.fstat(number).st_size} bytes") or synced(number)
    )
    monkeypatch.setattr("pathlib.Path.replace", lambda part, path: events.append(path.name) or replaced(part, path))
    write_together({tmp_path / "a": b"1", tmp_path / "b": b"22"}, overwrite=True)
    assert events == ["1 bytes", "2 bytes", "a", "b"]


def test_text_that_a_spreadsheet_would_run_is_inert_and_numbers_are_numbers():
    cells = ("=1+1", "+A1", "-2+3", "@SUM(1)", "\tx", "-20.5", "+1e3", "056", "plain", -3, None)
    (row,) = csv.reader(csv_text((), [cells], inert=True).splitlines()[1:])
    assert row == ["'=1+1", "'+A1", "'-2+3", "'@SUM(1)", "'\tx", "-20.5", "+1e3", "056", "plain", "-3", ""]
    (row,) = csv.reader(csv_text((), [cells]).splitlines()[1:])
    assert row[:4] == ["=1+1", "+A1", "-2+3", "@SUM(1)"]  # series ids of tables that refer to each other


@pytest.mark.parametrize("steps", range(4))
def test_where_the_json_stands_the_others_are_of_its_making(tmp_path, monkeypatch, steps):
    """Stopped after any number of steps of replacing a set: no JSON, or all of one set."""
    paths = output_paths(tmp_path / "a.mhd", tmp_path, ("json", "csv"))
    write_report(make_report(), paths, overwrite=False)
    old = {path: path.read_bytes() for path in paths.values()}
    left = iter(range(steps))

    def stepwise(method):
        def step(path, *arguments, **options):
            if path.suffix != ".part" or method is not real_unlink:
                next(left)
            return method(path, *arguments, **options)

        return step

    real_unlink = type(tmp_path).unlink
    monkeypatch.setattr("pathlib.Path.unlink", stepwise(real_unlink))
    monkeypatch.setattr("pathlib.Path.replace", stepwise(type(tmp_path).replace))
    with suppress(StopIteration):
        write_report(make_report(()), paths, overwrite=True)
    assert sorted(tmp_path.iterdir()) == sorted(path for path in paths.values() if path.exists())
    if paths["json"].exists():
        assert {path.read_bytes() == old[path] for path in paths.values()} == {steps == 0}
    else:
        assert 0 < steps < 3


@pytest.mark.parametrize(
    ("rate", "text"),
    [(None, "-"), (0.125, "≤ 0.125"), (0.1250000000001, "≤ 0.125"), (0.126, "0.126"), (3.9612, "3.96")],
)
def test_a_rate_below_the_counted_ones_is_shown_as_a_bound(rate, text):
    assert rate_text(rate) == text
