"""What a DICOM object of a study takes over from the study's images.

An object belongs to its study. The standard (PS3.3 C.7.1.1, PS3.5 7.4) requires the patient's name, id, birth date
and sex (Type 2: present, with the value where it is known), and objects of one study must agree on them. They are
copied from the images, empty where the images were de-identified. Besides them only attributes are copied that an
archive needs to match a study, or that mark an identity as removed. Optional attributes (addresses, comments, other
names and ids, age, size) are left out. No output of gcnn but the SR and the SEG holds any of this.
"""

from typing import Any

from pydicom.datadict import keyword_for_tag

from gcnn_cli.scan.dicom.evidence import Evidence, read_evidence
from gcnn_cli.scan.volume import Source

MANUFACTURER = "gcnn"
DESCRIPTION = "Pulmonary nodules by gcnn, research use only"

# Type 2 in the patient and study modules: may be empty but must be present; de-identified files may lack them.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
_OF_THE_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")


def required_headers(source: Source) -> Evidence:
    """Read the headers behind a volume and reduce them to what an object of the study needs.

    Raises InputError as `read_evidence`.
    """
    evidence = read_evidence(source)
    for header in evidence.headers:
        for keyword in _TYPE_2:
            if keyword not in header:
                setattr(header, keyword, None)
        _leave_out_optional(header)
    return evidence


def _leave_out_optional(header: Any) -> None:
    """Delete optional attributes of the patient, which is group 0010."""
    for tag in list(header.keys()):  # not the elements, which would be decoded
        if tag.group == 0x0010 and keyword_for_tag(tag) not in _OF_THE_PATIENT:
            del header[tag]
