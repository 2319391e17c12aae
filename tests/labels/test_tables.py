"""Tables are read strictly: whatever could silently become a wrong figure is one line of error with its number."""

from pathlib import Path

import numpy as np
import pytest

from gcnn_cli.errors import InputError
from gcnn_cli.labels.marks import UNMEASURED_MM, radius_mm
from gcnn_cli.labels.tables import read_candidates, read_excluded, read_nodules, read_rows, read_series

HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"
REFERENCE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def scores(path):
    return [row for _, row in read_rows(path, "probability")]


def test_rows_are_read_with_ids_as_strings_and_columns_in_any_order(tmp_path):
    text = "nodule,probability,seriesuid,coordZ,coordY,coordX\n1,0.5,056,3,2,1\n\n2,-7e-1, a ,0,0,0\n"
    assert scores(written(tmp_path, text)) == [("056", 1, 2, 3, 0.5), ("a", 0, 0, 0, -0.7)]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    text = b"\xef\xbb\xbf" + (HEADER + "a,1,2,3,0.5\n").replace("\n", "\r\n").encode()
    assert scores(written(tmp_path, text)) == [("a", 1, 2, 3, 0.5)]


def test_a_header_alone_holds_no_rows(tmp_path):
    assert scores(written(tmp_path, HEADER)) == []


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("heading", [HEADER, HEADER.upper(), HEADER.replace("seriesuid", "SeriesUID"), "\n" + HEADER])
def test_separators_and_capitals_are_those_of_the_file(tmp_path, separator, heading):
    path = written(tmp_path, (heading + "a,1,2,3,0.5\n").replace(",", separator))
    assert scores(path) == [("a", 1.0, 2.0, 3.0, 0.5)]


def test_lists_of_scans_may_have_other_separators_and_capitals(tmp_path):
    listed, _ = read_series(written(tmp_path, "SeriesUID;Patient\na;p\n"))
    assert listed == {"a": "p"}


def test_a_diameter_by_another_name_is_refused_with_the_remedy(tmp_path):
    path = written(tmp_path, "seriesuid,coordX,coordY,coordZ,Diameter\n")
    with pytest.raises(InputError, match="no column diameter_mm; found .*Diameter; rename diameter to diameter_mm"):
        read_nodules(path)


