"""The same scan from every format; and inputs that break other tools."""

import shutil
import zipfile

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scan.dicom_factory import make_volume, write_series

from gcnn_cli.errors import GeometryError, InputError, SeriesChoiceError, UsageError
from gcnn_cli.scan.formats import read_mask, stem_of
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import as_image, orient
from gcnn_cli.scan.summary import summarize
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

FORMATS = ["scan.mhd", "scan.mha", "scan.nii", "scan.nii.gz", "scan.nrrd"]


@pytest.fixture
def volume():
    return make_volume()


def write(path, volume, compressed=True):
    sitk.WriteImage(as_image(volume), str(path), useCompression=compressed)
    return path


def assert_same_scan(a, b):
    """The same HU at the same places in the patient, whatever the order of the array."""
    a, b = orient(a), orient(b)
    assert np.array_equal(a.hu, b.hu)
    assert np.allclose(a.to_world, b.to_world, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("compressed", [True, False])
def test_every_format_gives_the_same_scan(volume, tmp_path, name, compressed):
    read = read_volume(write(tmp_path / name, volume, compressed))
    assert_same_scan(read, volume)
    assert read.source.series_uid == "scan"


def test_dicom_gives_the_same_scan_and_checksum(volume, tmp_path):
    from_dicom = read_volume(write_series(tmp_path / "series", volume))
    assert_same_scan(from_dicom, volume)
    from_file = read_volume(write(tmp_path / "scan.mha", volume))
    assert from_dicom.source.sha256 == from_file.source.sha256
    assert len(from_dicom.source.slice_uids) == volume.shape[0]


@pytest.mark.parametrize("kind", ["zip", "nested", "no extension", "DICOMDIR"])
def test_dicom_in_other_wrappings(volume, tmp_path, kind):
    folder = write_series(tmp_path / "study with spaces" / "é.1", volume)
    path = folder
    if kind == "zip":
        path = tmp_path / "series.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"a/b/{file.name}")
    elif kind == "nested":
        path = tmp_path
    elif kind == "no extension":
        for number, file in enumerate(sorted(folder.iterdir(), reverse=True)):
            file.rename(folder / f"IM{number}")
        (folder / "README.txt").write_text("not DICOM")
    else:
        path = folder / "DICOMDIR"
        path.write_bytes(b"\0" * 128 + b"DICM")
    assert_same_scan(read_volume(path), volume)


@pytest.mark.parametrize("flips", [(1,), (2,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("name", FORMATS)
def test_flipped_axes_are_followed(volume, tmp_path, name, flips):
    affine, hu = volume.to_world.copy(), volume.hu
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
        affine[:3, axis] *= -1
        hu = np.flip(hu, axis)
    flipped = Volume(np.ascontiguousarray(hu), affine)
    assert_same_scan(read_volume(write(tmp_path / name, flipped)), volume)


def oblique():
    c, s = np.cos(0.4), np.sin(0.4)
    return np.array([[0, c, -s], [0, s, c], [1, 0, 0]])[:, ::-1] @ np.diag([1, 1, 1])


def test_an_oblique_stack(tmp_path):
    axes = oblique()
    axes = axes * np.sign(np.linalg.det(axes[:, ::-1]))  # right-handed: DICOM cannot say otherwise
    volume = make_volume(direction=axes)
    assert_same_scan(read_volume(write_series(tmp_path / "series", volume)), volume)
    assert_same_scan(read_volume(write(tmp_path / "scan.mha", volume)), volume)


def test_descending_and_shuffled_slices(volume, tmp_path):
    def shuffle(number, dataset):
        dataset.InstanceNumber = (number * 7) % 12 + 1
        return dataset

    folder = write_series(tmp_path / "series", volume, shuffle)
    names = sorted(folder.iterdir())
    for number, path in enumerate(reversed(names)):
        path.rename(folder / f"x{(number * 5) % 12:02d}")
    assert_same_scan(read_volume(folder), volume)


def test_a_missing_slice_is_refused_and_named(volume, tmp_path):
    folder = write_series(tmp_path / "series", volume, lambda number, d: None if number == 5 else d)
    with pytest.raises(GeometryError, match=r"slices 5 and 6 .* are 5 mm apart, the others 2.5 mm"):
        read_volume(folder)
    assert "refused: slices 5 and 6" in summarize(folder)[0]["geometry"]


def test_the_last_slice_may_be_missing(volume, tmp_path):
    folder = write_series(tmp_path / "series", volume, lambda number, d: None if number == 11 else d)
    assert read_volume(folder).shape == (11, 16, 20)


def test_repeated_slices_with_equal_pixels_are_dropped(volume, tmp_path):
    folder = write_series(tmp_path / "series", volume)
    for name in ("0003.dcm", "0004.dcm"):
        shutil.copy(folder / name, folder / f"copy-{name}")
    read = read_volume(folder)
    assert_same_scan(read, volume)
    assert read.source.warnings == ("2 repeated slices with equal pixels were dropped",)


def test_two_different_slices_at_one_place_are_refused(volume, tmp_path):
    folder = write_series(tmp_path / "series", volume)
    second = pydicom.dcmread(folder / "0003.dcm")
    second.PixelData = bytes(len(second.PixelData))
    second.save_as(folder / "other.dcm")
    with pytest.raises(GeometryError, match="two different slices lie at the same place"):
        read_volume(folder)


def test_gantry_tilt_is_refused_with_its_angle(volume, tmp_path):
    def tilt(number, dataset):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + number * 2.5 * np.tan(np.deg2rad(20)), z]
        return dataset

    with pytest.raises(GeometryError, match="sheared by 20.0 degrees"):
        read_volume(write_series(tmp_path / "series", volume, tilt))


def test_one_displaced_slice_is_refused(volume, tmp_path):
    def displace(number, dataset):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + (3 if number == 4 else 0), y, z]
        return dataset

    with pytest.raises(GeometryError, match="slice 5 is displaced by 3.0 mm"):
        read_volume(write_series(tmp_path / "series", volume, displace))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.8, 0.6], "mixes slice orientations"),
        ("PixelSpacing", [0.5, 0.5], "mixes pixel spacings"),
        ("Rows", 8, "mixes matrix sizes"),
    ],
)
def test_a_mixed_series_is_refused(volume, tmp_path, field, value, message):
    def mix(number, dataset):
        if number == 3:
            setattr(dataset, field, value)
        return dataset

    with pytest.raises(GeometryError, match=message):
        read_volume(write_series(tmp_path / "series", volume, mix))


