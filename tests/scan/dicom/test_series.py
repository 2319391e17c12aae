"""DICOM folders: choice of the series, order of the slices, and refusals without names of patients."""

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage, SecondaryCaptureImageStorage
from scan.scans import FRAME, SERIES, STUDY, axial, ct_slice, enhanced, oblique, some_hu, write_series

from gcnn_cli.errors import GcnnError, GeometryError, InputError, SeriesChoiceError
from gcnn_cli.scan.dicom import pixels
from gcnn_cli.scan.dicom.headers import read_summaries
from gcnn_cli.scan.dicom.pixels import file_hu
from gcnn_cli.scan.dicom.series import find_series, read_series
from gcnn_cli.scan.reading import read_volume

STACKS = {"axial": axial(), "oblique": oblique()}


@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_voxels_and_places_are_those_written(tmp_path: Path, to_world: np.ndarray) -> None:
    volume = read_series(write_series(tmp_path, some_hu(), to_world))
    np.testing.assert_array_equal(volume.hu, some_hu())
    np.testing.assert_allclose(volume.to_world, to_world, atol=1e-6)
    assert volume.hu.dtype == np.int16


def test_the_source_holds_identities_in_array_order_and_no_names(tmp_path: Path) -> None:
    source = read_series(write_series(tmp_path, some_hu(), axial())).source
    assert (source.kind, source.series_uid, source.study_uid) == ("dicom", SERIES, STUDY)
    assert source.frame_of_reference_uid == FRAME
    assert source.slice_uids == tuple(f"{SERIES}.{n}" for n in range(1, 6))
    assert source.warnings == ()
    assert not any(secret in repr(source) for secret in ("Doe", "Jane", "SECRET"))


def test_names_file_order_and_instance_numbers_mean_nothing(tmp_path: Path) -> None:
    shuffle = np.random.default_rng(2).permutation(12)
    hu = some_hu((12, 6, 7))

    def renumber(number: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = int(shuffle[number])

    plain = read_series(write_series(tmp_path / "plain", hu, oblique()))
    shuffled = read_series(write_series(tmp_path / "x", hu, oblique(), edit=renumber, name=lambda n: f"IM{shuffle[n]}"))
    np.testing.assert_array_equal(shuffled.hu, plain.hu)
    np.testing.assert_array_equal(shuffled.to_world, plain.to_world)
    assert shuffled.source.slice_uids == plain.source.slice_uids
    assert shuffled.source.sha256 == plain.source.sha256


def test_a_stack_written_from_head_to_feet_is_the_same(tmp_path: Path) -> None:
    downwards = axial() @ np.diag([-1.0, 1, 1, 1])
    volume = read_series(write_series(tmp_path, some_hu(), downwards))
    np.testing.assert_array_equal(volume.hu, some_hu()[::-1])
    place = (downwards @ [4, 2, 3, 1])[:3]
    np.testing.assert_allclose(volume.position_mm([0, 2, 3]), place, atol=1e-6)


def test_without_a_modality_the_sop_class_decides(tmp_path: Path) -> None:
    def stripped(number: int, dataset: Dataset) -> None:
        del dataset.Modality

    volume = read_series(write_series(tmp_path / "ct", some_hu(), axial(), edit=stripped))
    np.testing.assert_array_equal(volume.hu, some_hu())
    assert volume.source.warnings == ("the headers do not state the modality; their SOP class is that of CT",)

    def stripped_mr(number: int, dataset: Dataset) -> None:
        del dataset.Modality
        dataset.SOPClassUID = MRImageStorage

    with pytest.raises(InputError, match=r"not a CT image \(no modality\)"):
        read_series(write_series(tmp_path / "mr", some_hu(), axial(), edit=stripped_mr))


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        (SecondaryCaptureImageStorage, "a secondary capture"),
        ("1.2.840.10008.5.1.4.1.1.88.67", "an x-ray radiation dose SR"),
        ("1.2.3.4", "of the unknown SOP class 1.2.3.4"),
        ("", "without a SOP class"),
    ],
)
def test_what_is_stored_under_modality_ct_is_called_by_its_name(tmp_path: Path, sop_class: str, words: str) -> None:
    write_series(tmp_path, some_hu(), axial(), edit=lambda n, d: setattr(d, "SOPClassUID", sop_class))
    with pytest.raises(InputError, match=rf"no usable CT series \({words}, not a CT image\)"):
        read_series(tmp_path)


