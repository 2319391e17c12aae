"""A phantom and its truth as files, in the layout that `gcnn train` and LUNA16 tools read."""

import csv
from pathlib import Path

from gcnn_cli.errors import UsageError
from gcnn_cli.phantom.scene import Phantom
from gcnn_cli.scan.writing import write_dicom_series, write_metaimage


def write_phantom(
    phantom: Phantom, folder: Path, *, name: str = "thorax", dicom: bool = False, overwrite: bool = False
) -> None:
    """NAME.mhd with its .zraw, annotations.csv in LUNA16's columns and a kind, and NAME_dicom/.

    Raises UsageError where a file exists.
    """
    truth = folder / "annotations.csv"
    if truth.exists() and not overwrite:
        raise UsageError(f"{truth} exists already; give --overwrite or another folder")
    write_metaimage(phantom.volume, folder / f"{name}.mhd", overwrite=overwrite)
    if dicom:
        write_dicom_series(
            phantom.volume, folder / f"{name}_dicom", description="Synthetic thorax", overwrite=overwrite
        )
    with truth.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "kind"])
        for nodule in phantom.nodules:
            position = [f"{value:.3f}" for value in nodule.position_mm]
            writer.writerow([name, *position, f"{nodule.diameter_mm:.2f}", nodule.kind])
