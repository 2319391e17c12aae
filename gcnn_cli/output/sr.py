"""Reports as a DICOM structured report: Comprehensive 3D SR, TID 1500 "Measurement Report".

One measurement group (TID 1410) for each nodule: a 3D point in the series' frame of reference,
diameter, volume and the network's score under (122157, DCM, "Probability"). Without nodules one
group says (111017) that all algorithms succeeded without findings (111241).

An SR belongs to its study. The standard (PS3.3 C.7.1.1, PS3.5 7.4) wants the patient's name, id, birth
date and sex in it (Type 2: present, with the value where it is known), and objects of one study must
agree on them. So those are taken over from the images, empty where the images were de-identified, and
with them only what an archive needs to match them or to know that they are no real identity. What is
optional (addresses, comments, other names and ids, age, size) is left out. No other output of gcnn
holds any of this.
"""

import io
from typing import Any

import numpy as np
from highdicom import UID
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion3D,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurement,
    TrackingIdentifier,
)
from pydicom.datadict import keyword_for_tag
from pydicom.sr.codedict import codes

from gcnn_cli import __version__
from gcnn_cli.detection.findings import ModelSummary, Nodule, Report
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, reason
from gcnn_cli.scan.dicom.evidence import Evidence, read_evidence
from gcnn_cli.scan.volume import Volume

# Type 2 of the patient and study modules: may be empty, must be there; de-identified files leave them out.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
_OF_THE_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_CT_CHEST = CodedConcept("24627-2", "LN", "CT Chest")
_MANUFACTURER = "gcnn"
_DESCRIPTION = "Pulmonary nodules by gcnn, research use only"


def structured_report(report: Report, volume: Volume) -> bytes:
    """The DICOM file; its UIDs are new each time. volume: the scan, whose source names the series.

    Raises UsageError for a scan that is not DICOM, InputError for headers that no SR can refer to.
    """
    source = volume.source
    if source.kind != "dicom":
        raise UsageError("a DICOM SR refers to a DICOM series, and this is an image file", path=source.path)
    if not source.frame_of_reference_uid:
        raise InputError("the series names no frame of reference, so an SR cannot state positions", path=source.path)
    evidence = read_evidence(source)
    for header in evidence.headers:
        for keyword in _TYPE_2:
            if keyword not in header:
                setattr(header, keyword, None)
        _leave_out_optional(header)
    with quiet_pydicom():  # what it warns of are values of the evidence, which belong in the SR as they are
        try:
            document = _document(report, evidence)
            buffer = io.BytesIO()
            document.save_as(buffer, enforce_file_format=True)
        except DAMAGE as error:
            raise InputError(
                f"its headers cannot be taken over into an SR: {reason(error)}", path=source.path
            ) from None
    return buffer.getvalue()


def _leave_out_optional(header: Any) -> None:
    """Delete what describes the patient and is not required; group 0010 is the patient's."""
    for tag in list(header.keys()):  # not the elements, which would be decoded
        if tag.group == 0x0010 and keyword_for_tag(tag) not in _OF_THE_PATIENT:
            del header[tag]


def _document(report: Report, evidence: Evidence) -> Any:
    algorithm = _algorithm(report)
    groups = [_nodule_group(number, n, evidence, report, algorithm) for number, n in enumerate(report.nodules, 1)]
    # Without the optional image library (TID 1600): it repeats what stands in the images, and needs elements that
    # some of them lack. The evidence sequence refers to all images of the series.
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(report.model)),
        procedure_reported=_CT_CHEST,
        imaging_measurements=groups or [_no_finding_group(algorithm)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    first = evidence.headers[0]
    return Comprehensive3DSR(
        evidence=evidence.headers,
        content=content,
        series_instance_uid=UID(),
        series_number=1000 + int(first.get("SeriesNumber") or 0),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=_MANUFACTURER,
        manufacturer_model_name="gcnn",
        software_versions=__version__,
        series_description=_DESCRIPTION,
        is_complete=True,
        is_final=False,  # PRELIMINARY and UNVERIFIED: no person has looked at it
        is_verified=False,
    )


def _nodule_group(
    number: int, nodule: Nodule, evidence: Evidence, report: Report, algorithm: AlgorithmIdentification
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    header, frame = evidence.slices[nodule.slice - 1]
    image = SourceImageForMeasurement(
        header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=None if frame is None else [frame]
    )
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(), f"Nodule {number}"),
        referenced_region=ImageRegion3D(
            "POINT", np.array([nodule.position_mm]), report.scan.source.frame_of_reference_uid
        ),
        finding_type=codes.SCT.Nodule,
        finding_sites=[FindingSite(codes.SCT.Lung)],
        algorithm_id=algorithm,
        measurements=[
            Measurement(
                codes.SCT.Diameter, round(nodule.diameter_mm, 3), codes.UCUM.Millimeter, referenced_images=[image]
            ),
            Measurement(codes.SCT.Volume, round(nodule.volume_mm3, 2), codes.UCUM.CubicMillimeter),
            Measurement(codes.DCM.Probability, round(nodule.probability, 6), codes.UCUM.NoUnits),
        ],
    )


def _no_finding_group(algorithm: AlgorithmIdentification) -> MeasurementsAndQualitativeEvaluations:
    """A report without any group would be invalid, and would not say that it was looked for nodules."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(), "Summary"),
        finding_type=codes.SCT.Nodule,
        finding_sites=[FindingSite(codes.SCT.Lung)],
        algorithm_id=algorithm,
        qualitative_evaluations=[
            QualitativeEvaluation(
                codes.DCM.CADProcessingAndFindingsSummary, codes.DCM.AllAlgorithmsSucceededWithoutFindings
            )
        ],
    )


def _algorithm(report: Report) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name="gcnn",
        version=__version__,
        parameters=[
            f"weights={report.model.name}",
            f"sha256={report.model.sha256}",
            f"group={report.model.group}",
            f"threshold={report.threshold:.6g}",
        ],
        manufacturer=_MANUFACTURER,
    )


def _observer(model: ModelSummary) -> ObserverContext:
    """The same weights are the same observer: its UID (under 2.25) comes from their checksum."""
    return ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{int(model.sha256[:32] or '0', 16)}",
            name=f"gcnn {__version__}",
            manufacturer_name=_MANUFACTURER,
            model_name=model.name,
        ),
    )
