"""The DICOM headers behind a volume, for objects that must refer to them. Read again from the files.

They name the patient, so they are read only where a format has to carry that, and never kept in a Source.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, read_dicom, reason
from gcnn_cli.scan.dicom.series import choose_series
from gcnn_cli.scan.reading import dicom_folder
from gcnn_cli.scan.volume import Source


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a series is made of.

    headers: one pydicom Dataset without pixels for each file
    slices:  for each slice of the volume, in array order: its header and, in a multi-frame file, the frame from 1
    """

    headers: tuple[Any, ...]
    slices: tuple[tuple[Any, int | None], ...]


def read_evidence(source: Source) -> Evidence:
    """Headers of the series that a DICOM volume was read from.

    Raises InputError when the files have changed since, or a header is damaged.
    """
    path = Path(source.path)
    with dicom_folder(path) as folder, quiet_pydicom():
        series = choose_series(folder, source.series_uid)
        ordered = series.in_array_order(series.judge(allow_gaps=source.gaps_filled))
        if tuple(s.uid for s in ordered) != source.slice_uids:
            raise InputError(f"{path}: the series has changed since it was read")
        headers: dict[Path, Any] = {}
        try:
            for slice_ in ordered:
                if slice_.path not in headers:
                    headers[slice_.path] = read_dicom(slice_.path, stop_before_pixels=True)
        except DAMAGE as error:
            raise InputError(f"{path}: a header cannot be read: {reason(error)}") from None
    return Evidence(
        tuple(headers.values()),
        tuple((headers[s.path], s.frame + 1 if "NumberOfFrames" in headers[s.path] else None) for s in ordered),
    )
