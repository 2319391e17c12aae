"""LIDC-IDRI's reader files (LidcReadMessage XML) -> the marks of each radiologist, in millimeters.

Four radiologists read every scan twice. In the second round each saw the marks of the blinded first round. A
`readingSession` holds the final marks of one radiologist:

- `unblindedReadNodule` with outlines: a nodule of at least 3 mm. An outline (`roi`) lies in one slice, named by
  its SOPInstanceUID. It runs along the first pixels outside the nodule (x column, y row, from 0): the nodule is
  the area strictly inside. `inclusion` FALSE removes an area;
- `unblindedReadNodule` with single points only: a nodule under 3 mm, unmeasured;
- `nonNodule`: a finding of at least 3 mm that is not a nodule, unmeasured.

Center: the center of mass of the pixels inside. Diameter: that of the ball with their volume (pixel area x slice
spacing). These are LUNA16's measures: for the series 1.3.6...192 of LIDC-IDRI-0001 the fourth reader's outlines
give (56.61, 86.22, -115.77) mm and 23.50 mm, to the last digit as in annotations_excluded.csv. With the pixels of
the outline itself the diameter would be 24.73 mm. The largest diameter in the plane is 33.67 mm. Nodules are not
balls, and with that diameter detections well outside the nodule would count as hits.

Sources: Armato et al. 2011, Med Phys 38(2), doi 10.1118/1.3528204; McNitt-Gray et al. 2007, Acad Radiol
14(12), doi 10.1016/j.acra.2007.07.021 (outline outside the nodule, under 3 mm: center only).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from gcnn_cli.errors import InputError
from gcnn_cli.labels.marks import UNMEASURED_MM
from gcnn_cli.scan.dicom.series import Series, Slice

Kind = Literal["nodule", "small", "non-nodule"]
Points = NDArray[np.int64]  # [N, 2], x column and y row of pixels

_MAX_BYTES = 64 * 2**20  # LIDC-IDRI's largest file has 6 MB
_MAX_PIXEL = 65535  # Rows and Columns of DICOM are 16 bits


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed outline in one slice, or a single point."""

    slice_uid: str
    points: Points
    included: bool


@dataclass(frozen=True, eq=False)
class ReaderMark:
    """One mark of one reader, in pixels."""

    reader: int
    kind: Kind
    outlines: tuple[Outline, ...]


@dataclass(frozen=True, eq=False)
class Reading:
    """The marks of all readers in one series.

    problem: the first invalid mark, in words, or an empty string. With a problem there are no marks.
    """

    path: Path
    series_uid: str
    marks: tuple[ReaderMark, ...]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class PlacedMark:
    """One mark of one reader in the patient.

    center_mm:   float64 [3], (x, y, z) in LPS mm
    diameter_mm: UNMEASURED_MM for anything but a nodule of at least 3 mm
    """

    reader: int
    kind: Kind
    center_mm: NDArray[np.float64]
    diameter_mm: float


class _NoDoctype(ElementTree.TreeBuilder):
    """A tree builder that rejects document types: they may declare entities, and LIDC-IDRI's files have none."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("a document type is not allowed")


def read_reading(path: Path) -> Reading | None:
    """Parse an XML file. Returns None for anything but a reader file of a CT.

    Raises InputError for a file that cannot be parsed or does not name its series.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES // 2**20} MiB; not a reader file of LIDC-IDRI")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: invalid XML ({str(error).splitlines()[0]})") from None
    if _tag(root) != "LidcReadMessage":
        return None  # IdriReadMessage: the chest radiographs of the same patients
    series_uid = next((_text(e) for e in root.iter() if _tag(e) == "SeriesInstanceUid"), "")
    if not series_uid:
        raise InputError(f"{path}: no SeriesInstanceUid")
    sessions = _children(root, "readingSession")
    try:
        marks = [mark for reader, session in enumerate(sessions) for mark in _session_marks(reader, session)]
    except ValueError as error:
        return Reading(path, series_uid, (), problem=f"{path}: {error}")
    return Reading(path, series_uid, tuple(marks))


def place_marks(reading: Reading, series: Series) -> list[PlacedMark]:
    """Place the marks in LPS mm by the positions of their slices. The series must form a stack.

    Raises InputError for a reading with a problem, and for a mark on a slice or pixel that the series lacks.
    """
    if reading.problem:
        raise InputError(reading.problem)
    to_world = series.verdict.to_world
    if to_world is None:
        raise InputError(f"{reading.path}: its series does not form a stack")
    spacing_mm = float(np.linalg.norm(to_world[:3, 0]))
    slices: dict[str, Slice] = {}
    for image in series.slices:
        if slices.setdefault(image.uid, image).plane != image.plane:  # frames of one multi-frame image
            raise InputError(f"{reading.path}: slice {image.uid} of its series has several positions")
    for mark in reading.marks:
        for outline in mark.outlines:
            _check_on_slice(reading.path, outline, slices)
    return [_place(mark, slices, spacing_mm) for mark in reading.marks]