def test_files_lie_at_any_depth_among_others(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "b c" / "ü.1", some_hu(), axial(), name="{:d}".format)
    (tmp_path / "readme.txt").write_text("not DICOM")
    (tmp_path / "a" / "069.xml").write_text("<x/>")
    (tmp_path / "empty").touch()
    assert read_series(tmp_path).shape == (5, 6, 7)


def change(**elements: object) -> Callable[[int, Dataset], None]:
    def edit(number: int, dataset: Dataset) -> None:
        dataset.update(elements)

    return edit


SET_ASIDE = {
    "localizer": change(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    "MR": change(Modality="MR", SOPClassUID=MRImageStorage),
    "dose screen": change(SOPClassUID=SecondaryCaptureImageStorage),
}


@pytest.mark.parametrize("edit", SET_ASIDE.values(), ids=SET_ASIDE)
def test_other_series_are_set_aside(tmp_path: Path, edit: Callable[[int, Dataset], None]) -> None:
    write_series(tmp_path / "ct", some_hu(), axial())
    write_series(tmp_path / "other", some_hu(seed=1), axial(), edit=edit, series="1.2.3")
    assert read_series(tmp_path).source.series_uid == SERIES
    with pytest.raises(InputError, match="cannot be used"):
        read_series(tmp_path, "1.2.3")
    shutil.rmtree(tmp_path / "ct")
    with pytest.raises(InputError, match="no usable CT series"):
        read_series(tmp_path)


@pytest.mark.parametrize("edit", SET_ASIDE.values(), ids=SET_ASIDE)
def test_other_objects_inside_the_series_are_left_out(tmp_path: Path, edit: Callable[[int, Dataset], None]) -> None:
    write_series(tmp_path, some_hu(), axial())
    extra = ct_slice(9, some_hu()[0], axial())
    edit(9, extra)
    del extra.ImagePositionPatient
    extra.save_as(tmp_path / "000.dcm", enforce_file_format=True)
    extra.save_as(tmp_path / "0.dcm", enforce_file_format=True)
    write_series(tmp_path, some_hu(), axial())  # the five slices again, one of them over an extra
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.hu, some_hu())
    assert "1 files of the series are not CT slices" in volume.source.warnings[0]


@pytest.fixture
def two_series(tmp_path: Path) -> Path:
    write_series(tmp_path, some_hu(), axial(), name="a{:d}".format, edit=change(SeriesNumber=7))
    write_series(tmp_path, some_hu(seed=1), axial(), name="b{:d}".format, series="1.2.3")
    return tmp_path


def test_of_several_series_one_must_be_chosen(two_series: Path) -> None:
    with pytest.raises(SeriesChoiceError, match="2 CT series found") as refusal:
        read_series(two_series)
    assert "--series" in str(refusal.value)
    assert "gcnn info" in str(refusal.value)


def test_a_series_is_chosen_by_uid_or_number(two_series: Path) -> None:
    assert [s.number for s in find_series(two_series)] == [4, 7]
    for choice, seed in {"1.2.3": 1, "#1": 1, SERIES: 0, "#2": 0}.items():
        np.testing.assert_array_equal(read_series(two_series, choice).hu, some_hu(seed=seed))


@pytest.mark.parametrize("choice", ["#0", "#3", "1.2", "2", ""])
def test_a_series_that_is_not_there_is_refused(two_series: Path, choice: str) -> None:
    with pytest.raises(InputError, match="no series"):
        read_series(two_series, choice)


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_a_folder_without_dicom_is_refused(tmp_path: Path, content: str) -> None:
    if content == "text":
        (tmp_path / "a.txt").write_text("x" * 500)
    with pytest.raises(InputError, match="no DICOM"):
        read_series(tmp_path)