def test_repeated_predictions_are_marks_of_their_own(tmp_path):
    assert len(scores(written(tmp_path, HEADER + "a,1,2,3,0.5\n" * 2))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("seriesuid,coordX,coordY,probability\n", "line 1: no column coordZ"),
        (HEADER.replace(",", ";") + "a;1,5;2;3;0.5\n", "coordX is '1,5', not a number; write decimals with a point"),
        (HEADER.replace(",", "|") + "a|1|2|3|0.5\n", "line 1: no column"),
        (HEADER.replace(",", ";") + "a,1,2,3,0.5\n", "line 2: 1 columns, the header has 5"),
        ("seriesuid,coordX,coordY,coordZ,Score\n", "no column probability; .*; rename score to probability"),
        ("seriesuid,coordX,coordX,coordY,coordZ,probability\n", "line 1: two columns coordX"),
        (HEADER + "a,1,2,3,0.5\n" + HEADER, "line 3: the heading again"),
        (HEADER + "a,1,2,3\n", "line 2: 4 columns"),
        (HEADER + "a,1,2,3,0.5,9\n", "line 2: 6 columns"),
        (HEADER + "a,1,2,3,nan\n", "line 2: probability is 'nan'"),
        (HEADER + "a,1,2,3,inf\n", "probability is 'inf'"),
        (HEADER + "a,1,2,,0.5\n", "line 2: coordZ is ''"),
        (HEADER + "a,1,2,x,0.5\n", "coordZ is 'x'"),
        (HEADER + "a,1,2,3,0.5\n\n,1,2,3,0.5\n", "line 4: no seriesuid"),
        (b"seriesuid,\xff\xfe", "not a CSV file in UTF-8"),
        (HEADER.encode("utf-16"), "not a CSV file in UTF-8"),
        (b"a" * 200_000, "not a CSV file in UTF-8"),
    ],
)
def test_refusals(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        scores(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.csv: cannot be read"):
        scores(tmp_path / "nowhere.csv")


# Diameters


def test_an_unmeasured_diameter_stays_unmeasured_and_has_the_radius_of_10_mm(tmp_path):
    path = written(tmp_path, REFERENCE + "a,1,2,3,-1\na,1,2,4,6\n")
    (nodules, problems), excluded = read_nodules(path), read_excluded(path)
    assert nodules == excluded == [("a", 1, 2, 3, UNMEASURED_MM), ("a", 1, 2, 4, 6)]
    assert problems == []
    assert radius_mm([row[4] for row in nodules]).tolist() == [5, 3]


@pytest.mark.parametrize("diameter", ["0", "-0.0", "-2", "-1.5"])
@pytest.mark.parametrize("read", [read_nodules, read_excluded])
def test_other_diameters_without_a_size_are_invalid(tmp_path, read, diameter):
    with pytest.raises(InputError, match="line 2: diameter_mm must be positive, or -1 if unmeasured; got"):
        read(written(tmp_path, REFERENCE + f"a,1,2,3,{diameter}\n"))


@pytest.mark.data
def test_luna16s_tables_hold_no_other_diameters_and_no_repeated_nodule(shared_data):
    nodules, problems = read_nodules(shared_data / "luna16" / "annotations.csv")
    excluded = [row for _, row in read_rows(shared_data / "luna16" / "annotations_excluded.csv", "diameter_mm")]
    diameters = np.array([row[4] for row in excluded])
    assert (len(nodules), len(problems), min(row[4] for row in nodules) > 0) == (1186, 0, True)
    assert (len(excluded), (diameters == -1).sum(), (diameters > 0).sum()) == (35192, 30513, 4679)
    assert len(excluded) - len(set(excluded)) == 11105
    assert len(read_excluded(shared_data / "luna16" / "annotations_excluded.csv")) == 35192 - 11105


# Repetitions


def test_a_repeated_nodule_counts_once_and_is_reported(tmp_path):
    path = written(tmp_path, REFERENCE + "a,1,2,3,6\nb,1,2,3,6\na,1,2,3,6.0\n")
    nodules, (problem,) = read_nodules(path)
    assert nodules == [("a", 1, 2, 3, 6), ("b", 1, 2, 3, 6)]
    assert problem.text == f"{path}, line 4: repeats the nodule of line 2 (a); left out"
    assert read_excluded(path) == nodules


def test_a_nodule_of_two_diameters_is_refused_and_an_excluded_place_has_both(tmp_path):
    path = written(tmp_path, REFERENCE + "a,1,2,3,6\na,1,2,3,-1\n")
    with pytest.raises(InputError, match="line 3: the nodule of line 2 with another diameter, -1 instead of 6 mm"):
        read_nodules(path)
    assert [row[4] for row in read_excluded(path)] == [6, -1]  # as once in LUNA16's table


# Candidates and lists of scans


def test_a_candidate_has_class_0_or_1(tmp_path):
    heading = REFERENCE.replace("diameter_mm", "class")
    assert [row[4] for row in read_candidates(written(tmp_path, heading + "a,1,2,3,1\na,1,2,3,0\n"))] == [1, 0]
    with pytest.raises(InputError, match="line 3: class must be 0 or 1, got 2"):
        read_candidates(written(tmp_path, heading + "a,1,2,3,1\na,1,2,3,2\n"))


def test_series_lists_have_a_header_or_none_and_may_name_patients(tmp_path):
    assert read_series(written(tmp_path, "056\n1.2.3\n")) == ({"056": "", "1.2.3": ""}, [])
    assert read_series(written(tmp_path, "seriesuid\n056\n")) == ({"056": ""}, [])
    assert read_series(written(tmp_path, "patient,seriesuid\np,056\n\n,7\n")) == ({"056": "p", "7": ""}, [])
    assert read_series(written(tmp_path, "")) == ({}, [])


def test_an_open_quote_swallows_no_rows(tmp_path):
    rows = 'a,1,2,3,5,"spiculated\nb,1,2,3,6,none\nc,1,2,3,7,none\n'
    with pytest.raises(InputError, match="not a CSV file in UTF-8: unexpected end of data"):
        read_nodules(written(tmp_path, REFERENCE.replace("\n", ",comment\n") + rows))
    closed = written(tmp_path, REFERENCE.replace("\n", ",comment\n") + rows.replace("ted", 'ted"'))
    assert len(read_nodules(closed)[0]) == 3


def test_a_repeated_series_counts_once_and_is_reported(tmp_path):
    path = written(tmp_path, "a\nb\na\n")
    listed, (problem,) = read_series(path)
    assert list(listed) == ["a", "b"]
    assert problem.text == f"{path}, line 3: repeats line 1 (a); left out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "line 1: 2 columns, expected seriesuid"),
        ("seriesuid\na\nseriesuid\n", "line 3: the heading again"),
        ("seriesuid,patient\n,p\n", "line 2: no seriesuid"),
        ("seriesuid,patient\na,p\na,q\n", "line 3: the scan of line 2 with another patient"),
        (b"\xff\xfe", "not a CSV file in UTF-8"),
    ],
)
def test_series_lists_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_series(Path(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("heading", "remedy"),
    [("SeriesInstanceUID", "seriesinstanceuid to seriesuid"), ("seriesuid,patient_id", "patient_id to patient")],
)
def test_a_list_with_another_heading_is_refused(tmp_path, heading, remedy):
    """A scan called SeriesInstanceUID would count, and one patient's scans would be several patients'."""
    with pytest.raises(InputError, match=f"rename the column {remedy}"):
        read_series(written(tmp_path, f"{heading}\na,b\n"))
