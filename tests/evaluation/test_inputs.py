"""One table has one meaning: detection in a labeled folder and files alone are measured against the same reference."""

from dataclasses import replace

import numpy as np
import pytest
from scan.scans import axial

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.evaluation import evaluate_matches
from gcnn_cli.evaluation.inputs import from_files, from_labelled
from gcnn_cli.evaluation.matching import MatchRule
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.patients import pseudonym
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

HEADING = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
MEASURED = "a,0,30,-290,7\n"
UNMEASURED = "b,0,30,-290,-1\n"


@pytest.fixture
def folder(tmp_path):
    """Two labeled scans, with predictions 4.9 and 5.1 mm beside the nodule in b."""
    for name in ("a", "b"):
        write_metaimage(Volume(np.zeros((12, 30, 34), np.int16), axial()), tmp_path / f"{name}.mha")
    (tmp_path / "annotations.csv").write_text(HEADING + MEASURED + UNMEASURED)
    (tmp_path / "annotations_excluded.csv").write_text(HEADING + "a,5,25,-280,-1\n" * 2 + "a,5,25,-280,3\n")
    (tmp_path / "seriesuids.csv").write_text("a\nb\n")
    rows = "b,4.9,30,-290,0.9\nb,5.1,30,-290,0.8\na,5,29.9,-280,0.7\n"
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "p.csv").write_text(HEADING.replace("diameter_mm", "probability") + rows)
    return tmp_path


def by_files(folder):
    names = ("predictions/p.csv", "annotations.csv", "annotations_excluded.csv", "seriesuids.csv")
    return from_files(*(folder / name for name in names))


def by_folder(folder):
    index = read_index([folder])
    inputs = from_labelled(index.scans, [], folder, index.problems)
    return replace(inputs, predictions=by_files(folder).predictions)


def reference(inputs):
    return [
        sorted(zip(marks.series, marks.position_mm.tolist(), marks.value.tolist(), strict=True))
        for marks in (inputs.nodules, inputs.excluded)
    ]


@pytest.mark.parametrize("read", [by_files, by_folder])
def test_an_unmeasured_nodule_is_hit_within_5_mm_and_in_no_stratum(folder, read):
    inputs = read(folder)
    assert reference(inputs)[0] == [("a", [0, 30, -290], 7), ("b", [0, 30, -290], -1)]
    result = evaluate_matches(inputs.match(MatchRule()))
    counts = result.counts
    assert (counts.nodules, counts.unmeasured, counts.hits, counts.false_positives, counts.ignored) == (2, 1, 1, 1, 1)
    assert [stratum.nodules for stratum in result.strata] == [0, 0, 1, 0, 0]
    assert reference(inputs) == reference(by_files(folder))
    assert inputs.series == ("a", "b")


@pytest.mark.parametrize("read", [by_files, by_folder])
def test_a_repeated_nodule_counts_once_and_a_remark_says_so(folder, read, caplog):
    (folder / "annotations.csv").write_text(HEADING + MEASURED + UNMEASURED + MEASURED)
    inputs = read(folder)
    assert len(inputs.nodules) == 2
    assert inputs.remarks == ("left out of the labeled data: 1 duplicate rows",)
    assert "annotations.csv, line 4: repeats the nodule of line 2 (a); left out" in caplog.text


@pytest.mark.parametrize("read", [by_files, by_folder])
def test_a_repeated_series_counts_once(folder, read):
    (folder / "seriesuids.csv").write_text("a\nb\na\n")
    inputs = read(folder)
    assert inputs.series == ("a", "b")
    assert inputs.remarks == ("left out of the labeled data: 1 duplicate rows",)


@pytest.mark.parametrize("read", [by_files, by_folder])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("annotations.csv", HEADING + "a,0,30,-290,0\n", "line 2: diameter_mm must be positive, or -1"),
        ("annotations.csv", HEADING + "a,0,30,-290,-7\n", "line 2: diameter_mm must be positive, or -1"),
        ("annotations.csv", HEADING + MEASURED + "a,0,30,-290,8\n", "line 3: the nodule of line 2 with another"),
        ("annotations.csv", HEADING + "a,0,30,-290,7,8\n", "line 2: 6 columns, the header has 5"),
        ("annotations.csv", "", "is empty"),
        ("annotations_excluded.csv", HEADING + "a,5,25,-280,0\n", "line 2: diameter_mm must be positive, or -1"),
        ("seriesuids.csv", "a,b\n", "line 1: 2 columns"),
    ],
)
def test_both_refuse_the_same_tables_in_the_same_words(folder, read, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read(folder)
    assert str(caught.value).startswith(str(folder / name))


def test_an_empty_list_of_series_is_refused(folder):
    (folder / "seriesuids.csv").write_text("seriesuid\n")
    with pytest.raises(InputError, match="seriesuids.csv: lists no series"):
        by_files(folder)


def test_a_list_of_series_may_name_their_patients(folder):
    (folder / "seriesuids.csv").write_text("seriesuid,patient\na,LIDC-IDRI-0007\nb,own\n")
    assert by_files(folder).patients == by_folder(folder).patients == ("LIDC-IDRI-0007", pseudonym("own"))
