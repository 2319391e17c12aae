"""Patients of scans and cut-outs, so that a split keeps each patient on one side.

- LIDC-IDRI's pseudonyms (LIDC-IDRI-0001) are public and used unchanged. They begin a name or stand in PatientID.
  A letter after the number marks a second scan of the same patient.
- Any other PatientID is replaced by `patient-` and the first 12 hexadecimal digits of its SHA-256, so that equal
  ids stay equal and no id appears in logs. The hash has no key: whoever tries every possible number finds the
  id. Such hashes do not belong in files that are given away.
- A file without a pseudonym counts as a patient of its own, under the file's name, unless scans.csv names the
  patient (`label_sets`). LUNA16's files are named after their series: its few patients with two scans count as
  two, and cannot be matched with LIDC-IDRI's patients.
"""

import hashlib
import re
from collections.abc import Collection

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")


def patient_of(name: str) -> str:
    """Return the LIDC-IDRI pseudonym that a name begins with, or else the whole name."""
    return lidc_patient(name) or name


def lidc_patient(name: str) -> str:
    """Return the LIDC-IDRI pseudonym that a name begins with, or an empty string."""
    match = _LIDC.match(name)
    return match.group() if match else ""


def pseudonym(patient_id: str) -> str:
    """Return the stand-in for a PatientID: the id itself if it is LIDC-IDRI's, else a short hash."""
    if _LIDC.fullmatch(patient_id):
        return patient_id
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:12]}"


def known_as(given: str, patients: Collection[str]) -> str:
    """Return the patient that a user names, by stand-in or by PatientID, or an empty string for an unknown one."""
    return next((name for name in (given, pseudonym(given)) if name in patients), "")