def _check_on_slice(path: Path, outline: Outline, slices: dict[str, Slice]) -> None:
    if outline.slice_uid not in slices:
        raise InputError(f"{path}: a mark on slice {outline.slice_uid}, which its series lacks")
    plane = slices[outline.slice_uid].plane
    x, y = outline.points.max(axis=0)
    if x >= plane.columns or y >= plane.rows:
        raise InputError(f"{path}: a mark on pixel ({x}, {y}) of a slice of {plane.columns} x {plane.rows} pixels")


def _place(mark: ReaderMark, slices: dict[str, Slice], spacing_mm: float) -> PlacedMark:
    # With no pixel inside, the outline's own pixels give the position and about the size.
    areas = _inside(mark) or _along(mark)
    positions = np.concatenate([_positions_mm(slices[uid], pixels) for uid, pixels in areas.items()])
    if mark.kind != "nodule":
        return PlacedMark(mark.reader, mark.kind, positions.mean(axis=0), UNMEASURED_MM)
    between_rows, between_columns = slices[next(iter(areas))].plane.pixel_spacing
    volume = len(positions) * between_rows * between_columns * spacing_mm
    return PlacedMark(mark.reader, mark.kind, positions.mean(axis=0), float(np.cbrt(6 * volume / np.pi)))


def _inside(mark: ReaderMark) -> dict[str, Points]:
    """Return the pixels strictly inside the outlines, by slice. Slices without any are left out."""
    areas: dict[str, Points] = {}
    for uid in {o.slice_uid: None for o in mark.outlines}:
        outlines = [o for o in mark.outlines if o.slice_uid == uid]
        corner = np.min([o.points.min(axis=0) for o in outlines], axis=0)
        size = np.max([o.points.max(axis=0) for o in outlines], axis=0) - corner + 1
        inside = np.zeros((size[1], size[0]), bool)  # [rows, columns]
        for outline in sorted(outlines, key=lambda o: not o.included):  # removals come last
            x, y = (outline.points - corner).T
            part = np.zeros_like(inside)
            # PIL's polygon gives the same pixels for the outlines of LIDC-IDRI-0001, and others for rings with arms.
            part[polygon(y, x, part.shape)] = True
            part[y, x] = False
            inside = inside | part if outline.included else inside & ~part
        if inside.any():
            areas[uid] = np.argwhere(inside)[:, ::-1] + corner
    return areas


def _along(mark: ReaderMark) -> dict[str, Points]:
    """Return the pixels of the outlines themselves, by slice."""
    uids = {o.slice_uid: None for o in mark.outlines}
    return {uid: np.concatenate([o.points for o in mark.outlines if o.slice_uid == uid]) for uid in uids}


def _positions_mm(image: Slice, pixels: Points) -> NDArray[np.float64]:
    """Return positions [N, 3] in LPS mm of pixels [N, 2] of a slice."""
    plane = image.plane
    between_rows, between_columns = plane.pixel_spacing
    steps = pixels * np.array([between_columns, between_rows])
    axes = np.array([plane.row_direction, plane.column_direction])
    return np.asarray(np.array(plane.position) + steps @ axes, np.float64)


def _session_marks(reader: int, session: ElementTree.Element) -> Iterator[ReaderMark]:
    for element in _children(session, "unblindedReadNodule"):
        outlines = tuple(_outline(roi, _children(roi, "edgeMap")) for roi in _children(element, "roi"))
        if outlines:
            measured = max(len(o.points) for o in outlines) > 2
            yield ReaderMark(reader, "nodule" if measured else "small", outlines)
    for element in _children(session, "nonNodule"):
        yield ReaderMark(reader, "non-nodule", (_outline(element, _children(element, "locus")),))


def _outline(element: ElementTree.Element, corners: list[ElementTree.Element]) -> Outline:
    points = [(_pixel(corner, "xCoord"), _pixel(corner, "yCoord")) for corner in corners]
    uid = _first_text(element, "imageSOP_UID")
    if not points or not uid:
        raise ValueError("a mark without a slice or without points")
    included = (_first_text(element, "inclusion") or "TRUE").upper()
    if included not in ("TRUE", "FALSE"):
        raise ValueError(f"inclusion must be TRUE or FALSE, got {included!r}")
    return Outline(uid, np.array(points, np.int64), included == "TRUE")


def _pixel(element: ElementTree.Element, name: str) -> int:
    text = _first_text(element, name)
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a pixel") from None
    if not 0 <= value <= _MAX_PIXEL:
        raise ValueError(f"{name} {text!r} is not a pixel")
    return value


def _tag(element: ElementTree.Element) -> str:
    """Return the name without its namespace."""
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if _tag(child) == name]


def _first_text(element: ElementTree.Element, name: str) -> str:
    return next((_text(child) for child in _children(element, name)), "")


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()
