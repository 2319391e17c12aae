"""Small DICOM series with whatever defect a test asks for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from gcnn_cli.scan.volume import Volume, make_affine
from gcnn_cli.scan.writing import write_dicom_series


def make_volume(spacing=(2.5, 0.8, 0.7), shape=(12, 16, 20), direction=None, origin=(-10.0, 20.0, -300.0)) -> Volume:
    """A box of lung-like noise with a bright corner, so that every turn shows."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 200, shape).astype(np.int16)
    hu[:3, :4, :5] = 900
    axes = np.eye(3)[:, ::-1] if direction is None else direction
    return Volume(hu, make_affine(np.array(spacing), axes, np.array(origin)))


def write_series(folder: Path, volume: Volume, edit: Callable[[int, Dataset], Dataset | None] | None = None) -> Path:
    """Write a series and edit each slice; a slice for which edit returns None is left out."""
    write_dicom_series(volume, folder, description="test")
    if edit is not None:
        for number, path in enumerate(sorted(folder.iterdir())):
            edited = edit(number, pydicom.dcmread(path))
            path.unlink()
            if edited is not None:
                edited.save_as(path, enforce_file_format=True)
    return folder
