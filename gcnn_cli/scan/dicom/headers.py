"""DICOM headers -> the image planes that they describe.

Headers are read without pixels. Elements are taken as damaged unless they are what the standard allows, as a damaged
length lets an element run on into the next ones, the patient's name among them.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, read_dicom
from gcnn_cli.scan.dicom.geometry import Plane
from gcnn_cli.scan.folders import is_bare
from gcnn_cli.scan.lattice import FARTHEST_MM

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_LONGEST_TEXT = 64  # characters, of a UID or a description
_TEXTS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
    "PatientID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "NumberOfFrames",
    "AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "ContentTime", "TemporalPositionIdentifier",
    "ConvolutionKernel", "ContrastBolusAgent", "KVP", "SliceThickness", "ReconstructionDiameter", "FilterType",
)  # fmt: skip
_OF_PLANES = (
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """What decides about the series of a file. The headers of a folder of 100,000 files would not fit in memory.

    texts:  elements with their text, which is not empty
    not_ct: the reason why it is not a slice of a CT, or an empty string
    planes: of each frame of a CT; None where they are missing or invalid
    """

    texts: dict[str, str] = field(repr=False)
    not_ct: str
    planes: tuple[Plane, ...] | None

    def get(self, keyword: str) -> str | None:
        """Return an element as a data set does."""
        return self.texts.get(keyword)


def read_summaries(files: Iterable[Path]) -> tuple[dict[Path, Summary], int]:
    """Read what decides about the series of the files, and count the damaged ones, as `read_headers`."""
    return read_headers(files, (*_TEXTS, *_OF_PLANES), summarized)


def summarized(header: Any) -> Summary:
    """Return the summary of a header."""
    texts = {tag: sys.intern(text) for tag in _TEXTS if (text := text_of(header, tag))}  # most are those of others
    not_ct = reason_not_ct(header)
    try:
        return Summary(texts, not_ct, () if not_ct else tuple(planes_of(header)))
    except DAMAGE:
        return Summary(texts, not_ct, None)


def read_headers(
    files: Iterable[Path], tags: Iterable[str] | None = None, keep: Callable[[Any], Any] = lambda header: header
) -> tuple[dict[Path, Any], int]:
    """Read the headers of the DICOM files among some files, and count the damaged ones.

    A file without content is damaged if it lies beside slices and is named as they are: an interrupted copy leaves it.

    tags: the elements to read (default: all but the pixels)
    keep: makes of each header what is returned (default: the header)
    """
    headers: dict[Path, Any] = {}
    empty: list[Path] = []
    damaged = 0
    options = {} if tags is None else {"specific_tags": list(tags)}
    with quiet_pydicom():
        for path in files:
            try:
                header = read_dicom(path, stop_before_pixels=True, **options)
            except InvalidDicomError:
                if is_bare(path):
                    damaged += 1
                elif _is_empty(path):
                    empty.append(path)
                continue  # not DICOM: readme files, XML, thumbnails
            except DAMAGE:
                damaged += 1
                continue
            if text_of(header, "SeriesInstanceUID"):
                headers[path] = keep(header)
            else:
                damaged += path.name.upper() != "DICOMDIR"
    alike = {(path.parent, path.suffix) for path in headers}
    return headers, damaged + sum((path.parent, path.suffix) in alike for path in empty)


def _is_empty(path: Path) -> bool:
    """Return whether a file has no bytes, or zeros where the preamble and the mark of a DICOM file belong."""
    try:
        with path.open("rb") as file:
            return not file.read(132).strip(b"\0")
    except OSError:
        return False


def has_frames_without_places(header: Any) -> bool:
    """Return whether a classic CT image holds several frames, which then have one position together."""
    frames = text_of(header, "NumberOfFrames")
    return text_of(header, "SOPClassUID") == _CT_IMAGE and frames not in ("", "1")


def text_of(header: Any, name: str) -> str:
    """Return an element as text, or an empty string where it is absent or damaged.

    Text longer than any identifier or description, or with unprintable characters, comes from a damaged length.
    """
    try:
        text = str(header.get(name) or "")
    except DAMAGE:
        return ""
    return text if len(text) <= _LONGEST_TEXT and text.isprintable() else ""


def reason_not_ct(header: Any) -> str:
    """Return the reason why an object is not a slice of a CT, or an empty string.

    The SOP class decides where an anonymizer removed the modality.
    """
    modality, sop_class = text_of(header, "Modality"), text_of(header, "SOPClassUID")
    is_ct = sop_class in (_CT_IMAGE, _ENHANCED_CT)
    if modality == "CT" and not is_ct:
        return f"{_in_words(sop_class)}, not a CT image"
    if not is_ct or modality not in ("CT", ""):
        return f"not a CT image ({modality or 'no modality'})"
    try:
        return "localizer" if "LOCALIZER" in str(header.get("ImageType")) else ""
    except DAMAGE:
        return ""


def _in_words(sop_class: str) -> str:
    """Return a SOP class as a person calls it: 'a secondary capture'."""
    name = UID(sop_class).name
    if not sop_class or name == sop_class:
        return f"of the unknown SOP class {sop_class}" if sop_class else "without a SOP class"
    words = name.removesuffix(" Storage").removesuffix(" Image").split()
    text = " ".join(word if word.isupper() else word.lower() for word in words)
    return f"{'an' if text.startswith(('a', 'e', 'i', 'o', 'x-')) else 'a'} {text}"


def planes_of(header: Any) -> Iterator[Plane]:
    """Yield the plane of each frame of a CT. Raises one of DAMAGE for missing or invalid elements.

    Enhanced (multi-frame) CT is read through its functional groups.
    """
    if str(header.SOPClassUID) == _CT_IMAGE:
        yield _plane(header, header, header, header)
        return
    shared = header.SharedFunctionalGroupsSequence[0]
    for frame in header.PerFrameFunctionalGroupsSequence:

        def group(name: str, frame: Any = frame) -> Any:
            return (frame if name in frame else shared)[name][0]

        yield _plane(
            header,
            group("PlanePositionSequence"),
            group("PlaneOrientationSequence"),
            group("PixelMeasuresSequence"),
        )


def _plane(header: Any, position: Any, orientation: Any, measures: Any) -> Plane:
    x, y, z = _finite(position.ImagePositionPatient)
    a, b, c, d, e, f = _finite(orientation.ImageOrientationPatient)
    between_rows, between_columns = _finite(measures.PixelSpacing)
    return Plane(
        (x, y, z),
        (a, b, c),
        (d, e, f),
        (between_rows, between_columns),
        int(header.Rows),
        int(header.Columns),
    )


def _finite(values: Any) -> list[float]:
    numbers = [float(v) for v in values]
    if not all(abs(v) < FARTHEST_MM for v in numbers):  # also refuses NaN
        raise ValueError(f"not a position: {numbers}")
    return numbers
