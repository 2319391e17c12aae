"""Stored pixels -> HU: rescaling, padding, signs and compression."""

import base64
import io
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from scan.scans import axial, ct_slice, enhanced, some_hu, write_series

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom import decoding
from gcnn_cli.scan.dicom.pixels import file_hu
from gcnn_cli.scan.dicom.series import read_series


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def rewritten(dataset: Dataset, path: Path, syntax: UID) -> Path:
    """Write the elements in the way of a syntax; the pixels are in its byte order already."""
    dataset.file_meta.TransferSyntaxUID = syntax
    plain = Dataset(dataset)  # a FileDataset would not change its byte order
    plain.file_meta = dataset.file_meta
    pydicom.dcmwrite(
        path,
        plain,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return path


def store(dataset: Dataset, values: np.ndarray, signed: bool) -> None:
    dataset.PixelRepresentation = int(signed)
    dataset.PixelData = values.astype(np.int16 if signed else np.uint16).tobytes()


def test_slope_and_intercept_may_differ_between_slices(tmp_path: Path) -> None:
    hu = some_hu()

    def edit(number: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 5, -1000 - 5 * number
        store(dataset, (hu[number] + 1000) // 5 + number, signed=number % 2 == 0)

    volume = read_series(write_series(tmp_path, hu, axial(), edit=edit))
    np.testing.assert_array_equal(volume.hu, hu)
    assert volume.hu.dtype == np.int16


def test_fractional_slopes_give_fractions(tmp_path: Path) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -1024
        store(dataset, np.arange(42) * 99, signed=False)

    volume = read_series(write_series(tmp_path, some_hu(), axial(), edit=edit))
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu[2].ravel(), np.arange(42) * 49.5 - 1024)


def test_unsigned_pixels_do_not_wrap_around(tmp_path: Path) -> None:
    dataset = ct_slice(0, some_hu()[0], axial())
    store(dataset, np.arange(42) * 1500, signed=False)
    hu = file_hu(saved(dataset, tmp_path / "a"), set())
    np.testing.assert_array_equal(hu.ravel(), np.minimum(np.arange(42) * 1500 - 1024, 32767))


@pytest.mark.parametrize("signed", [True, False])
def test_an_absent_rescale_means_one_and_zero_with_a_warning(tmp_path: Path, signed: bool) -> None:
    hu = some_hu()

    def edit(number: int, dataset: Dataset) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        store(dataset, hu[number] + (0 if signed else 1024), signed)

    folder = write_series(tmp_path, hu, axial(), edit=edit)
    if signed:
        volume = read_series(folder)
        np.testing.assert_array_equal(volume.hu, hu)
        assert "no rescale slope" in volume.source.warnings[0]
    else:
        with pytest.raises(InputError, match="does not look like a chest CT"):
            read_series(folder)


PADDINGS = {"signed": (-2000, -2000), "as unsigned": (63536, -2000), "high": (32767, 32767), "range": (-3024, -3024)}


@pytest.mark.parametrize(("written", "stored"), PADDINGS.values(), ids=PADDINGS)
def test_padding_is_air(tmp_path: Path, written: int, stored: int) -> None:
    dataset = ct_slice(0, some_hu()[0], axial())
    values = some_hu()[0].copy()
    values[0] = stored
    store(dataset, values, signed=True)
    dataset.RescaleIntercept = 0
    dataset.add_new("PixelPaddingValue", "US" if written > 32767 else "SS", written)
    hu = file_hu(saved(dataset, tmp_path / "a"), set())[0]
    assert (hu[0] == -1024).all()
    np.testing.assert_array_equal(hu[1:], some_hu()[0, 1:])


HIGH_BITS = {"unsigned": (False, 63536, "US"), "signed": (True, -3024, "SS"), "signed as unsigned": (True, 62512, "US")}


@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian, RLELossless], ids=["plain", "big endian", "RLE"])
@pytest.mark.parametrize(("signed", "padding", "vr"), HIGH_BITS.values(), ids=HIGH_BITS)
def test_padding_in_bits_above_those_stored_is_air(
    tmp_path: Path, signed: bool, padding: int, vr: str, syntax: UID | None
) -> None:
    """The stored bits alone, as they are read for tissue, would give 1072 HU."""
    tissue = some_hu()[0].clip(-1000, 1000)
    dataset = ct_slice(0, tissue, axial())
    values = tissue.astype(np.int32) + (0 if signed else 1024)
    values[0] = padding
    store(dataset, values, signed)
    dataset.RescaleIntercept = 0 if signed else -1024
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.add_new("PixelPaddingValue", vr, padding)
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    hu = file_hu(rewritten(dataset, tmp_path / "a", syntax or dataset.file_meta.TransferSyntaxUID), set())[0]
    assert (hu[0] == -1024).all()
    np.testing.assert_array_equal(hu[1:], tissue[1:])


