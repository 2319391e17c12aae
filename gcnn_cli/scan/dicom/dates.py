"""What two DICOM scans of one patient are compared by: their dates, and whether their patient is the same.

No output states either: they could tell who the patient is.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from gcnn_cli.scan.dicom.evidence import read_evidence
from gcnn_cli.scan.dicom.headers import text_of
from gcnn_cli.scan.volume import Source

_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")  # the first that is stated


@dataclass(frozen=True)
class Visit:
    """The date on which a scan was acquired, None if unknown, and its PatientID, empty if unknown."""

    acquired: date | None = None
    patient: str = field(default="", repr=False)


def read_visit(source: Source) -> Visit:
    """Read the date and the patient of a DICOM volume from its headers; neither is known for other formats.

    Raises InputError as `read_evidence`.
    """
    if source.kind != "dicom":
        return Visit()
    header = read_evidence(source).headers[0]
    return Visit(_date_of(header), text_of(header, "PatientID"))


def _date_of(header: Any) -> date | None:
    for keyword in _DATES:
        try:
            return datetime.strptime(text_of(header, keyword), "%Y%m%d").date()
        except ValueError:
            continue
    return None