def test_coarse_slices_are_refused(tmp_path):
    thick = make_volume(spacing=(8.0, 0.8, 0.8))
    with pytest.raises(GeometryError, match=r"8.00 mm apart"):
        read_volume(write_series(tmp_path / "series", thick))
    with pytest.raises(GeometryError, match=r"8.00 mm are too coarse"):
        read_volume(write(tmp_path / "scan.mha", thick))


def test_two_series_need_a_choice(volume, tmp_path):
    write_series(tmp_path / "a", volume)
    other = make_volume(origin=(0, 0, 0), shape=(6, 16, 20))
    write_series(tmp_path / "b", other)
    with pytest.raises(SeriesChoiceError, match="2 CT series found.*--series"):
        read_volume(tmp_path)
    rows = summarize(tmp_path)
    for row in rows:
        chosen = read_volume(tmp_path, series=row["number"])
        assert chosen.source.series_uid == row["seriesuid"]
        assert_same_scan(chosen, read_volume(tmp_path, series=row["seriesuid"]))
    with pytest.raises(InputError, match="no series #3"):
        read_volume(tmp_path, series="#3")


def test_localizers_and_reports_are_set_aside(volume, tmp_path):
    def localizer(number, dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SeriesInstanceUID = "2.25.1"
        return dataset if number < 2 else None

    def report(number, dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
        dataset.Modality, dataset.SeriesInstanceUID = "SR", "2.25.2"
        return dataset if number == 0 else None

    write_series(tmp_path / "all" / "loc", make_volume(origin=(1, 1, 1)), localizer)
    write_series(tmp_path / "all" / "dose", make_volume(origin=(2, 2, 2)), report)
    with pytest.raises(InputError, match=r"no usable CT series \(localizer; not a CT image \(SR\)\)"):
        read_volume(tmp_path / "all")
    write_series(tmp_path / "all" / "ct", volume)
    assert_same_scan(read_volume(tmp_path / "all"), volume)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, -500, np.int16), (0.5, 0, np.float32)]
)
def test_rescaling(volume, tmp_path, slope, intercept, dtype):
    def rescale(number, dataset):
        raw = (volume.hu[number].astype(float) - intercept) / slope
        dataset.PixelData = np.round(raw).astype(np.int16).tobytes()
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        return dataset

    read = read_volume(write_series(tmp_path / "series", volume, rescale))
    assert np.abs(read.hu.astype(float) - volume.hu).max() <= slope / 2
    assert read.hu.dtype == (np.int16 if (read.hu == np.round(read.hu)).all() else dtype)