def test_a_missing_slice_is_refused_by_name(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu((9, 6, 7)), axial())
    (tmp_path / "004.dcm").unlink()
    with pytest.raises(GeometryError, match=r"slices 4 and 5 .* are 5 mm apart, the others 2\.5 mm"):
        read_series(tmp_path)


def test_copies_of_slices_are_dropped(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    write_series(tmp_path / "copy", some_hu(), axial())
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.hu, some_hu())
    assert "5 repeated slices" in volume.source.warnings[0]


def test_different_pixels_at_one_place_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    write_series(tmp_path / "late phase", some_hu(seed=1), axial())
    with pytest.raises(GeometryError, match="two different slices lie at the same place"):
        read_series(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    tilted = axial()
    tilted[1, 0] = 2.5 * np.tan(np.radians(20))
    write_series(tmp_path, some_hu((40, 6, 7)), tilted)
    with pytest.raises(GeometryError, match=r"sheared by 20\.0 degrees"):
        read_series(tmp_path)


def test_the_verdict_is_given_without_raising(tmp_path: Path) -> None:
    tilted = axial()
    tilted[1, 0] = 1.0
    (series,) = find_series(write_series(tmp_path, some_hu(), tilted))
    assert series.unusable == ""
    assert "sheared" in series.verdict.problem


def test_a_matrix_size_that_changes_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    odd = ct_slice(5, some_hu((1, 8, 7))[0], axial())
    odd.save_as(tmp_path / "odd.dcm", enforce_file_format=True)
    with pytest.raises(GeometryError, match="mixes matrix sizes"):
        read_series(tmp_path)


INCOMPLETE = {
    "no position": lambda n, d: d.pop("ImagePositionPatient"),
    "no orientation": lambda n, d: d.pop("ImageOrientationPatient"),
    "no spacing": lambda n, d: d.pop("PixelSpacing"),
    "no rows": lambda n, d: d.pop("Rows"),
    "empty position": change(ImagePositionPatient=None),
    "short orientation": change(ImageOrientationPatient=[1, 0, 0]),
}


@pytest.mark.parametrize("edit", INCOMPLETE.values(), ids=INCOMPLETE)
def test_headers_without_geometry_are_refused(tmp_path: Path, edit: Callable[[int, Dataset], None]) -> None:
    write_series(tmp_path, some_hu(), axial(), edit=edit)
    with pytest.raises(InputError, match=r"no position, orientation or pixel spacing in 000\.dcm"):
        read_series(tmp_path)


def test_a_position_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    content = (tmp_path / "000.dcm").read_bytes()
    (tmp_path / "000.dcm").write_bytes(content.replace(b"-10\\20\\-300", b"-10\\20\\ nan"))
    with pytest.raises(InputError, match=r"no position, orientation or pixel spacing in 000\.dcm"):
        read_series(tmp_path)


def test_one_slice_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu((1, 6, 7)), axial())
    with pytest.raises(InputError, match="a single slice"):
        read_series(tmp_path)


def test_damaged_dicom_is_counted(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    whole = (tmp_path / "004.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(whole[:140] + b"\xff" * 40)
    volume = read_series(tmp_path)
    assert volume.shape == (5, 6, 7)
    assert "1 files of the folder cannot be read" in volume.source.warnings[0]


def test_unimportant_damage_does_not_matter(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial(), edit=lambda n, d: d.pop("SeriesNumber"))
    assert read_series(tmp_path).shape == (5, 6, 7)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2]], ids=["in order", "shuffled"])
def test_enhanced_ct_is_read_frame_by_frame(tmp_path: Path, order: list[int]) -> None:
    enhanced(some_hu(), oblique(), order).save_as(tmp_path / "all", enforce_file_format=True)
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.hu, some_hu())
    np.testing.assert_allclose(volume.to_world, oblique(), atol=1e-6)


