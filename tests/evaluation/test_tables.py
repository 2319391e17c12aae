"""What could turn into a wrong figure in silence is refused, in one line with its number."""

import pytest

from gcnn_cli.errors import InputError
from gcnn_cli.evaluation.tables import read_annotations, read_excluded, read_predictions, read_series

HEADER = "seriesuid,coordX,coordY,coordZ,probability\n"
REFERENCE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_are_read_with_ids_as_strings_and_columns_in_any_order(tmp_path):
    marks = read_predictions(
        written(tmp_path, "nodule,probability,seriesuid,coordZ,coordY,coordX\n1,0.5,056,3,2,1\n\n2,-7e-1, a ,0,0,0\n")
    )
    assert marks.series == ("056", "a")
    assert marks.position_mm.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert marks.value.tolist() == [0.5, -0.7]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    marks = read_predictions(
        written(tmp_path, b"\xef\xbb\xbf" + (HEADER + "a,1,2,3,0.5\n").replace("\n", "\r\n").encode())
    )
    assert marks.series == ("a",)


def test_a_header_alone_is_no_predictions(tmp_path):
    assert len(read_predictions(written(tmp_path, HEADER))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("seriesuid,coordX,coordY,probability\n", "line 1: no column coordZ"),
        (HEADER.replace(",", ";") + "a;1;2;3;0.5\n", "separated by commas"),
        (HEADER.replace(",", "\t") + "a\t1\t2\t3\t0.5\n", "separated by commas"),
        ("seriesuid,coordX,coordX,coordY,coordZ,probability\n", "column coordX is there twice"),
        (HEADER + "a,1,2,3,0.5\n" + HEADER, "line 3: the header again"),
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
        read_predictions(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.csv: cannot be read"):
        read_predictions(tmp_path / "nowhere.csv")


def test_a_nodule_listed_twice_would_count_twice(tmp_path):
    path = written(tmp_path, REFERENCE + "a,1,2,3,6\nb,1,2,3,6\na,1,2,3,6\n")
    with pytest.raises(InputError, match="line 4: the nodule of line 2 again"):
        read_annotations(path)
    assert len(read_excluded(path)) == 3


def test_a_nodule_of_no_size_can_never_be_hit(tmp_path):
    with pytest.raises(InputError, match="line 2: a nodule of 0 mm"):
        read_annotations(written(tmp_path, REFERENCE + "a,1,2,3,0\n"))


def test_series_lists_have_a_header_or_none(tmp_path):
    assert read_series(written(tmp_path, "056\n1.2.3\n")) == ("056", "1.2.3")
    assert read_series(written(tmp_path, "seriesuid\n056\n")) == ("056",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no series"),
        ("seriesuid\n", "lists no series"),
        ("a\nb\na\n", "line 3: series a is listed in line 1"),
        ("a,b\n", "2 columns"),
    ],
)
def test_series_lists_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_series(written(tmp_path, text))