def test_unsigned_pixels_with_padding(volume, tmp_path):
    """Padding of -2000 stored as unsigned 63536 is air, not 62,512 HU."""

    def unsigned(number, dataset):
        raw = (volume.hu[number].astype(np.int32) + 1024).astype(np.uint16)
        raw[0, 0] = 63536
        dataset.PixelRepresentation = 0
        dataset.add_new("PixelPaddingValue", "US", 63536)
        dataset.PixelData = raw.tobytes()
        dataset.RescaleIntercept = -1024
        return dataset

    read = read_volume(write_series(tmp_path / "series", volume, unsigned))
    assert (read.hu[:, 0, 0] == -1024).all()
    assert np.array_equal(read.hu[:, 1:], volume.hu[:, 1:])


def test_padding_below_air_is_clipped_and_said(volume, tmp_path):
    hu = volume.hu.copy()
    hu[:, 0] = -3024
    read = read_volume(write(tmp_path / "scan.mha", Volume(hu, volume.to_world)))
    assert read.hu.min() == -1024
    assert "padding" in read.source.warnings[0]


def test_raw_values_without_rescale_are_not_taken_for_hu(volume, tmp_path):
    def raw(number, dataset):
        dataset.PixelData = (volume.hu[number] + 1024).astype(np.int16).tobytes()
        del dataset.RescaleSlope, dataset.RescaleIntercept
        return dataset

    with pytest.raises(InputError, match="does not look like a chest CT in Hounsfield units: values run from"):
        read_volume(write_series(tmp_path / "series", volume, raw))


def test_rle_compressed_slices(volume, tmp_path):
    def compress(number, dataset):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.compress(pydicom.uid.RLELossless)
        return dataset

    assert_same_scan(read_volume(write_series(tmp_path / "series", volume, compress)), volume)


def test_a_syntax_without_decoder_names_the_remedy(volume, tmp_path):
    def pretend(number, dataset):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        return dataset

    with pytest.raises(InputError, match=r"gcnn-cli\[dicom\]"):
        read_volume(write_series(tmp_path / "series", volume, pretend))


def test_truncated_pixels_name_the_file(volume, tmp_path):
    def truncate(number, dataset):
        if number == 2:
            dataset.PixelData = dataset.PixelData[:100]
        return dataset

    with pytest.raises(InputError, match=r"0003.dcm: its pixels cannot be read"):
        read_volume(write_series(tmp_path / "series", volume, truncate))


def test_enhanced_multi_frame_ct(volume, tmp_path):
    series = write_series(tmp_path / "series", volume)
    dataset = pydicom.dcmread(series / "0001.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = volume.shape[0]
    dataset.PixelData = np.ascontiguousarray(volume.hu[::-1]).tobytes()  # frames from head to foot
    shared, measures, orientation, values = (pydicom.Dataset() for _ in range(4))
    measures.PixelSpacing = dataset.PixelSpacing
    orientation.ImageOrientationPatient = dataset.ImageOrientationPatient
    values.RescaleSlope, values.RescaleIntercept = 1, 0
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [values]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in reversed(range(volume.shape[0])):
        frame, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = list(volume.position_mm(np.array([number, 0, 0])))
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        del dataset[name]
    (tmp_path / "enhanced").mkdir()
    dataset.save_as(tmp_path / "enhanced" / "one.dcm")
    assert_same_scan(read_volume(tmp_path / "enhanced"), volume)


def test_a_single_slice_is_not_a_scan(volume, tmp_path):
    folder = write_series(tmp_path / "series", volume, lambda number, d: d if number == 0 else None)
    with pytest.raises(InputError, match="a single slice"):
        read_volume(folder)
    with pytest.raises(InputError, match="give the folder"):
        read_volume(folder / "0001.dcm")


# Files


def test_a_missing_or_truncated_data_file_is_named(volume, tmp_path):
    path = write(tmp_path / "scan.mhd", volume, compressed=False)
    raw = tmp_path / "scan.raw"
    raw.write_bytes(raw.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"scan.raw: truncated"):
        read_volume(path)
    raw.unlink()
    with pytest.raises(InputError, match=r"scan.mhd: its data file 'scan.raw' is missing"):
        read_volume(path)


def test_a_truncated_compressed_data_file(volume, tmp_path):
    path = write(tmp_path / "scan.mhd", volume)
    zraw = tmp_path / "scan.zraw"
    zraw.write_bytes(zraw.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"scan.zraw: truncated"):
        read_volume(path)


@pytest.mark.parametrize("name", ["scan.mha", "scan.nii", "scan.nii.gz", "scan.nrrd"])
def test_truncated_and_foreign_files_are_one_line(volume, tmp_path, name, capfd):
    path = write(tmp_path / name, volume)
    for content in (path.read_bytes()[:-200], b"hello", b""):
        path.write_bytes(content)
        with pytest.raises((InputError, GeometryError)) as error:
            read_volume(path)
        assert len(str(error.value).splitlines()) == 1
        assert name in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.69999999999999996", "0", "must be positive"),
        ("0.69999999999999996", "-0.7", "must be positive"),
        ("TransformMatrix = 1 0 0", "TransformMatrix = 1 0.3 0", "not orthonormal"),
    ],
)
def test_unsound_metaimage_headers(volume, tmp_path, old, new, message):
    path = write(tmp_path / "scan.mhd", volume)
    header = path.read_text()
    assert old in header
    path.write_text(header.replace(old, new))
    with pytest.raises(GeometryError, match=message):
        read_volume(path)