def test_a_padding_value_in_the_range_of_tissue_blanks_nothing(tmp_path: Path) -> None:
    dataset = ct_slice(0, some_hu()[0], axial())
    store(dataset, some_hu()[0], signed=True)
    dataset.RescaleIntercept = 0
    dataset.add_new("PixelPaddingValue", "SS", int(some_hu()[0, 2, 2]))
    hu = file_hu(saved(dataset, tmp_path / "a"), set())[0]
    np.testing.assert_array_equal(hu, some_hu()[0])


def jpeg_lossless(dataset: Dataset, folder: Path) -> None:
    """Encode as JPEG lossless, which pydicom cannot, with SimpleITK."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.SetFileName(str(folder / "encoded.dcm"))
    writer.Execute(sitk.GetImageFromArray(dataset.pixel_array[None]))
    encoded = pydicom.dcmread(folder / "encoded.dcm")
    (folder / "encoded.dcm").unlink()
    assert encoded.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    dataset.PixelData = encoded.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID


def test_jpeg_lossless_needs_no_further_package(tmp_path: Path) -> None:
    hu = some_hu((5, 16, 16))
    folder = write_series(tmp_path / "series", hu, axial(), edit=lambda n, dataset: jpeg_lossless(dataset, tmp_path))
    np.testing.assert_array_equal(read_series(folder).hu, hu)


def test_frames_in_jpeg_lossless_need_no_further_package(tmp_path: Path) -> None:
    hu = some_hu((5, 16, 16))
    image = enhanced(hu, axial(), [3, 0, 4, 1, 2])
    streams = []
    for number in [3, 0, 4, 1, 2]:
        plane = ct_slice(number, hu[number], axial())
        jpeg_lossless(plane, tmp_path)
        streams += list(generate_frames(plane.PixelData, number_of_frames=1))
    packed(image, plane.file_meta.TransferSyntaxUID, streams)
    saved(image, tmp_path / "all.dcm")
    np.testing.assert_array_equal(read_series(tmp_path).hu, hu)


# 200 + 100 y + 60 x in 16 x 16 pixels, by libjpeg-turbo.
JPEG_OF_12_BITS = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQIBAQEBAQIBAQECAgICAgICAgIDAwQDAwMDAwICAwQDAwQE"
    "BAQEAgMFBQQEBQQEBAT/wQALDAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAADA7/xAAbEAABBAMAAAAAAAAAAAAAAAALACg3"
    "RlVjc//aAAgBAQAAPwCXvx3IOGDGgY6jc9SeADuQcMGNAx1G56koAHcg4YMaBjqNz1J4AO5BwwY0DHUbnqX/2Q=="
)


def packed(dataset: Dataset, syntax: UID, streams: list[bytes]) -> None:
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


def test_jpeg_of_12_bits_needs_no_further_package(tmp_path: Path) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        packed(dataset, JPEGExtended12Bit, [JPEG_OF_12_BITS])
        dataset.BitsStored, dataset.HighBit = 12, 11

    volume = read_series(write_series(tmp_path, some_hu((5, 16, 16)), axial(), edit=edit))
    wanted = 200 + np.add.outer(100 * np.arange(16), 60 * np.arange(16)) - 1024
    np.testing.assert_allclose(volume.hu[3], wanted, atol=5)


def test_a_damaged_jpeg_of_12_bits_is_called_that(tmp_path: Path) -> None:
    dataset = ct_slice(0, some_hu((1, 16, 16))[0], axial())
    packed(dataset, JPEGExtended12Bit, [JPEG_OF_12_BITS[:-60]])
    with pytest.raises(InputError, match="a: its JPEG Extended .* pixels are truncated or damaged"):
        file_hu(saved(dataset, tmp_path / "a"), set())


NOT_SUPPORTED = {
    "video": (MPEG2MPML, "MPEG2 Main Profile / Main Level", "export the series again in Explicit VR Little Endian"),
    "JPEG XL": (
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.110",
        "export the series again in Explicit VR Little Endian",
    ),
    "progressive JPEG": ("1.2.840.10008.1.2.4.55", "JPEG Full Progression.*", "convert it with dcmdjpeg of DCMTK"),
    "private": ("1.2.840.113619.5.2", "1.2.840.113619.5.2", "export the series again in Explicit VR Little Endian"),
}


@pytest.mark.parametrize(("syntax", "name", "remedy"), NOT_SUPPORTED.values(), ids=NOT_SUPPORTED)
def test_what_cannot_be_decoded_is_not_called_damage(tmp_path: Path, syntax: str, name: str, remedy: str) -> None:
    dataset = ct_slice(0, some_hu((1, 16, 16))[0], axial())
    packed(dataset, syntax if UID(syntax).is_transfer_syntax else MPEG2MPML, [bytes(200)])
    path = saved(dataset, tmp_path / "a")
    # pydicom writes none that it does not know.
    path.write_bytes(path.read_bytes().replace(MPEG2MPML.encode(), syntax.encode().ljust(len(MPEG2MPML), b"\0")))
    with pytest.raises(InputError, match=f"^a: the transfer syntax {name} is not supported; {remedy}$"):
        file_hu(path, set())


def test_htj2k_without_a_decoder_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SimpleITK decodes it from 2.5 on."""

    def cannot_read(self: object) -> None:
        raise RuntimeError("Cannot read requested file")

    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(no_plugin))
    monkeypatch.setattr(sitk.ImageFileReader, "Execute", cannot_read)
    monkeypatch.setattr(decoding, "get_decoder", lambda syntax: SimpleNamespace(is_available=False))
    dataset = ct_slice(0, some_hu((1, 16, 16))[0], axial())
    packed(dataset, HTJ2KLossless, [bytes(200)])
    with pytest.raises(InputError, match="^a: the installed decoders cannot read High-.*; install .* 'dicom'$"):
        file_hu(saved(dataset, tmp_path / "a"), set())


