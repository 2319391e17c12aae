"""Stored values of a DICOM image, plain or compressed.

pydicom decodes. Syntaxes for which it has no plugin (JPEG lossless, JPEG of 12 bits, JPEG-LS) are decoded by the GDCM
inside SimpleITK, so that the common syntaxes need no further package.

Decoders trust their input. So the sizes in the header are compared with the actual bytes beforehand, and the sizes
in the compressed image with the header.
"""

import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL, SecondaryCaptureImageStorage

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom.dataset import DAMAGE, DeclaredSizeError, reason

_MOST_PIXELS = 2**24  # of a plane: 4096 x 4096
_MOST_PACKED = 1032  # to 1, where many planes together are large; scans pack 2 to 4 to 1
_PLAIN_ENOUGH_BYTES = 2**26  # an image of one value packs without limit
_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_WITHOUT_DECODER = ("missing dependencies", "does not support")  # in pydicom's errors, of Pillow for JPEG of 12 bits
_RETIRED_JPEG = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")  # that DCMTK still decodes
_EXPORT_AGAIN = "export the series again in Explicit VR Little Endian"  # uncompressed; every archive can
_ONE_AT_A_TIME = threading.Lock()


def stored_pixels(dataset: Any, name: str) -> NDArray[Any]:
    """Return the values as stored [frames, rows, columns]. Raises InputError that starts with the name."""
    try:
        if dataset.get("SamplesPerPixel", 1) != 1:
            raise InputError("color pixels, not a CT", path=name)
        _check_syntax(dataset.file_meta.TransferSyntaxUID, name)
        _check_declared_size(dataset)
        raw = _decoded_by_pydicom(dataset)
    except RuntimeError as error:
        try:
            if not any(words in str(error) for words in _WITHOUT_DECODER):
                raise
            raw = _decoded_by_gdcm(dataset)
        except (RuntimeError, *DAMAGE):
            raise InputError(_why_undecodable(dataset.file_meta.TransferSyntaxUID), path=name) from None
    except DAMAGE as error:
        raise InputError(f"its pixels cannot be read: {reason(error)}", path=name) from None
    return raw.reshape(-1, *raw.shape[-2:])


def _check_syntax(syntax: UID, name: str) -> None:
    """Raise InputError, with a remedy, for a transfer syntax that nothing here decodes, and ValueError for none."""
    if not syntax.is_valid:
        raise ValueError
    try:
        get_decoder(syntax)
    except NotImplementedError:
        remedy = "convert it with dcmdjpeg of DCMTK" if syntax in _RETIRED_JPEG else _EXPORT_AGAIN
        raise InputError(f"the transfer syntax {syntax.name} is not supported; {remedy}", path=name) from None


def _check_declared_size(dataset: Any) -> None:
    """Raise DeclaredSizeError where the header declares more pixels than its bytes can hold."""
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not (min(rows, columns) >= 2 and rows * columns <= _MOST_PIXELS and frames > 0):
        raise DeclaredSizeError(f"{rows} x {columns} pixels in {frames} frames")
    declared, actual = rows * columns * frames * bits // 8, len(dataset.PixelData)
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed and _is_encapsulated(dataset.PixelData)
    if not compressed and actual < declared:
        raise DeclaredSizeError(f"{actual} bytes of pixels where the header declares {declared}")
    if compressed and declared > max(_PLAIN_ENOUGH_BYTES, _MOST_PACKED * actual):
        raise DeclaredSizeError(f"{actual} packed bytes of pixels where the header declares {declared} unpacked")
    if compressed:
        for stream in generate_frames(dataset.PixelData, number_of_frames=frames):
            found = _codestream_shape(stream)
            if found and (found[:3] != (rows, columns, 1) or not 2 <= found[3] <= bits):
                raise DeclaredSizeError("the compressed image differs from its header in size or type")


def _is_encapsulated(pixels: bytes) -> bool:
    return pixels[:4] == b"\xfe\xff\x00\xe0"  # an item's tag


def _codestream_shape(stream: bytes) -> tuple[int, int, int, int] | None:
    """Return rows, columns, components and bits from the header of a JPEG, JPEG-LS or JPEG 2000 image, else None.

    Raises struct.error or DeclaredSizeError for a truncated or damaged header.
    """
    at = stream[:1024].find(_JPEG_2000)
    if at >= 0:
        width, height, left, top = struct.unpack_from(">4I", stream, at + 8)
        components, bits = struct.unpack_from(">HB", stream, at + 40)
        return height - top, width - left, components, 1 + (bits & 0x7F)
    if not stream.startswith(_JPEG):
        return None
    at = 2
    while True:
        mark, code, length = struct.unpack_from(">BBH", stream, at)
        if mark != 0xFF:
            raise DeclaredSizeError("the compressed image is damaged in its header")
        if code == 0xFF:  # padding
            at += 1
        elif code == 0xF7 or (0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
            return rows, columns, components, bits
        else:
            at += 2 + length


def _decoded_by_pydicom(dataset: Any) -> NDArray[Any]:
    """Decode all frames. Raises RuntimeError for a missing plugin and for pixels that a decoder in Rust panics at."""
    try:
        with _muted():
            raw: NDArray[Any] = dataset.pixel_array
    except Exception:
        raise
    except BaseException as error:
        # PyO3 derives its panics from BaseException and exports no class that could be named here.
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError("the decoder panicked") from None
    return raw


def _decoded_by_gdcm(dataset: Any) -> NDArray[Any]:
    """Decode all frames."""
    frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    return np.stack([_plane_by_gdcm(dataset, frame) for frame in frames])


def _plane_by_gdcm(dataset: Any, frame: bytes) -> NDArray[Any]:
    """Decode one plane [rows, columns]. The file that GDCM reads has a header of our own, without the patient."""
    import SimpleITK as sitk  # loaded for pixels alone: headers are looked at without it

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, UID("1.2.3")
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(image, keyword, int(dataset[keyword].value))
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.PixelData = encapsulate([frame])
    image["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory(prefix="gcnn-") as folder, _muted():
        path = Path(folder) / "image.dcm"
        image.save_as(path, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        values: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
    return values.reshape(image.Rows, image.Columns)


@contextmanager
def _muted() -> Iterator[None]:
    """Discard the stderr of decoders in C, C++ and Rust, which comment on damaged images there.

    File descriptor 2 belongs to the whole process. So threads take turns, or one would keep the other's muted stderr
    for the real one; and a message that another thread writes meanwhile is lost.
    """
    import SimpleITK as sitk

    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            for number in (kept, nowhere):
                os.close(number)
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _why_undecodable(syntax: UID) -> str:
    """Return why both decoders failed: SimpleITK before 2.5 cannot tell HTJ2K that it does not know from damage."""
    if syntax in (HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL) and not get_decoder(syntax).is_available:
        return f"the installed decoders cannot read {syntax.name}; install gcnn with its extra 'dicom'"
    return f"its {syntax.name} pixels are truncated or damaged"
