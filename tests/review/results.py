"""Small scans with bright balls at known places, and results of them on disk."""

from pathlib import Path

import numpy as np
from output.reports import report_of
from scan.scans import axial, oblique, write_series

from gcnn_cli.output.json_format import report_json
from gcnn_cli.review.cases import Case, find_cases
from gcnn_cli.review.session import Session
from gcnn_cli.review.store import Store
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Array, Volume
from gcnn_cli.scan.writing import write_metaimage

SHAPE = (34, 70, 80)
BALLS_ZYX = np.array([(8.0, 20.0, 18.0), (17.0, 41.0, 60.0), (26.0, 52.0, 30.0)])
BALL_MM = 10.0  # diameter


def flipped() -> Array:
    """to_world of a scan whose x and y run against the patient's, as some of LUNA16's files have it."""
    affine = axial((2.0, 0.8, 0.7))
    affine[:3, 1:3] *= -1
    return affine


def balls(to_world: Array) -> Volume:
    """Lung of -800 HU with a gentle slope along each axis, and balls of 50 HU."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    hu = -800 + grid @ np.array([3, 2, 1])
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    for center in BALLS_ZYX:
        hu[np.linalg.norm((grid - center) * spacing, axis=-1) < BALL_MM / 2] = 50
    return Volume(hu.astype(np.int16), to_world)


FRAMES = {"series": axial(), "oblique": oblique(), "flipped": flipped()}


def write_scan(kind: str, folder: Path) -> Path:
    """Write the scan of one of FRAMES: the DICOM series 'series' and 'oblique', or 'flipped' as MHD."""
    volume = balls(FRAMES[kind])
    if kind == "flipped":
        write_metaimage(volume, folder / "flipped.mhd")
        return folder / "flipped.mhd"
    return write_series(folder / kind, volume.hu, volume.to_world, series=f"1.2.3.{len(kind)}")


def write_result(scan: Path, folder: Path) -> Path:
    """Write the result with a finding at each ball; the last one has the lowest probability."""
    volume = read_volume(scan)
    report = report_of(volume, volume.position_mm(BALLS_ZYX), diameter_mm=BALL_MM)
    path = folder / f"{scan.stem}.nodules.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(report_json(report), "utf-8")
    return path


def some_cases(folder: Path, kinds: tuple[str, ...] = ("flipped",)) -> list[Case]:
    """Write scans and their results, and return the cases."""
    results = [write_result(write_scan(kind, folder / "scans"), folder / "results") for kind in kinds]
    return find_cases(results)


def session_of(cases: list[Case], folder: Path, reader: str = "ada") -> Session:
    """A session of one reader."""
    return Session(cases, Store(folder, reader))
