"""Inputs after public reports about other tools, beyond `test_pitfalls.py`; README.md here has the links."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from scan.images.test_nifti import spoiled
from scan.scans import axial, enhanced, some_hu, write_series
from scan.test_reading import write_file

from gcnn_cli.errors import GcnnError
from gcnn_cli.scan.reading import read_volume

HU = some_hu()


def series(folder: Path, edit=lambda number, dataset: None, **options) -> Path:
    return write_series(folder / "series", HU, axial(), edit=edit, **options)


def rewritten(folder: Path, change) -> Path:
    """A series whose files are changed as bytes, as pydicom would not write them."""
    made = series(folder)
    for path in made.iterdir():
        path.write_bytes(change(path.read_bytes()))
    return made


def long_numbers(folder: Path) -> Path:
    """Decimal strings of more than 16 characters, which the standard forbids and many converters write."""

    def edit(number: int, dataset: Dataset) -> None:
        position = [f"{v:.17f}" for v in dataset.ImagePositionPatient]
        with pydicom.config.disable_value_validation():
            dataset.ImagePositionPatient = position

    return series(folder, edit)


def without(*names):
    def edit(number: int, dataset: Dataset) -> None:
        for name in names:
            if name in dataset:
                delattr(dataset, name)

    return edit


def negative_spacing(folder: Path) -> Path:
    made = enhanced(HU, axial(), [4, 3, 2, 1, 0])
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = -2.5
    folder.joinpath("all").mkdir()
    made.save_as(folder / "all" / "a.dcm", enforce_file_format=True)
    return folder / "all"


def thick(number: int, dataset: Dataset) -> None:
    dataset.SliceThickness = 5  # overlapping slices: their distance is 2.5 mm


def foreign_names(number: int, dataset: Dataset) -> None:
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", "Müller^Jürgen"
    dataset.SeriesDescription = "Thorax nüchtern"


def high_bit(number: int, dataset: Dataset) -> None:
    """Unsigned pixels above 32767: an intercept of -40000."""
    raw = np.frombuffer(dataset.PixelData, np.uint16).astype(np.int32) - 1024 + 40000
    dataset.PixelData, dataset.RescaleIntercept = raw.astype(np.uint16).tobytes(), -40000


def unsigned_slope(folder: Path) -> Path:
    return spoiled(write_file(folder / "a.nii", HU, axial()), (112, "2f", (float("nan"), float("nan"))))


def no_slope(folder: Path) -> Path:
    return spoiled(write_file(folder / "a.nii", HU, axial()), (112, "2f", (0.0, 0.0)))


def text_spacing(content: bytes) -> bytes:
    """PixelSpacing with the value representation of text, as a scanner of 7 T wrote it."""
    return content.replace(b"\x28\x00\x30\x00DS", b"\x28\x00\x30\x00LO")


READ = {
    "decimal strings above 16 characters": long_numbers,
    "no SliceLocation, SliceThickness, InstanceNumber": lambda f: series(
        f, without("SliceLocation", "SliceThickness", "InstanceNumber")
    ),
    "slice thickness unlike the distance": lambda f: series(f, thick),
    "a negative SpacingBetweenSlices": negative_spacing,
    "names outside ASCII": lambda f: series(f, foreign_names),
    "unsigned pixels with the highest bit": lambda f: series(f, high_bit),
    "a NIfTI slope of NaN": unsigned_slope,
    "a NIfTI slope of 0": no_slope,
    "spacing as text": lambda f: rewritten(f, text_spacing),
    "files named at random": lambda f: series(f, name=lambda n: f"{(n * 7919) % 101:x}"),
}


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("case", READ)
def test_read_right(tmp_path, case):
    volume = read_volume(READ[case](tmp_path))
    np.testing.assert_array_equal(volume.hu, HU)
    np.testing.assert_allclose(volume.to_world, axial(), atol=1e-4)


def comma(content: bytes) -> bytes:
    """A decimal comma in PixelSpacing, of the same length."""
    return content.replace(b"0.8\\0.7", b"0,8\\0,7")


def several_frames(number: int, dataset: Dataset) -> None:
    dataset.NumberOfFrames = 2
    dataset.PixelData = dataset.PixelData * 2


def values(folder: Path, array: np.ndarray) -> Path:
    return write_file(folder / "a.nii.gz", array, axial())


def radiograph(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((40, 40), np.uint8)), str(folder / "a.png"))
    return folder / "a.png"


def cut_preamble(folder: Path) -> Path:
    return rewritten(folder, lambda content: content[132:])


def one_without_preamble(folder: Path) -> Path:
    """The last slice would be lost without a sign."""
    made = series(folder)
    (made / "004.dcm").write_bytes((made / "004.dcm").read_bytes()[132:])
    return made


REFUSED = {
    "a decimal comma": (lambda f: rewritten(f, comma), 3, "no position, orientation or pixel spacing"),
    "no pixel spacing": (lambda f: series(f, without("PixelSpacing")), 3, "no position, orientation or pixel spacing"),
    "several frames in a classic CT": (
        lambda f: series(f, several_frames), 3, "several frames without positions of their own",
    ),
    "values from 0 to 1": (lambda f: values(f, (HU - HU.min()) / np.float32(np.ptp(HU))), 3, "values run from 0 to 1"),
    "values from 0 up": (lambda f: values(f, HU + np.int16(1000)), 3, "Hounsfield units: values run from 0"),
    "a radiograph": (radiograph, 3, "not a supported scan"),
    "one DICOM file": (lambda f: series(f) / "002.dcm", 3, "one DICOM file is one slice"),
    "a single slice": (
        lambda f: write_series(f / "one", HU[:1], axial()), 3, "no usable CT series (a single slice)",
    ),
    "DICOM without its preamble": (cut_preamble, 3, "5 files are DICOM without the preamble"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(tmp_path, case):
    make, code, reason = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(GcnnError) as refusal:
        read_volume(path)
    assert refusal.value.exit_code == code
    assert reason in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_slice_without_its_preamble_is_not_lost_unseen(tmp_path):
    volume = read_volume(one_without_preamble(tmp_path))
    assert volume.shape[0] == 4
    assert "1 files of the folder cannot be read and were left out" in volume.source.warnings
