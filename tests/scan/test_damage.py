"""Files whose headers declare wrong sizes: refused in one line, before memory is allocated.

Each case represents inputs that a fuzzer found; `tests/fuzzing` looks for more.
"""

import gzip
import re
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzzing.dicom_mutators import nested
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from scan.dicom.test_pixels import jpeg_lossless
from scan.scans import axial, enhanced, some_hu, write_series
from scan.test_reading import write_file

from gcnn_cli.errors import DeviceError, GeometryError, InputError
from gcnn_cli.scan import reading
from gcnn_cli.scan.dicom import dataset
from gcnn_cli.scan.images.image_file import read_lattice
from gcnn_cli.scan.reading import read_volume

FEW_BYTES = 8 * 2**20


def header_changed(path: Path, *lines: str) -> Path:
    """A text header with lines replaced by their key, or added before the last line."""
    text, end, voxels = path.read_bytes().partition(b"ElementDataFile" if path.suffix in (".mhd", ".mha") else b"\n\n")
    kept = text.decode().splitlines()
    for line in lines:
        key = line.replace(":", "=").partition("=")[0].strip()
        kept = [old for old in kept if old.replace(":", "=").partition("=")[0].strip() != key] + [line]
    if path.suffix in (".mhd", ".mha"):
        path.write_bytes("\n".join([*kept, ""]).encode() + end + voxels)
    else:
        path.write_bytes("\n".join(kept).encode() + end + voxels)
    return path


@pytest.fixture
def few_bytes() -> Iterator[None]:
    """Fail the test if it allocates more than a few MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < FEW_BYTES


DECLARED = {
    "s.mha": "DimSize = 4000 4000 4000",
    "packed.mha": "DimSize = 4000 4000 4000",
    "s.mhd": "DimSize = 4000 4000 4000",
    "packed.mhd": "DimSize = 4000 4000 4000",
    "s.nrrd": "sizes: 4000 4000 4000",
    "packed.nrrd": "sizes: 4000 4000 4000",
    "s.nhdr": "sizes: 4000 4000 4000",
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("read", [read_volume, read_lattice])
def test_sizes_are_compared_with_the_file_first(
    tmp_path: Path, few_bytes: None, name: str, read: Callable[[Path], object]
) -> None:
    path = header_changed(write_file(tmp_path / name, some_hu(), axial()), DECLARED[name])
    with pytest.raises(InputError, match="truncated, (holds )?[0-9]+ (packed )?bytes"):
        read(path)


@pytest.mark.parametrize("name", ["s.nii.gz", "packed.mhd", "packed.nrrd"])
def test_what_follows_the_voxels_is_not_unpacked(tmp_path: Path, few_bytes: None, name: str) -> None:
    path = write_file(tmp_path / name, some_hu(), axial())
    data = path.with_suffix(".zraw") if name == "packed.mhd" else path
    zeros = b"\0" * 12_000_000
    if name == "packed.mhd":
        header_changed(path, "CompressedDataSize = 0")
        data.write_bytes(zlib.compress(zlib.decompress(data.read_bytes()) + zeros))
    elif name == "s.nii.gz":
        data.write_bytes(gzip.compress(gzip.decompress(data.read_bytes()) + zeros))
    else:
        header, _, voxels = data.read_bytes().partition(b"\n\n")
        data.write_bytes(header + b"\n\n" + gzip.compress(gzip.decompress(voxels) + zeros))
    del zeros
    tracemalloc.reset_peak()
    np.testing.assert_array_equal(read_volume(path).hu, some_hu())


METAIMAGE = {
    "two values": (["Offset = 1 2 3", "Comment = x\nOffset = 3 2 1"], "two values for 'Offset'"),
    "several files": (["ElementDataFile = LIST"], "data files where its size needs"),
    "text": (["BinaryData = False"], "voxels as text"),
    "axes": (["NDims = 2"], "damaged"),
    "half a matrix": (["TransformMatrix = 1 0 0 1"], "4 numbers instead of 9"),
    "no offset": (["Offset = "], "0 numbers instead of 3"),
    "neither true nor false": (["CompressedData = perhaps"], "neither True nor False"),
    "negative sizes": (["DimSize = -7 -6 5"], "a size of -7x-6x5"),
    "type": (["ElementType = MET_STRING"], "damaged"),
}


@pytest.mark.parametrize("case", METAIMAGE)
def test_metaimage_headers_that_contradict_themselves_are_refused(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, reason = METAIMAGE[case]
    with pytest.raises(InputError, match=reason):
        read_volume(header_changed(write_file(tmp_path / "a.mha", some_hu(), axial()), *lines))
    assert capfd.readouterr() == ("", "")  # ITK reports these on stdout


NRRD = {
    "two values": (["sizes: 7 6 5", "Sizes: 7 5 6"], "two values for 'Sizes'"),
    "axes": (["dimension: 4"], "number of its axes"),
    "text": (["encoding: ascii"], "must be raw or gzip"),
    "type": (["type: block"], "invalid voxel type 'block'"),
    "byte order": (["endian: middle"], "little or big endian"),
    "negative sizes": (["sizes: -7 -6 5"], "a size of -7x-6x5"),
    "byte skip": (["byte skip: -7"], "its byte skip is '-7'"),
    "line skip": (["line skip: x"], "its line skip is 'x'"),
    "flat vectors": (["space directions: (1,0) (0,1) (1,1)"], "three axes"),
    "no steps": (["space directions: none none none"], "values per voxel"),
    "a device": (["data file: /dev/zero"], "'/dev/zero' is missing"),
}


@pytest.mark.parametrize("case", NRRD)
def test_nrrd_headers_that_contradict_themselves_are_refused(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, reason = NRRD[case]
    with pytest.raises(InputError, match=reason):
        read_volume(header_changed(write_file(tmp_path / "a.nrrd", some_hu(), axial()), *lines))
    assert capfd.readouterr() == ("", "")


def test_a_long_line_without_a_field_does_not_end_the_process(tmp_path: Path) -> None:
    """ITK's parser has no room for the message and ends the process."""
    path = write_file(tmp_path / "a.nrrd", some_hu(), axial())
    path.write_bytes(path.read_bytes().replace(b"\ntype", b"\n" + b"9" * 5000 + b"\ntype", 1))
    with pytest.raises(InputError, match="its header is damaged at '9999"):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "field", "warning"),
    [
        ("a.mha", "Offset", "no Offset: the first voxel at 0 mm"),
        ("a.mha", "TransformMatrix", "no TransformMatrix: .* axes along LPS were assumed"),
        ("a.nrrd", "space origin", "no space origin"),
    ],
)
def test_an_assumed_place_gives_a_warning(tmp_path: Path, name: str, field: str, warning: str) -> None:
    path = write_file(tmp_path / name, some_hu(), axial())
    path.write_bytes(path.read_bytes().replace(field.encode(), b"Comment" if name == "a.mha" else b"content", 1))
    (given,) = read_volume(path).source.warnings
    assert re.search(warning, given)


