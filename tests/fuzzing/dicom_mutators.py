"""DICOM files with elements that contradict each other or their values, and spoiled compressed images."""

import io
import struct
from random import Random
from typing import Any

import pydicom
from fuzzing.plain_mutators import spoil_bytes
from pydicom.config import IGNORE, settings
from pydicom.dataset import Dataset

_DICOM_VALUES: dict[str, tuple[Any, ...]] = {
    "Rows": (0, 1, 15, 17, 65535), "Columns": (0, 1, 15, 17, 65535), "BitsAllocated": (0, 1, 8, 12, 32, 64, 65535),
    "BitsStored": (0, 1, 8, 17, 65535), "HighBit": (0, 7, 65535), "PixelRepresentation": (0, 1, 2, 65535),
    "SamplesPerPixel": (0, 3, 4, 65535), "PlanarConfiguration": (0, 1, 9), "InstanceNumber": ("", "x", "0"),
    "NumberOfFrames": ("0", "-1", "2", "2147483647", "1e9", "x", "99999999999999999999"),
    "PixelSpacing": ("0\\0", "-1\\1", "nan\\nan", "1", "1\\1\\1", "", "1e300\\1e300", "1e-300\\1e-300", "inf\\1",
                     "7\\7"),
    "ImagePositionPatient": ("nan\\0\\0", "1e308\\1e308\\1e308", "0\\0", "", "inf\\0\\0", "0\\0\\0", "x\\y\\z"),
    "ImageOrientationPatient": ("1\\0\\0\\1\\0\\0", "0\\0\\0\\0\\0\\0", "nan\\0\\0\\0\\1\\0", "1\\0\\0",
                                "2\\0\\0\\0\\2\\0"),
    "RescaleSlope": ("0", "nan", "inf", "1e38", "1e308", "-1", "", "x", "1\\2", "0.5", "1e18"),
    "RescaleIntercept": ("nan", "inf", "1e38", "1e308", "", "x", "-1e18", "0.5"),
    "PixelPaddingValue": (0, 65535, 32768), "PhotometricInterpretation": ("RGB", "PALETTE COLOR", "YBR_FULL", "", "x"),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.3", "", "x" * 70), "Modality": ("MR", "", "CT\nCT"),
    "SpecificCharacterSet": ("x", "ISO 2022 IR 87", "\\\\"), "SeriesInstanceUID": ("1.2", "", "a\nb", "x" * 300),
    "SOPInstanceUID": ("1.2", ""), "ImageType": ("LOCALIZER", "", "A"),
    "SeriesNumber": ("x", "-1", "9" * 12, "9" * 5000),
    "PixelData": (b"", b"\0\0", b"\xff" * 600), "LossyImageCompression": ("01",), "FrameOfReferenceUID": ("", "1\n2"),
}  # fmt: skip
_SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.5", "1.2.3", "",
)  # fmt: skip


def spoil_dicom(content: bytes, random: Random) -> bytes:
    how = random.random()
    if how < 0.1:
        return _spoil_codestream(content, random)
    if how < 0.15:
        return _with_syntax(content, random.choice(_SYNTAXES).encode())
    try:
        if how < 0.18:
            return nested(content, random.choice((2, 50, 100_000)))
        return _with_element(content, random)
    except Exception:  # what was spoiled before may be neither readable nor writable for pydicom
        return spoil_bytes(content, random)


def _with_element(content: bytes, random: Random) -> bytes:
    mode, settings.writing_validation_mode = settings.writing_validation_mode, IGNORE
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        name = random.choice(sorted(_DICOM_VALUES))
        how = random.random()
        if how < 0.1 and name in dataset:
            del dataset[name]
        else:
            holder = _holder(dataset, name, random)
            vr = pydicom.datadict.dictionary_VR(name).partition(" or ")[0]
            if isinstance(value := random.choice(_DICOM_VALUES[name]), str):
                vr = vr if vr in ("CS", "UI") else "LO"  # text is written as it stands
            holder.add_new(name, vr, value)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=False)
        return buffer.getvalue()
    finally:
        settings.writing_validation_mode = mode


def _holder(dataset: Dataset, name: str, random: Random) -> Dataset:
    """The data set, or an item of its functional groups that holds the element."""
    if name in dataset or "SharedFunctionalGroupsSequence" not in dataset:
        return dataset
    groups = [*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence]
    items = [item for group in groups for element in group for item in element.value if name in item]
    return random.choice(items) if items else dataset


def nested(content: bytes, depth: int) -> bytes:
    """An explicit little endian file with a sequence of so many levels, without lengths, behind its file meta."""
    at = content.index(b"\x08\x00\x08\x00CS")
    level, end = (
        b"\x08\x00\x40\x11SQ\0\0" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4,
        b"\xfe\xff\x0d\xe0\0\0\0\0",
    )
    return content[:at] + level * depth + (end + b"\xfe\xff\xdd\xe0\0\0\0\0") * depth + content[at:]


def _with_syntax(content: bytes, syntax: bytes) -> bytes:
    """Another transfer syntax over the same bytes; the element keeps its length where it can."""
    at = content.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return content
    (length,) = struct.unpack_from("<H", content, at + 6)
    return content[: at + 8] + syntax[:length].ljust(length, b"\0") + content[at + 8 + length :]


def _spoil_codestream(content: bytes, random: Random) -> bytes:
    """Bytes behind the start of the pixels, where a decoder reads sizes from."""
    at = content.rfind(b"\xe0\x7f\x10\x00")
    if at < 0:
        return spoil_bytes(content, random)
    return content[:at] + spoil_bytes(content[at:], random)
