"""One entrance for every format: the same scan is the same volume, and each refusal is one line."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from scan.scans import SERIES, axial, oblique, some_hu, write_series

from gcnn_cli.errors import GcnnError, GeometryError, InputError, SeriesChoiceError, UsageError
from gcnn_cli.scan.images.image_file import read_lattice
from gcnn_cli.scan.reading import read_volume

# LUNA16's scans that lie feet first: -1 on x and y.
FLIPPED = axial() @ np.diag([1.0, -1, -1, 1])
GRIDS = {"axial": axial(), "oblique": oblique(), "flipped": FLIPPED}
FILES = ["s.mha", "s.mhd", "packed.mhd", "packed.mha", "s.nii", "s.nii.gz", "s.nrrd", "s.nhdr", "packed.nrrd"]


def image_of(hu: np.ndarray, to_world: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(hu)
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(to_world[:3, 3].tolist())
    image.SetDirection((to_world[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    return image


def write_file(path: Path, hu: np.ndarray, to_world: np.ndarray) -> Path:
    sitk.WriteImage(image_of(hu, to_world), str(path), useCompression=path.name.startswith("packed"))
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_format_gives_the_same_values_at_the_same_places(tmp_path: Path, grid: str, name: str) -> None:
    hu, to_world = some_hu(), GRIDS[grid]
    volume = read_volume(write_file(tmp_path / name, hu, to_world))
    index = np.indices(hu.shape).reshape(3, -1).T
    expected = index @ to_world[:3, :3].T + to_world[:3, 3]
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.position_mm(index), expected, atol=1e-4)
    assert volume.source.warnings == ()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_header_alone_gives_the_lattice_of_the_volume(tmp_path: Path, grid: str, name: str) -> None:
    path = write_file(tmp_path / name, some_hu(), GRIDS[grid])
    volume, header = read_volume(path), read_lattice(path)
    assert header.shape == volume.shape
    np.testing.assert_allclose(header.to_world, volume.to_world, atol=1e-9)
    rim = np.array([[-0.51, 0, 0], [-0.49, 0, 0], [4.49, 5.49, 6.49], [4.49, 5.51, 6.49]])
    assert header.holds(volume.position_mm(rim)).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", ["s.mha", "s.mhd", "s.nii"])
def test_the_header_reveals_damage_without_unpacking(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / name, some_hu(), axial())
    data = path.with_suffix(".raw") if name == "s.mhd" else path
    data.write_bytes(data.read_bytes()[:400])
    with pytest.raises(InputError, match="truncated"):
        read_lattice(path)


@pytest.mark.parametrize("grid", ["axial", "oblique"])
def test_the_checksum_is_that_of_the_scan_not_of_its_format(tmp_path: Path, grid: str) -> None:
    hu, to_world = some_hu(), GRIDS[grid]
    found = {"dicom": read_volume(write_series(tmp_path / "dicom", hu, to_world))}
    found |= {name: read_volume(write_file(tmp_path / name, hu, to_world)) for name in FILES}
    assert len({volume.source.sha256 for volume in found.values()}) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mhd", "metaimage"), ("a.mha", "metaimage"), ("a.nii.gz", "nifti"), ("a.NRRD", "nrrd")],
)
def test_the_kind_is_recorded(tmp_path: Path, name: str, kind: str) -> None:
    path = write_file(tmp_path / name.lower(), some_hu(), axial()).rename(tmp_path / name)
    assert read_volume(path).source.kind == kind


@pytest.mark.parametrize("name", ["1.3.6.1.4.1.14519.mhd", "056.nii.gz", "a b.ü.mha", "x.nii.nrrd"])
def test_the_series_is_the_stem_with_its_dots(tmp_path: Path, name: str) -> None:
    volume = read_volume(write_file(tmp_path / name, some_hu(), axial()))
    assert volume.source.series_uid == name.removesuffix(".gz").rpartition(".")[0]


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_whole_numbers_are_the_same_scan_in_any_type(tmp_path: Path, dtype: type) -> None:
    plain = read_volume(write_file(tmp_path / "plain.nii.gz", some_hu(), axial()))
    other = read_volume(write_file(tmp_path / "other.nii.gz", some_hu().astype(dtype), axial()))
    assert other.hu.dtype == np.int16
    assert other.source.sha256 == plain.source.sha256


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", some_hu(), axial())
    plain = read_volume(folder)
    volume = read_volume(zipped(folder, tmp_path / "scan.zip"))
    np.testing.assert_array_equal(volume.hu, plain.hu)
    assert volume.source.sha256 == plain.source.sha256
    assert volume.source.path == str(tmp_path / "scan.zip")


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path("in zip") / file.relative_to(folder))
    return path


def test_refusals_name_the_zip_not_where_it_was_unpacked(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "scan", some_hu((9, 6, 7)), axial())
    (folder / "004.dcm").unlink()
    broken = zipped(folder, tmp_path / "broken.zip")
    with pytest.raises(GeometryError) as gap:
        read_volume(broken)
    write_series(folder, some_hu(), axial(), series="1.2.3", name="b{}".format)
    two = zipped(folder, tmp_path / "two.zip")
    with pytest.raises(SeriesChoiceError) as choice:
        read_volume(two)
    for path, refusal in ((broken, gap), (two, choice)):
        assert str(refusal.value).startswith(f"{path}: ")
        assert "gcnn-" not in str(refusal.value)


@pytest.mark.parametrize(("start", "end", "byte"), [(200, -30, 0), (200, 300, 0), (120, 160, 255), (-60, None, 0)])
def test_a_damaged_zip_is_refused(tmp_path: Path, start: int, end: int | None, byte: int) -> None:
    path = zipped(write_series(tmp_path / "scan", some_hu(), axial()), tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[start:end] = bytes([byte]) * len(content[start:end])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.zip: (cannot be unpacked|not a supported scan)"):
        read_volume(path)


def test_the_warnings_of_itk_are_silenced_for_the_reading_only(tmp_path: Path) -> None:
    for content in (b"NRRD0004\n\n", b"x"):
        (tmp_path / "a.nrrd").write_bytes(content)
        with pytest.raises(InputError):
            read_volume(tmp_path / "a.nrrd")
        assert sitk.ProcessObject.GetGlobalWarningDisplay()


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "IMAGES", some_hu(), axial(), name="IM{}".format)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, "1.2.9"
    directory = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    directory.FileSetID = "X"
    directory.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    for path in (tmp_path / "DICOMDIR", tmp_path):
        volume = read_volume(path)
        assert volume.source.series_uid == SERIES
        assert volume.source.path == str(path)
        assert volume.source.warnings == ()


def test_one_file_of_a_series_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write_series(tmp_path, some_hu(), axial())
    with pytest.raises(InputError, match="give the folder"):
        read_volume(tmp_path / "002.dcm")


def test_a_series_of_a_single_image_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--series"):
        read_volume(write_file(tmp_path / "a.mha", some_hu(), axial()), series="#1")


@pytest.mark.parametrize("name", ["nothing.mha", "nothing", "scan.jpg", "empty", "folder.nii"])
def test_paths_that_hold_no_scan_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "scan.jpg").write_bytes(b"\xff\xd8" * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match=name):
        read_volume(tmp_path / name)


BAD_VALUES = {
    "0 to 255": np.arange(210).reshape(5, 6, 7).astype(np.uint8),
    "0 to 1": np.linspace(0, 1, 210).reshape(5, 6, 7).astype(np.float32),
    "NaN": np.where(some_hu() == 0, np.nan, some_hu()).astype(np.float32),
    "infinite": np.where(some_hu() == 0, np.inf, some_hu()).astype(np.float32),
}


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("values", BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_are_not_hu_are_refused(tmp_path: Path, values: np.ndarray, suffix: str) -> None:
    with pytest.raises(InputError, match=r"Hounsfield|NaN or infinite"):
        read_volume(write_file(tmp_path / f"a{suffix}", values, axial()))


def stacked(shape: tuple[int, ...], vector: bool = False) -> sitk.Image:
    return sitk.GetImageFromArray(np.resize(some_hu(), shape), isVector=vector)


SHAPES = {
    "two volumes": (stacked((2, 5, 6, 7)), "holds 2 volumes"),
    "flat": (stacked((6, 7)), "at least two slices"),
    "one slice": (stacked((1, 6, 7)), "at least two slices"),
    "color": (stacked((5, 6, 7, 3), vector=True), "color or vector"),
}


@pytest.mark.parametrize("suffix", [".mha", ".nii", ".nrrd"])
@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_are_no_scan_are_refused(tmp_path: Path, case: str, suffix: str) -> None:
    image, reason = SHAPES[case]
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    with pytest.raises(InputError, match=reason):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".mha", ".nii", ".nrrd"])
def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(stacked((1, 5, 6, 7)), str(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").hu, some_hu())


@pytest.mark.parametrize("suffix", [".mha", ".nii", ".nrrd"])
@pytest.mark.parametrize(("mm", "sound"), [(5.0, True), (6.5, False)])
def test_coarse_voxels_are_refused(tmp_path: Path, suffix: str, mm: float, sound: bool) -> None:
    path = write_file(tmp_path / f"a{suffix}", some_hu(), axial(spacing=(mm, 0.7, 0.7)))
    if sound:
        assert read_volume(path).spacing_zyx[0] == pytest.approx(mm)
    else:
        with pytest.raises(GeometryError, match=r"6\.50 mm are too coarse"):
            read_volume(path)


CUT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "last bytes": lambda content: content[:-20],
    "noise": lambda content: np.random.default_rng(0).bytes(1000),
    "text": lambda content: b"hello\n" * 100,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", CUT)
def test_a_truncated_or_alien_file_is_one_line_and_nothing_on_stderr(
    tmp_path: Path, name: str, cut: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_file(tmp_path / name, some_hu(), axial())
    spoiled = path
    if path.suffix in (".mhd", ".nhdr") and cut in ("half", "last bytes"):
        (spoiled,) = (p for p in tmp_path.iterdir() if p != path)
    spoiled.write_bytes(CUT[cut](spoiled.read_bytes()))
    with pytest.raises(GcnnError, match=name.partition(".")[0]) as refusal:
        read_volume(path)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


@pytest.mark.data
def test_real_scans_are_read(shared_data: Path) -> None:
    volume = read_volume(shared_data / "scans" / "CMB-CRC.mha")
    assert volume.source.series_uid == "CMB-CRC"
    assert volume.hu.dtype == np.int16
    assert volume.spacing_zyx[0] == pytest.approx(2.5)


def test_a_file_that_may_not_be_read_is_an_input_error(tmp_path, monkeypatch):
    path = tmp_path / "scan.mha"
    path.write_bytes(b"ObjectType = Image")

    def denied(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(InputError, match=r"scan\.mha: cannot be read: Permission denied"):
        read_volume(path)
