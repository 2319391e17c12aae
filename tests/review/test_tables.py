"""The tables of reviews are labels: of one reader and of several, and as the other commands read them."""

import csv
import json
import shutil

import numpy as np
import pytest
from review.results import BALL_MM, session_of, some_cases
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.labels.index import read_index
from gcnn_cli.review.agreement import Agreement


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("tables"), ("series", "flipped"))


def rows(folder, name="annotations.csv"):
    with (folder / name).open() as file:
        return list(csv.reader(file))[1:]


def positions(folder, name="annotations.csv"):
    return [tuple(float(value) for value in row[1:4]) for row in rows(folder, name)]


def places(case):
    return [nodule.position_mm for nodule in case.report.nodules]


def decide(session, number, *kinds, finish=0.0):
    """Give a verdict to each finding in turn, '' for none, and finish the scan."""
    entries = session.review(number)["entries"]
    for kind, entry in zip(kinds, entries, strict=False):
        if kind:
            session.decide(number, {"kind": kind, "key": entry["key"]})
    if finish is not None:
        session.decide(number, {"kind": "finish", "threshold": finish})


def test_of_one_reader_accepted_are_nodules_and_the_rest_is_as_decided(cases, tmp_path):
    session = session_of(cases, tmp_path)
    decide(session, 1, "accept", "reject", "unsure")
    np.testing.assert_allclose(positions(tmp_path), places(cases[1])[:1], atol=5e-4)
    np.testing.assert_allclose(positions(tmp_path, "annotations_excluded.csv"), places(cases[1])[2:], atol=5e-4)
    assert rows(tmp_path)[0][0] == "flipped"
    assert float(rows(tmp_path)[0][4]) == BALL_MM
    assert rows(tmp_path, "seriesuids.csv") == [["flipped"]]
    assert not (tmp_path / "agreement.csv").exists()


def test_a_scan_that_is_not_finished_is_in_no_table(cases, tmp_path):
    session = session_of(cases, tmp_path)
    decide(session, 1, "accept", "reject", "unsure", finish=None)
    assert not list(tmp_path.glob("*.csv"))
    session.decide(1, {"kind": "finish", "threshold": 0.5})
    assert len(rows(tmp_path)) == 1
    session.decide(1, {"kind": "undo"})
    assert [rows(tmp_path, f"{name}.csv") for name in ("annotations", "annotations_excluded", "seriesuids")] == [[]] * 3


def test_an_open_finding_that_was_shown_is_excluded_and_one_that_was_not_is_no_mark(cases, tmp_path):
    session = session_of(cases, tmp_path)
    shown = cases[1].report.nodules[1].probability
    decide(session, 1, "accept", finish=shown)
    np.testing.assert_allclose(positions(tmp_path, "annotations_excluded.csv"), places(cases[1])[1:2], atol=5e-4)


def test_a_scan_without_nodules_is_listed(cases, tmp_path):
    decide(session_of(cases, tmp_path), 0, "reject", "reject", "reject")
    uid = cases[0].report.scan.source.series_uid
    assert (rows(tmp_path), rows(tmp_path, "seriesuids.csv")) == ([], [[uid]])


def test_of_two_readers_both_make_a_nodule_and_one_an_excluded_mark(cases, tmp_path):
    first, second = session_of(cases, tmp_path), session_of(cases, tmp_path, "bob")
    x, y, z = places(cases[1])[0]
    decide(first, 1, "accept", "accept", "unsure")
    key = second.review(1)["entries"][0]["key"]
    second.decide(1, {"kind": "move", "key": key, "position_mm": [x, y, z + 2]})
    second.decide(1, {"kind": "resize", "key": key, "diameter_mm": BALL_MM + 4})
    decide(second, 1, "", "reject", "reject")
    (nodule,) = rows(tmp_path)
    assert [float(value) for value in nodule[1:]] == pytest.approx([x, y, z + 1, BALL_MM + 2], abs=6e-3)
    np.testing.assert_allclose(
        sorted(positions(tmp_path, "annotations_excluded.csv")), sorted(places(cases[1])[1:]), atol=5e-4
    )
    (line,) = rows(tmp_path, "agreement.csv")
    # One nodule of both, one of the first alone; both judged two findings: (accept, accept) and (accept, reject).
    assert line == ["ada", "bob", "1", "1", "1", "0", "0.667", "2", "0.000", "2.000", "4.000"]
    second.decide(1, {"kind": "reopen"})
    assert len(rows(tmp_path)) == 2
    assert not (tmp_path / "agreement.csv").exists()


