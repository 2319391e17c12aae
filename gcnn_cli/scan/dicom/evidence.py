"""The DICOM headers behind a volume, for objects that must refer to them.

They name the patient. So they are read from the files again, only for a format that must carry the name, and are
never kept in a Source.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.dicom.headers import read_headers, summarized
from gcnn_cli.scan.dicom.series import choose_series, group_headers
from gcnn_cli.scan.folders import dicom_folder, visible_files
from gcnn_cli.scan.volume import Source


@dataclass(frozen=True, eq=False)
class Evidence:
    """The headers of a series.

    headers: one pydicom Dataset without pixels for each file
    slices:  for each slice of the volume, in array order: its header and, in a multi-frame file, the frame from 1
    """

    headers: tuple[Any, ...]
    slices: tuple[tuple[Any, int | None], ...]


def read_evidence(source: Source) -> Evidence:
    """Read the headers of the series that a DICOM volume was read from, each once.

    Raises InputError when the files have changed since, or a header is damaged.
    """
    path = Path(source.path)
    with dicom_folder(path) as folder:
        if folder is None:
            raise InputError("an image file has no DICOM headers", path=path)
        found, damaged = read_headers(visible_files(folder), keep=lambda header: (header, summarized(header)))
        summaries = {file: summary for file, (_, summary) in found.items()}
        series = choose_series(folder, source.series_choice, group_headers(summaries, damaged))
        ordered = series.in_array_order(series.judge(allow_gaps=source.gaps_filled))
    if tuple(s.uid for s in ordered) != source.slice_uids:
        raise InputError("the series has changed since it was read", path=path)
    headers = {s.path: found[s.path][0] for s in ordered}
    return Evidence(
        tuple(headers.values()),
        tuple((headers[s.path], s.frame + 1 if "NumberOfFrames" in headers[s.path] else None) for s in ordered),
    )