def test_a_sheared_nifti_is_refused(volume, tmp_path):
    path = write(tmp_path / "scan.nii", volume)
    content = bytearray(path.read_bytes())
    srow_y = np.frombuffer(content, "<f4", 4, 296).copy()
    srow_y[2] = 0.8  # y moves as k grows
    content[296:312] = srow_y.tobytes()
    content[252:254] = b"\0\0"  # no qform that could stand in
    path.write_bytes(content)
    with pytest.raises(GeometryError, match="sheared|orthonormal"):
        read_volume(path)


def test_four_dimensions_color_and_flat_images(volume, tmp_path):
    image = as_image(volume)
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(tmp_path / "four.nii"))
    with pytest.raises(InputError, match="four-dimensional"):
        read_volume(tmp_path / "four.nii")
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / "one.nii"))
    assert_same_scan(read_volume(tmp_path / "one.nii"), volume)
    sitk.WriteImage(sitk.Compose([image, image, image]), str(tmp_path / "color.mha"))
    with pytest.raises(InputError, match="color or vector"):
        read_volume(tmp_path / "color.mha")
    sitk.WriteImage(image[:, :, 3], str(tmp_path / "flat.mha"))
    with pytest.raises(InputError, match="at least two slices"):
        read_volume(tmp_path / "flat.mha")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_numbers(volume, tmp_path, value):
    hu = volume.hu.astype(np.float32)
    hu[3, 3, 3] = value
    image = sitk.GetImageFromArray(hu)
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1), (-1000, -900), (0, 4095)])
def test_values_that_are_not_hu(tmp_path, low, high):
    values = np.linspace(low, high, 1000).reshape(10, 10, 10).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "scan.nii.gz"))
    with pytest.raises(InputError, match="does not look like a chest CT"):
        read_volume(tmp_path / "scan.nii.gz")


def test_paths_that_are_no_scan(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "nothing.mhd")
    with pytest.raises(InputError, match="no DICOM series"):
        read_volume(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="not a supported scan"):
        read_volume(tmp_path / "notes.txt")


def test_a_series_cannot_be_chosen_in_a_file(volume, tmp_path):
    with pytest.raises(UsageError, match="--series"):
        read_volume(write(tmp_path / "scan.mha", volume), series="#1")


def test_names_with_dots_spaces_and_zeros(volume, tmp_path):
    for stem in ("1.3.6.1.4", "056", "a b é"):
        path = write(tmp_path / f"{stem}.nii.gz", volume)
        assert stem_of(path) == stem
        assert read_volume(path).source.series_uid == stem


def test_a_mask_needs_no_hounsfield_units(volume, tmp_path):
    mask = Volume((volume.hu > 0).astype(np.int16) * 3, volume.to_world)
    read = read_mask(write(tmp_path / "mask.nii.gz", mask))
    assert set(np.unique(read.hu)) == {0, 1}


def test_writing_never_overwrites(volume, tmp_path):
    write_metaimage(volume, tmp_path / "scan.mhd")
    assert_same_scan(read_volume(tmp_path / "scan.mhd"), volume)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.mhd", "scan.zraw"]
    with pytest.raises(UsageError, match="exists already"):
        write_metaimage(volume, tmp_path / "scan.mhd")
    write_series(tmp_path / "series", volume)
    with pytest.raises(UsageError, match="not empty"):
        write_series(tmp_path / "series", volume)


@pytest.mark.data
def test_the_real_series(shared_data):
    read = read_volume(shared_data / "dicom" / "LIDC-IDRI-0001")
    assert read.shape == (133, 512, 512)
    assert np.allclose(read.spacing_zyx, [2.5, 0.703125, 0.703125])
    assert (read.hu.min(), read.hu.dtype) == (-1024, np.int16)
