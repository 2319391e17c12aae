"""What two DICOM scans of one patient are compared by: their dates, and whether their patient is the same.

No output states either: they could tell who the patient is.
"""

from datetime import date, datetime

from gcnn_cli.scan.dicom.evidence import read_evidence
from gcnn_cli.scan.dicom.headers import text_of
from gcnn_cli.scan.volume import Source

_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")  # the first that is stated


def scan_date(source: Source) -> date | None:
    """Return the date on which a DICOM volume was acquired; None if its headers state none, and for other formats.

    Raises InputError as `read_evidence`.
    """
    if source.kind != "dicom":
        return None
    header = read_evidence(source).headers[0]
    for keyword in _DATES:
        try:
            return datetime.strptime(text_of(header, keyword), "%Y%m%d").date()
        except ValueError:
            continue
    return None


def same_patient(first: Source, second: Source) -> bool | None:
    """Return whether two DICOM volumes have one PatientID; None if one states none, and for other formats.

    Raises InputError as `read_evidence`.
    """
    if (first.kind, second.kind) != ("dicom", "dicom"):
        return None
    one, other = (text_of(read_evidence(source).headers[0], "PatientID") for source in (first, second))
    return one == other if one and other else None
