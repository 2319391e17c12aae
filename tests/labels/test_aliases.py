"""Labels may call a scan by another name, which aliases.csv gives it."""

import logging

import pytest
from labels.test_index import INSIDE, by_name, write_rows, write_scan

from gcnn_cli.errors import InputError
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.problems import LABELLED_TWICE, MISSING

UID = "1.2.3.4"
EXCLUDED = f"{UID},1,31,-285,-1"


@pytest.fixture
def renamed(tmp_path):
    """A scan under a name of its own, with a nodule, and a table of another folder that calls it by its UID."""
    write_scan(tmp_path / "data" / "patient.mhd")
    write_rows(tmp_path / "data" / "annotations.csv", f"patient,{INSIDE}")
    write_rows(tmp_path / "data" / "lists" / "annotations_excluded.csv", EXCLUDED)
    return tmp_path


def test_without_an_alias_the_labels_are_of_a_missing_scan(renamed):
    index = read_index([renamed / "data"])
    assert by_name(index)["patient"].excluded == ()
    assert [p.kind for p in index.problems] == [MISSING]


@pytest.mark.parametrize("place", ["data", "data/lists", "elsewhere"])
def test_an_alias_joins_them_wherever_it_stands(renamed, place, caplog):
    caplog.set_level(logging.INFO, "gcnn")
    write_rows(renamed / place / "aliases.csv", f"patient,{UID}", heading="seriesuid,alias")
    index = read_index([renamed / "data", *([renamed / place] if place == "elsewhere" else [])])
    (scan,) = index.scans
    assert (scan.name, scan.nodules) == ("patient", ((0.0, 30.0, -290.0, 6.0),))
    assert scan.excluded == ((1.0, 31.0, -285.0, -1.0),)
    assert [p.kind for p in index.problems] == [LABELLED_TWICE]


def test_an_alias_labels_no_scan(renamed):
    """It is a name, and says nothing about readers."""
    write_scan(renamed / "data" / "other.mhd", seed=1)
    write_rows(renamed / "data" / "aliases.csv", "other,1.2.3.5", "gone,1.2.3.6", heading="seriesuid,alias")
    index = read_index([renamed / "data"])
    assert {name: scan.labelled for name, scan in by_name(index).items()} == {"patient": True, "other": False}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["seriesuid", "a,b"], "expected the heading seriesuid,alias"),
        (["seriesuid,alias", "a,"], "line 2: expected seriesuid,alias"),
        (["seriesuid,alias", "a,b,c"], "line 2: expected seriesuid,alias"),
        (["seriesuid,alias", "a,x", "b,x"], "line 3: x is the alias of another scan already"),
    ],
)
def test_unclear_aliases_are_refused(renamed, rows, reason):
    write_rows(renamed / "data" / "aliases.csv", *rows[1:], heading=rows[0])
    with pytest.raises(InputError, match=reason):
        read_index([renamed / "data"])