def test_copies_of_enhanced_ct_are_decoded_once_to_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more to be read; the frames of the two files may take turns along the normal."""
    opened: list[str] = []

    def counted(path: Path, notes: set[str]) -> np.ndarray:
        opened.append(path.name)
        return file_hu(path, notes)

    monkeypatch.setattr(pixels, "file_hu", counted)
    for first, (name, order) in enumerate({"a": [0, 1, 2, 3, 4], "b": [4, 3, 2, 1, 0]}.items()):
        image = enhanced(some_hu(), axial(), order)
        for n, frame in enumerate(image.PerFrameFunctionalGroupsSequence, start=first):
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [*position[:2], f"{position[2] + n % 2 * 1e-4:.9g}"]
        image.save_as(tmp_path / name, enforce_file_format=True)
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.hu, some_hu())
    assert "5 repeated slices" in volume.source.warnings[0]
    assert sorted(opened) == ["a", "a", "b", "b"]


def test_values_of_zero_are_not_zeros_where_elements_should_be(tmp_path: Path) -> None:
    """A double of zero is eight bytes of zero, as an element of the command group without a value is."""
    image = enhanced(some_hu(), oblique(), [0, 1, 2, 3, 4])
    image["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    for frame in image.PerFrameFunctionalGroupsSequence:
        details = [Dataset() for _ in range(300)]
        for detail in details:
            detail.GantryDetectorTilt, detail.is_undefined_length_sequence_item = 0.0, True
        frame.CTPositionSequence = details
        frame["CTPositionSequence"].is_undefined_length = True
        frame.is_undefined_length_sequence_item = True
    image.save_as(tmp_path / "all", enforce_file_format=True)
    np.testing.assert_array_equal(read_series(tmp_path).hu, some_hu())


def test_the_file_of_an_enhanced_ct_is_not_called_one_slice(tmp_path: Path) -> None:
    enhanced(some_hu(), axial(), [0, 1, 2, 3, 4]).save_as(tmp_path / "all", enforce_file_format=True)
    with pytest.raises(InputError, match="one DICOM file is one slice or a part of a series; give the folder of the"):
        read_volume(tmp_path / "all")


def test_enhanced_ct_without_its_groups_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial(), edit=change(SOPClassUID=EnhancedCTImageStorage))
    with pytest.raises(InputError, match="no position"):
        read_series(tmp_path)


def test_no_refusal_names_the_patient(tmp_path: Path, two_series: Path) -> None:
    (two_series / "a1").unlink()
    for choice in (None, "#1", "#2", "#9"):
        try:
            read_series(two_series, choice)
        except GcnnError as error:
            text = str(error)
            assert not any(secret in text for secret in ("Doe", "Jane", "SECRET"))
            assert "\n" not in text


def test_of_each_header_little_is_kept(tmp_path: Path) -> None:
    """A folder of 100,000 files would fill the memory with their headers."""
    files = sorted(write_series(tmp_path, some_hu((200, 6, 7)), axial()).iterdir())
    read_summaries(files[:2])
    tracemalloc.start()
    summaries, damaged = read_summaries(files)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (len(summaries), damaged) == (200, 0)
    assert used < 200 * 4000


@pytest.mark.data
def test_a_whole_chest_ct(shared_data: Path) -> None:
    volume = read_series(shared_data / "dicom" / "LIDC-IDRI-0001")
    assert volume.shape == (133, 512, 512)
    np.testing.assert_allclose(volume.spacing_zyx, [2.5, 0.703125, 0.703125])
    np.testing.assert_allclose(volume.position_mm([132, 0, 0]), [-166.0, -171.699997, -10.0])
    assert volume.hu.min() == -1024


@pytest.mark.parametrize(
    "rest", [b"", bytes(100), bytes(200)], ids=["empty", "cut in the preamble", "without the mark"]
)
def test_an_empty_file_at_an_end_of_the_stack_is_not_forgotten(tmp_path: Path, rest: bytes) -> None:
    """The stack of the others is regular: nothing else shows that a slice is missing."""
    folder = write_series(tmp_path / "a", some_hu(), axial())
    sorted(folder.iterdir())[-1].write_bytes(rest)
    (folder / "notes.txt").write_bytes(b"")
    assert read_series(folder).source.warnings == ("1 files of the folder cannot be read and were left out",)


def test_a_folder_of_damaged_files_is_called_that(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", some_hu(), axial())
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match=r"no DICOM series in this folder: 5 files cannot be read"):
        read_series(folder)
