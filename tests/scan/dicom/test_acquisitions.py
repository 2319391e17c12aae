"""Two acquisitions under one SeriesInstanceUID are told apart by their headers, listed, chosen and read."""

import json

import numpy as np
import pytest
from pydicom.dataset import Dataset
from scan.scans import SERIES, axial, some_hu, write_series
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import GeometryError, SeriesChoiceError
from gcnn_cli.labels.discovery import find_scans
from gcnn_cli.scan.dicom.evidence import read_evidence
from gcnn_cli.scan.dicom.series import find_series, numbered, read_series

FIRST, SECOND = some_hu((8, 6, 7), seed=1), some_hu((8, 6, 7), seed=2)


def both(folder, early, late, *, shift_mm=0.0):
    """Two stacks of one series; `early` and `late` give the elements of slice n, or are the same for all."""
    moved = axial()
    moved[2, 3] += shift_mm
    for name, hu, to_world, elements in (("a", FIRST, axial(), early), ("b", SECOND, moved, late)):

        def edit(number: int, dataset: Dataset, elements=elements, name=name) -> None:
            dataset.update(elements(number) if callable(elements) else elements)
            dataset.SOPInstanceUID = f"{SERIES}.{ord(name)}.{number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

        write_series(folder, hu, to_world, edit=edit, name=lambda n, name=name: f"{name}{n:03d}.dcm")
    return folder


def clock(start: float, step: float):
    return lambda n: {"AcquisitionTime": f"1030{start + n * step:09.6f}", "AcquisitionNumber": None}


APART = {
    "acquisition number": ({"AcquisitionNumber": 9}, {"AcquisitionNumber": 10}, "acquisition number 9"),
    "kernel": ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": ["B70f", "2"]}, "kernel B30f"),
    "image type": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "EXP"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "INSP"]},
        "EXP",
    ),
    "temporal position": ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "temporal position 1"),
    "contrast": ({}, {"ContrastBolusAgent": "Omnipaque"}, "contrast agent none"),
    "a time for each slice": (clock(2, 0.3), clock(25, 0.3), "acquisition time group 1"),
    "a time for each slice and a number that is no help": (
        lambda n: clock(2, 0.3)(n) | {"AcquisitionNumber": n}, lambda n: clock(25, 0.3)(n) | {"AcquisitionNumber": n},
        "acquisition time group 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("early", "late", "distinction"), APART.values(), ids=APART)
@pytest.mark.parametrize("shift_mm", [0.0, 1.0])
def test_each_is_read_alone(tmp_path, early, late, distinction, shift_mm):
    both(tmp_path, early, late, shift_mm=shift_mm)
    with pytest.raises(SeriesChoiceError, match="2 acquisitions found in one series; choose one with --series '#N.M'"):
        read_series(tmp_path)
    for choice, hu in (("#1.1", FIRST), ("#1.2", SECOND), (f"{SERIES}#2", SECOND)):
        volume = read_series(tmp_path, choice)
        np.testing.assert_array_equal(volume.hu, hu)
        assert volume.source.series_uid == SERIES
    assert any(distinction in text for text in read_series(tmp_path, "#1.1").source.warnings)
    np.testing.assert_allclose(volume.to_world[2, 3], axial()[2, 3] + shift_mm)


@pytest.mark.parametrize("choice", ["#1", SERIES])
def test_the_name_of_the_whole_series_is_not_enough(tmp_path, choice):
    both(tmp_path, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2})
    with pytest.raises(SeriesChoiceError, match=r"holds 2 acquisitions; choose one with --series '#1.1' or '#1.2'"):
        read_series(tmp_path, choice)


def test_two_elements_together(tmp_path):
    """Two phases in two kernels: four stacks."""
    for phase in (1, 2):
        half = {"AcquisitionNumber": phase}
        both(tmp_path / str(phase), half | {"ConvolutionKernel": "soft"}, half | {"ConvolutionKernel": "sharp"})
    names = [name for name, _ in numbered(find_series(tmp_path))]
    assert names == ["#1.1", "#1.2", "#1.3", "#1.4"]
    assert "acquisition number 2, kernel soft" in find_series(tmp_path)[3].description


def test_stacks_of_two_pixel_spacings_are_told_apart(tmp_path):
    """As seen in a public archive: one series with two volumes of different spacing."""
    spacing = {"PixelSpacing": [0.9, 0.9]}
    both(tmp_path, {"ReconstructionDiameter": 300}, {"ReconstructionDiameter": 400, **spacing}, shift_mm=40.0)
    assert read_series(tmp_path, "#1.2").spacing_zyx.tolist() == pytest.approx([2.5, 0.9, 0.9])
    np.testing.assert_array_equal(read_series(tmp_path, "#1.1").hu, FIRST)


def test_numbers_keep_those_of_other_series(tmp_path):
    both(tmp_path / "a", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2})
    write_series(tmp_path / "b", FIRST, axial(), series="1.2.3", edit=lambda n, d: setattr(d, "SeriesNumber", 1))
    assert [name for name, _ in numbered(find_series(tmp_path))] == ["#1", "#2.1", "#2.2"]


def test_what_nothing_tells_apart_is_refused(tmp_path):
    both(tmp_path, {"AcquisitionNumber": 3}, {"AcquisitionNumber": 3})
    with pytest.raises(GeometryError, match="two different slices lie at the same place"):
        read_series(tmp_path)


def test_a_number_for_each_slice_splits_nothing(tmp_path):
    """Step and shoot: every slice is an acquisition of its own, in one stack."""
    write_series(tmp_path, FIRST, axial(), edit=lambda n, d: setattr(d, "AcquisitionNumber", n // 2))
    np.testing.assert_array_equal(read_series(tmp_path).hu, FIRST)


def test_copies_are_copies_whatever_their_number(tmp_path):
    write_series(tmp_path / "a", FIRST, axial(), edit=lambda n, d: setattr(d, "AcquisitionNumber", 1))
    write_series(tmp_path / "b", FIRST, axial(), edit=lambda n, d: setattr(d, "AcquisitionNumber", 2))
    volume = read_series(tmp_path)
    assert "8 repeated slices with equal pixels were dropped" in volume.source.warnings


def test_info_lists_them(tmp_path):
    both(tmp_path, {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"})
    done = CliRunner().invoke(app, ["info", str(tmp_path), "--json"])
    rows = json.loads(done.stdout)
    assert [(row["number"], row["description"], row["files"]) for row in rows] == [
        ("#1.1", "chest 2.5 mm (kernel B30f)", 8),
        ("#1.2", "chest 2.5 mm (kernel B70f)", 8),
    ]
    assert all(row["geometry"].startswith("sound") for row in rows)


def test_the_headers_behind_an_acquisition_are_its_own(tmp_path):
    both(tmp_path, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2})
    source = read_series(tmp_path, "#1.2").source
    assert source.acquisition == 2
    assert {int(header.AcquisitionNumber) for header in read_evidence(source).headers} == {2}


def test_labels_do_not_guess(tmp_path):
    both(tmp_path, {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2})
    (scan,) = find_scans(tmp_path)
    assert "several acquisitions share one SeriesInstanceUID" in scan.problem
    assert scan.grid is None