COMPRESSED = {"RLE": RLELossless, "JPEG 2000": JPEG2000Lossless, "JPEG-LS": JPEGLSLossless}
ENCODERS = {JPEG2000Lossless: "openjpeg", JPEGLSLossless: "jpeg_ls"}


@pytest.mark.parametrize("decoder", ["pydicom", "GDCM"])
@pytest.mark.parametrize("syntax", COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_series_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, decoder: str
) -> None:
    if syntax in ENCODERS:
        pytest.importorskip(ENCODERS[syntax], reason="no encoder for this syntax is installed")
    hu = some_hu((5, 32, 32))
    plain = read_series(write_series(tmp_path / "plain", hu, axial()))

    def compress(number: int, dataset: Dataset) -> None:
        dataset.compress(syntax, generate_instance_uid=False)

    folder = write_series(tmp_path / "packed", hu, axial(), edit=compress)
    if decoder == "GDCM":  # as where pydicom has no plugin
        monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(no_plugin))
    packed = read_series(folder)
    np.testing.assert_array_equal(packed.hu, hu)
    assert packed.source.sha256 == plain.source.sha256


def no_plugin(dataset: Dataset) -> np.ndarray:
    raise RuntimeError("Unable to decompress the pixel data: all plugins are missing dependencies")


# syntax, how it is encoded, by what, and how far HU may then be off
LOSSY = {
    "JPEG 2000": (JPEG2000, {"j2k_psnr": [90]}, "openjpeg", 10),
    "JPEG-LS": (JPEGLSNearLossless, {"jls_error": 2}, "jpeg_ls", 2),
}


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_series_are_nearly_the_same(tmp_path: Path, name: str) -> None:
    syntax, options, encoder, off_by = LOSSY[name]
    pytest.importorskip(encoder, reason="no encoder for this syntax is installed")
    hu = np.cumsum(some_hu((5, 32, 32)).astype(int) // 400, axis=2).astype(np.int16) * 4 - 500

    def compress(number: int, dataset: Dataset) -> None:
        dataset.compress(syntax, generate_instance_uid=False, **options)

    volume = read_series(write_series(tmp_path, hu, axial(), edit=compress))
    np.testing.assert_allclose(volume.hu, hu, atol=off_by)


ORDERS = [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", ORDERS, ids=[uid.name for uid in ORDERS])
def test_every_way_of_writing_elements_is_read(tmp_path: Path, syntax: UID) -> None:
    hu = some_hu()
    for number in range(len(hu)):
        dataset = ct_slice(number, hu[number], axial())
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        rewritten(dataset, tmp_path / f"{number}.dcm", syntax)
    np.testing.assert_array_equal(read_series(tmp_path).hu, hu)


def spoiled(dataset: Dataset, how: str) -> bytes:
    if how != "cut":
        dataset.compress(RLELossless, generate_instance_uid=False)
    if how == "cut inside compression":
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
    if how == "garbage":
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    if how == "video":
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()[: -100 if how == "cut" else None]


@pytest.mark.parametrize("how", ["cut", "cut inside compression", "garbage", "video"])
def test_unreadable_pixels_are_one_line_with_the_file(
    tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_series(tmp_path, some_hu((5, 16, 16)), axial())
    (tmp_path / "003.dcm").write_bytes(spoiled(ct_slice(3, some_hu((5, 16, 16))[3], axial()), how))
    with pytest.raises(InputError, match=r"^003\.dcm: ") as refusal:
        read_series(tmp_path)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_threads_take_turns_at_muting_stderr() -> None:
    """The second would keep the first one's muted stderr for the real one, and leave it muted for good."""
    entered = threading.Event()

    def mute() -> None:
        with decoding._muted():
            entered.set()

    before = os.fstat(2)
    second = threading.Thread(target=mute)
    with decoding._muted():
        second.start()
        assert not entered.wait(0.2)
    second.join()
    assert entered.is_set()
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)


def test_color_is_no_ct(tmp_path: Path) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = bytes(6 * 7 * 3)

    with pytest.raises(InputError, match=r"000\.dcm: color pixels"):
        read_series(write_series(tmp_path, some_hu(), axial(), edit=edit))