@pytest.mark.parametrize(("name", "field"), [("a.mha", "ElementSpacing"), ("a.nrrd", "space directions")])
def test_without_a_spacing_there_is_no_scan(tmp_path: Path, name: str, field: str) -> None:
    path = write_file(tmp_path / name, some_hu(), axial())
    path.write_bytes(path.read_bytes().replace(field.encode(), b"Comment" if name == "a.mha" else b"content", 1))
    with pytest.raises(InputError, match="0 numbers instead of 3|number of its axes"):
        read_volume(path)


LAYOUTS = {
    "s.mha": ["ElementDataFile"],
    "s.mhd": ["HeaderSize = 7"],
    "end.mhd": ["HeaderSize = -1"],
    "s.nhdr": ["byte skip: 7"],
    "end.nhdr": ["byte skip: -1"],
    "lines.nhdr": ["line skip: 2"],
    "both.nhdr": ["line skip: 1", "byte skip: 4"],
}


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "s.mha"])
def test_bytes_before_the_voxels_are_skipped(tmp_path: Path, name: str) -> None:
    path = header_changed(write_file(tmp_path / name, some_hu(), axial()), *LAYOUTS[name])
    data = path.with_suffix(".raw")
    data.write_bytes(b"12\n456\n" + data.read_bytes())
    np.testing.assert_array_equal(read_volume(path).hu, some_hu())


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
def test_big_endian_voxels_are_the_same(tmp_path: Path, name: str, dtype: str) -> None:
    path = write_file(tmp_path / name, some_hu().astype(dtype), axial())
    line = "BinaryDataByteOrderMSB = True" if name == "a.mha" else "endian: big"
    head = header_changed(path, line).read_bytes()[: -some_hu().size * np.dtype(dtype).itemsize]
    path.write_bytes(head + some_hu().astype(f">{dtype}").tobytes())
    np.testing.assert_array_equal(read_volume(path).hu, some_hu())


@pytest.mark.parametrize("spacing", ["1e-9 0.8 2.5", "0.7 0.8 1e9"])
def test_voxels_of_no_scanner_are_refused(tmp_path: Path, spacing: str) -> None:
    path = write_file(tmp_path / "a.mha", some_hu(), axial())
    with pytest.raises(GeometryError, match="finer than any CT|too coarse"):
        read_volume(header_changed(path, f"ElementSpacing = {spacing}"))


