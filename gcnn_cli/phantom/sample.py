"""Phantom -> files: the scan, its truth in LUNA16's columns and the kind, and as DICOM."""

from pathlib import Path

from gcnn_cli.errors import UsageError
from gcnn_cli.files import write_bytes
from gcnn_cli.phantom.config import Phantom
from gcnn_cli.scan.writing import write_dicom_series, write_metaimage


def sample_folder() -> Path:
    """Return the folder of the sample scan: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "sample_data"
    return installed if installed.is_dir() else package.parent / "sample_data"


def write_phantom(
    phantom: Phantom, folder: Path, *, name: str = "thorax", dicom: bool = False, overwrite: bool = False
) -> None:
    """Write `NAME.mhd`, `NAME.zraw`, `annotations.csv`, and with `dicom` the folder `NAME_dicom`.

    annotations.csv has LUNA16's columns, the name as seriesuid, and the kind behind them. Raises
    UsageError, before anything is written, when one of the files exists.
    """
    check_phantom_paths(folder, name=name, dicom=dicom, overwrite=overwrite)
    scan, truth, series = _paths(folder, name)
    write_metaimage(phantom.volume, scan, overwrite=overwrite)
    if dicom:
        write_dicom_series(phantom.volume, series, description="Synthetic thorax", overwrite=overwrite)
    write_bytes(truth, _truth(phantom, name).encode(), overwrite=True)  # checked above


def check_phantom_paths(folder: Path, *, name: str = "thorax", dicom: bool, overwrite: bool) -> None:
    """Raise UsageError when one of the files exists and must not be replaced."""
    scan, truth, series = _paths(folder, name)
    for path in (scan, scan.with_suffix(".zraw"), truth, *((series,) if dicom else ())):
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists already; give --overwrite or another folder")


def _paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / f"{name}.mhd", folder / "annotations.csv", folder / f"{name}_dicom"


def _truth(phantom: Phantom, name: str) -> str:
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm,kind"]
    for nodule in phantom.nodules:
        x, y, z = nodule.position_mm
        rows.append(f"{name},{x:.3f},{y:.3f},{z:.3f},{nodule.diameter_mm:.3f},{nodule.kind}")
    return "\n".join(rows) + "\n"
