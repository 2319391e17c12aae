"""Making reader files in LIDC-IDRI's format, for nodules of known shape."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Uid = Callable[[int], str]
Mask = NDArray[np.bool_]

NAMESPACE = 'xmlns="http://www.nih.gov"'


def noise_hu(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.int16]:
    """Return a scan of noise."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape, np.int16)


def ball(shape: tuple[int, int, int], to_world: NDArray[np.float64], center_mm: Sequence[float], radius: float) -> Mask:
    """Return the mask [D, H, W] of a ball in LPS mm."""
    index = np.indices(shape).reshape(3, -1).T
    places = index @ to_world[:3, :3].T + to_world[:3, 3]
    return (np.linalg.norm(places - center_mm, axis=1) <= radius).reshape(shape)


def center_and_diameter(mask: Mask, to_world: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return a mask's center of mass in LPS mm, and the diameter of the ball with its volume."""
    index = np.argwhere(mask)
    volume = len(index) * abs(np.linalg.det(to_world[:3, :3]))
    return index.mean(axis=0) @ to_world[:3, :3].T + to_world[:3, 3], float(np.cbrt(6 * volume / np.pi))


def outlined(mask: Mask, uid: Uid, inclusion: str = "TRUE") -> str:
    """Return a roi for every slice of a mask without hollows: the pixels around it, in order of angle."""
    rois = []
    for number in np.flatnonzero(mask.any(axis=(1, 2))):
        ring = np.argwhere(ndimage.binary_dilation(mask[number]) & ~mask[number])
        y, x = (ring - np.argwhere(mask[number]).mean(axis=0)).T
        rois.append(roi(uid(int(number)), ring[np.argsort(np.arctan2(y, x))][:, ::-1].tolist(), inclusion))
    return "".join(rois)


def roi(slice_uid: str, points: Sequence[Sequence[int]], inclusion: str = "TRUE") -> str:
    """Return a roi. points: (x column, y row)"""
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return (
        f"<roi><imageZposition>0 </imageZposition><imageSOP_UID>{slice_uid}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def nodule(rois: str, *, small: bool = False) -> str:
    traits = "" if small else "<characteristics><subtlety>5</subtlety></characteristics>"
    return f"<unblindedReadNodule><noduleID>n</noduleID>{traits}{rois}</unblindedReadNodule>"


def non_nodule(slice_uid: str, x: int, y: int) -> str:
    return (
        f"<nonNodule><nonNoduleID>n</nonNoduleID><imageZposition>0</imageZposition>"
        f"<imageSOP_UID>{slice_uid}</imageSOP_UID><locus><xCoord>{x}</xCoord><yCoord>{y}</yCoord></locus></nonNodule>"
    )


def message(series_uid: str, sessions: Sequence[str], *, root: str = "LidcReadMessage", extra: str = "") -> str:
    """Return a reader file. sessions: the marks of each radiologist"""
    read = "".join(
        f"<readingSession><servicingRadiologistID>{n}</servicingRadiologistID>{marks}</readingSession>"
        for n, marks in enumerate(sessions)
    )
    header = f"<ResponseHeader><SeriesInstanceUid>{series_uid}</SeriesInstanceUid></ResponseHeader>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{extra}<{root} {NAMESPACE}>{header}{read}</{root}>'


def write_message(path: Path, series_uid: str, sessions: Sequence[str]) -> Path:
    path.write_text(message(series_uid, sessions), encoding="utf-8")
    return path