def test_what_one_reader_left_open_and_two_accepted_is_a_nodule_and_no_excluded_mark(cases, tmp_path):
    for reader, kinds in (("ada", ["accept", "reject", "reject"]), ("bob", ["accept", "reject", "reject"])):
        decide(session_of(cases, tmp_path, reader), 1, *kinds)
    decide(session_of(cases, tmp_path, "eve"), 1, "", "reject", "unsure")
    np.testing.assert_allclose(positions(tmp_path), places(cases[1])[:1], atol=5e-4)
    np.testing.assert_allclose(positions(tmp_path, "annotations_excluded.csv"), places(cases[1])[2:], atol=5e-4)
    assert len(rows(tmp_path, "agreement.csv")) == 3


def test_only_readers_who_finished_a_scan_have_a_say(cases, tmp_path):
    decide(session_of(cases, tmp_path), 1, "accept", "accept", "accept")
    decide(session_of(cases, tmp_path, "bob"), 1, "reject", "reject", "reject", finish=None)
    assert len(rows(tmp_path)) == 3


def test_kappa_is_that_of_the_textbook():
    judged = ((20, 5), (10, 15))  # observed .7, expected .5
    pair = Agreement("a", "b", 1, 20, 5, 10, judged, None, None)
    assert pair.kappa == pytest.approx(0.4)
    assert pair.positive == pytest.approx(40 / 55)
    assert Agreement("a", "b", 1, 0, 0, 0, ((0, 0), (0, 0)), None, None).kappa is None
    assert Agreement("a", "b", 1, 3, 0, 0, ((3, 0), (0, 0)), None, None).kappa is None


@pytest.mark.parametrize("beside", [True, False], ids=["in the folder of the scans", "in a folder of its own"])
def test_training_reads_the_tables(cases, tmp_path, beside):
    scans = cases[1].scan.parent
    out = tmp_path / "review"
    session = session_of(cases, out)
    decide(session, 0, "accept", "reject", "unsure")
    place = places(cases[1])[1]
    session.decide(1, {"kind": "add", "position_mm": list(place), "diameter_mm": 9.0})
    decide(session, 1, "reject", "reject", "reject")
    folders = [scans, out]
    if beside:
        folder = tmp_path / "data"
        shutil.copytree(scans, folder)
        for name in ("annotations.csv", "annotations_excluded.csv", "seriesuids.csv"):
            (folder / name).write_bytes((out / name).read_bytes())
        folders = [folder]
    index = read_index(folders, strict=True)
    by_name = {scan.path.name: scan for scan in index.scans}
    assert all(scan.labelled for scan in index.scans)
    np.testing.assert_allclose([m[:3] for m in by_name["series"].nodules], places(cases[0])[:1], atol=5e-4)
    np.testing.assert_allclose([m[:3] for m in by_name["series"].excluded], places(cases[0])[2:], atol=5e-4)
    np.testing.assert_allclose(by_name["flipped.mhd"].nodules, [(*place, 9.0)], atol=5e-4)


def test_evaluation_reads_the_tables(cases, tmp_path):
    session = session_of(cases, tmp_path)
    decide(session, 0, "accept", "reject", "unsure")
    decide(session, 1, "accept", "accept", "reject")
    arguments = ["evaluate", "--predictions", cases[0].result.parent, "--json", "--bootstraps", "0"]
    for option, name in (
        ("annotations", "annotations"),
        ("excluded", "annotations_excluded"),
        ("series", "seriesuids"),
    ):
        arguments += [f"--{option}", tmp_path / f"{name}.csv"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)["counts"]
    # Three nodules, all found; two findings are false and one is neither, in two scans.
    assert {name: counts[name] for name in ("scans", "nodules", "hits", "false_positives", "ignored")} == {
        "scans": 2, "nodules": 3, "hits": 3, "false_positives": 2, "ignored": 1,
    }  # fmt: skip