def test_a_place_beyond_any_scanner_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mha", some_hu(), axial())
    with pytest.raises(GeometryError, match=r"a\.mha: .* no scanner reaches there"):
        read_volume(header_changed(path, "Offset = 0 0 1e12"))


def test_values_that_overflow_are_refused_without_a_warning(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.nii", some_hu(), axial())
    content = bytearray(path.read_bytes())
    content[112:116] = np.float32(3e38).tobytes()  # the slope
    path.write_bytes(content)
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume(path)


def test_a_scan_larger_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(path: Path) -> object:
        raise MemoryError

    monkeypatch.setattr(reading, "read_image", out_of_memory)
    with pytest.raises(DeviceError, match=r"a\.mha: too large for the memory"):
        read_volume(write_file(tmp_path / "a.mha", some_hu(), axial()))


# DICOM

SQUARE = some_hu((4, 32, 32))


def series(folder: Path, edit: Callable[[int, Dataset], None]) -> Path:
    return write_series(folder, SQUARE, axial(), edit=edit)


def setting(**values: object) -> Callable[[int, Dataset], None]:
    def edit(number: int, dataset: Dataset) -> None:
        for keyword, value in values.items() if number == 2 else ():
            setattr(dataset, keyword, value)

    return edit


def compressed(syntax: str) -> Callable[[int, Dataset], None]:
    return lambda number, dataset: dataset.compress(syntax, generate_instance_uid=False)


def test_an_element_longer_than_its_file_takes_no_memory(tmp_path: Path, few_bytes: None) -> None:
    path = series(tmp_path, setting()) / "002.dcm"
    content = path.read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path.write_bytes(content[:at] + b"\xf0\xff\xff\xfe" + content[at + 4 :])
    assert read_volume(tmp_path).shape == SQUARE.shape  # all the pixels are there


@pytest.mark.parametrize("values", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 2**31 - 1}, {"Rows": 0}])
@pytest.mark.parametrize("syntax", ["", RLELossless])
def test_pixels_are_compared_with_the_file_first(
    tmp_path: Path, few_bytes: None, syntax: str, values: dict[str, int]
) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        if syntax:
            compressed(syntax)(number, dataset)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    # A file of several frames is refused before its pixels are looked at: its frames have no places of their own.
    frames = "several frames without positions of their own"
    refusal = frames if "NumberOfFrames" in values else r"\.dcm: its pixels cannot be read: [0-9]+ "
    with pytest.raises(InputError, match=refusal):
        read_volume(series(tmp_path, edit))


