"""The date of a DICOM scan, to count the days between two. No output states it: it could tell who the patient is."""

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
