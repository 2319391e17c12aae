"""Reports as CSV: all columns, or exactly LUNA16's. Positions are in LPS mm."""

from gcnn_cli.detection.findings import Report
from gcnn_cli.files import csv_text

RICH_COLUMNS = (
    "seriesuid", "nodule", "coordX", "coordY", "coordZ", "diameter_mm", "volume_mm3", "probability",
    "fp_per_scan", "i", "j", "k", "slice", "sop_instance_uid",
)  # fmt: skip
LUNA16_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "probability")


def rich_csv(report: Report) -> str:
    """Return one line per nodule; without nodules only the header. i, j, k: voxel (x, y, z) of the scan."""
    rows = (
        (
            report.scan.source.series_uid,
            number,
            *_position(nodule.position_mm),
            f"{nodule.diameter_mm:.2f}",
            f"{nodule.volume_mm3:.1f}",
            f"{nodule.probability:.4f}",
            "" if nodule.fp_per_scan is None else f"{nodule.fp_per_scan:.4g}",
            *(round(index) for index in reversed(nodule.index_zyx)),
            nodule.slice,
            nodule.sop_instance_uid,
        )
        for number, nodule in enumerate(report.nodules, start=1)
    )
    return csv_text(RICH_COLUMNS, rows)


def luna16_csv(report: Report) -> str:
    """Return LUNA16's submission columns, with the probability to six digits."""
    uid = report.scan.source.series_uid
    return csv_text(LUNA16_COLUMNS, ((uid, *_position(n.position_mm), f"{n.probability:.6g}") for n in report.nodules))


def _position(position_mm: tuple[float, float, float]) -> list[str]:
    return [f"{value:.3f}" for value in position_mm]