def test_a_deflated_bomb_is_not_unpacked(tmp_path: Path, few_bytes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_INFLATED_BYTES", 2**20)  # not to spend seconds on making a larger one

    def edit(number: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        if number == 2:
            dataset.add_new("EncapsulatedDocument", "OB", bytes(12_000_000))

    folder = series(tmp_path, edit)
    tracemalloc.reset_peak()
    with pytest.raises(GeometryError, match="7.5|5"):  # the slice is left out, and then missed
        read_volume(folder)


def test_damaged_deflation_is_a_file_left_out(tmp_path: Path) -> None:
    def edit(number: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    folder = series(tmp_path, edit)
    content = (folder / "003.dcm").read_bytes()
    (folder / "003.dcm").write_bytes(content[:-200] + b"\xff" * 200)
    volume = read_volume(folder)
    assert volume.shape[0] == 3
    assert "1 files of the folder cannot be read" in volume.source.warnings[0]


SHAPES = {"rows": (5, 64), "columns": (7, 64), "components": (9, 3), "bits": (4, 18)}


@pytest.mark.parametrize("case", SHAPES)
def test_a_jpeg_of_another_shape_than_the_header_says_is_refused(tmp_path: Path, case: str) -> None:
    """GDCM takes gigabytes for some and ends the process for others."""
    folder = series(tmp_path / "series", lambda n, dataset: jpeg_lossless(dataset, tmp_path))
    path, (offset, value) = folder / "002.dcm", SHAPES[case]
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc3") + offset
    content[at : at + (2 if offset in (5, 7) else 1)] = value.to_bytes(2 if offset in (5, 7) else 1, "big")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"002\.dcm: .*differs from its header in size or type"):
        read_volume(folder)


@pytest.mark.parametrize(("offset", "value"), [(8, 2**31), (12, 33), (40, 2), (42, 31)])
def test_a_jpeg_2000_of_another_shape_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    pytest.importorskip("openjpeg", reason="the dicom extra is not installed")
    folder = series(tmp_path, compressed(JPEG2000Lossless))
    content = bytearray((folder / "002.dcm").read_bytes())
    at, width = content.index(b"\xff\x4f\xff\x51") + offset, {8: 4, 12: 4, 40: 2, 42: 1}[offset]
    content[at : at + width] = value.to_bytes(width, "big")
    (folder / "002.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"002\.dcm: .*differs from its header in size or type"):
        read_volume(folder)


def test_decoders_say_nothing_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path / "series", lambda n, dataset: jpeg_lossless(dataset, tmp_path))
    content = (folder / "002.dcm").read_bytes()
    at = content.index(b"\xff\xda") + 200
    (folder / "002.dcm").write_bytes(content[:at] + b"\xff\xd9" + content[at + 2 :])
    with suppress(InputError):
        read_volume(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("length", [70, 100, 500])
def test_damaged_run_lengths_are_refused(tmp_path: Path, length: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The fast decoder prints, and panics with a BaseException."""

    def edit(number: int, dataset: Dataset) -> None:
        dataset.compress(RLELossless, generate_instance_uid=False)
        if number == 2:
            pixels = bytearray(dataset.PixelData)
            pixels[16 + length : 16 + length + 40] = b"\x7f" * 40
            dataset.PixelData = bytes(pixels)

    with pytest.raises(InputError, match=r"002\.dcm: its (RLE Lossless pixels are|pixels cannot)"):
        read_volume(series(tmp_path, edit))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damaged", [BaseException, RuntimeError])
def test_only_panics_of_decoders_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: type[BaseException]
) -> None:
    panic = type("PanicException", (damaged,), {})
    folder = series(tmp_path, setting())

    def raise_(error: BaseException) -> property:
        def fail(dataset: object) -> None:
            raise error

        return property(fail)

    monkeypatch.setattr(Dataset, "pixel_array", raise_(panic("len is 2048 but the index is 2048")))
    with pytest.raises(InputError, match=r"000\.dcm: its Explicit VR Little Endian pixels are truncated"):
        read_volume(folder)
    monkeypatch.setattr(Dataset, "pixel_array", raise_(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        read_volume(folder)


def test_endless_sequences_are_a_file_left_out(tmp_path: Path) -> None:
    folder = series(tmp_path, setting())
    (folder / "deep.dcm").write_bytes(nested((folder / "000.dcm").read_bytes(), 2000))
    assert "1 files of the folder cannot be read" in read_volume(folder).source.warnings[0]


def test_a_frame_that_is_described_but_not_there_is_refused(tmp_path: Path) -> None:
    image = enhanced(SQUARE, axial(), [0, 1, 2, 3])
    image.NumberOfFrames, image.PixelData = 3, image.PixelData[: 3 * 32 * 32 * 2]
    image.save_as(tmp_path / "all.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"all\.dcm: holds 3 frames"):
        read_volume(tmp_path)


ELEMENTS = {
    "far away": {"ImagePositionPatient": ["1e300", "0", "0"]},
    "meta": {"PixelSpacing": ["1e300", "1e300"]},
}


@pytest.mark.parametrize("values", ELEMENTS.values(), ids=ELEMENTS)
def test_places_of_no_scanner_are_refused_without_a_warning(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"no position, orientation or pixel spacing in 002\.dcm"):
        read_volume(series(tmp_path, setting(**values)))


def test_slopes_beyond_numbers_are_refused_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume(series(tmp_path, setting(RescaleSlope="1e300")))


def test_a_series_number_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    folder = series(tmp_path, setting())
    for path in folder.iterdir():
        head, element, tail = path.read_bytes().partition(b"\x20\x00\x11\x00IS\x02\x004 ")
        assert element
        path.write_bytes(head + element[:6] + b"\x88\x13" + b"9" * 5000 + tail)
    assert read_volume(folder).shape == SQUARE.shape


def test_one_column_is_no_slice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32 x 1 pixels"):
        read_volume(series(tmp_path, lambda n, dataset: setattr(dataset, "Columns", 1)))


# Zips


@pytest.mark.parametrize("name", ["", "/", "\0"])
def test_a_zip_with_a_nameless_member_is_one_line(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(InputError, match=r"a\.zip"):
        read_volume(tmp_path / "a.zip")


@pytest.mark.parametrize("start", [b"", b"\x02\0\0\0UL\x04\0\0\0\0\0"], ids=["at once", "after the meta information"])
def test_zeros_instead_of_elements_cost_no_time(tmp_path, start):
    """pydicom would read each 8 of these 80 MB as an element."""
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + start + bytes(80_000_000))
    started = time.process_time()
    with pytest.raises(InputError, match="no DICOM series"):
        read_volume(tmp_path)
    assert time.process_time() - started < 5
