"""Who a scan or cut-out is of, so that a split keeps a patient on one side.

- LIDC-IDRI's pseudonyms (LIDC-IDRI-0001) stand at the head of names and in PatientID; they are public
  and are used as they are. A letter after the number is a second scan of the same patient.
- Any other PatientID is replaced by `patient-` and the first 12 hexadecimal digits of its SHA-256: equal
  ids stay equal, and no id is shown or stored in a weights file. That hides an id from readers, not from
  someone who tries every possible number: data that may not leave a hospital needs new pseudonyms first.
- A file says nothing: its name is its patient, unless scans.csv names one (`tables`). LUNA16's files are
  named by series, so its few patients with two scans count as two, and a patient of LUNA16 cannot be
  told to be one of LIDC-IDRI's.
"""

import hashlib
import re
from collections.abc import Collection

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")


def patient_of(name: str) -> str:
    """The patient that a scan's or cut-out's name begins with; the whole name where it says nothing."""
    return lidc_patient(name) or name


def lidc_patient(name: str) -> str:
    """The LIDC-IDRI pseudonym that a name begins with, or an empty string."""
    match = _LIDC.match(name)
    return match.group() if match else ""


def pseudonym(patient_id: str) -> str:
    """What stands for a PatientID: itself if it is LIDC-IDRI's, else a short hash."""
    if _LIDC.fullmatch(patient_id):
        return patient_id
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:12]}"


def known_as(given: str, patients: Collection[str]) -> str:
    """The patient that a user means, by name or by PatientID; an empty string where there is none such."""
    return next((name for name in (given, pseudonym(given)) if name in patients), "")
