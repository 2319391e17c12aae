"""Reports as a DICOM structured report: Comprehensive 3D SR, TID 1500 "Measurement Report".

Each nodule is one measurement group (TID 1410): a 3D point in the series' frame of reference, diameter,
volume and the network's score as (122157, DCM, "Probability"). Without nodules one group states (111017)
that all algorithms succeeded without findings (111241).

With a segmentation of the same run (`output.seg`) a group refers to its nodule's segment (TID 1411) and has the point
as its center. `output.study` says what is taken over from the images, the patient's name among it.
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
    ReferencedSegment,
    Scoord3DContentItem,
    SourceImageForMeasurement,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.sr.codedict import codes

from gcnn_cli import __version__
from gcnn_cli.detection.findings import ModelSummary, Nodule, Report
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.output.seg import Segments
from gcnn_cli.output.study import DESCRIPTION, MANUFACTURER, required_headers
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, reason
from gcnn_cli.scan.dicom.evidence import Evidence
from gcnn_cli.scan.volume import Volume

_CT_CHEST = CodedConcept("24627-2", "LN", "CT Chest")
_CENTER = CodedConcept("111010", "DCM", "Center")


def structured_report(report: Report, volume: Volume, segments: Segments | None = None) -> bytes:
    """Return the DICOM file. Its UIDs are new each time.

    volume:   the scan, whose source names the series
    segments: the segmentation of the same report, to refer to

    Raises UsageError for a scan that is not DICOM, InputError for headers to which no SR can refer.
    """
    source = volume.source
    if source.kind != "dicom":
        raise UsageError("a DICOM SR refers to a DICOM series, and this is an image file", path=source.path)
    if not source.frame_of_reference_uid:
        raise InputError("the series names no frame of reference, so an SR cannot state positions", path=source.path)
    evidence = required_headers(source)
    with quiet_pydicom():  # it warns about values of the images, which go into the SR unchanged
        try:
            document = _document(report, evidence, segments)
            buffer = io.BytesIO()
            document.save_as(buffer, enforce_file_format=True)
        except DAMAGE as error:
            raise InputError(f"its headers cannot be copied into an SR: {reason(error)}", path=source.path) from None
    return buffer.getvalue()


def _document(report: Report, evidence: Evidence, segments: Segments | None) -> Any:
    algorithm = _algorithm(report)
    groups = [
        _nodule_group(number, nodule, evidence, report, algorithm, segments)
        for number, nodule in enumerate(report.nodules, start=1)
    ]
    # The optional image library (TID 1600) is left out: it repeats the images' headers, and needs elements that some
    # images lack. The evidence sequence refers to all images of the series.
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(report.model)),
        procedure_reported=_CT_CHEST,
        imaging_measurements=groups or [_no_finding_group(algorithm)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    first = evidence.headers[0]
    return Comprehensive3DSR(
        evidence=[*evidence.headers, *([segments.dataset] if segments else [])],
        content=content,
        series_instance_uid=UID(),
        series_number=1000 + int(first.get("SeriesNumber") or 0),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name="gcnn",
        software_versions=__version__,
        series_description=DESCRIPTION,
        is_complete=True,
        is_final=False,  # PRELIMINARY and UNVERIFIED: nobody has reviewed it
        is_verified=False,
    )


def _nodule_group(
    number: int,
    nodule: Nodule,
    evidence: Evidence,
    report: Report,
    algorithm: AlgorithmIdentification,
    segments: Segments | None,
) -> PlanarROIMeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations:
    header, frame = evidence.slices[nodule.slice - 1]
    image = SourceImageForMeasurement(
        header.SOPClassUID, header.SOPInstanceUID, referenced_frame_numbers=None if frame is None else [frame]
    )
    described: dict[str, Any] = {
        "finding_type": codes.SCT.Nodule,
        "finding_sites": [FindingSite(codes.SCT.Lung)],
        "algorithm_id": algorithm,
        "measurements": [
            Measurement(
                codes.SCT.Diameter, round(nodule.diameter_mm, 3), codes.UCUM.Millimeter, referenced_images=[image]
            ),
            Measurement(codes.SCT.Volume, round(nodule.volume_mm3, 2), codes.UCUM.CubicMillimeter),
            Measurement(codes.DCM.Probability, round(nodule.probability, 6), codes.UCUM.NoUnits),
        ],
    }
    frame_of_reference = report.scan.source.frame_of_reference_uid
    if segments is None:
        return PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(UID(), f"Nodule {number}"),
            referenced_region=ImageRegion3D("POINT", np.array([nodule.position_mm]), frame_of_reference),
            **described,
        )
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(UID(segments.tracking_uids[number - 1]), f"Nodule {number}"),
        referenced_segment=ReferencedSegment(
            segments.dataset.SOPClassUID,
            segments.dataset.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(report.scan.source.series_uid),
        ),
        **described,
    )
    # A segment has no point. Software that lists positions finds it here, as in an SR without segments.
    group[0].ContentSequence.append(
        Scoord3DContentItem(
            _CENTER, "POINT", np.array([nodule.position_mm]), frame_of_reference, relationship_type="CONTAINS"
        )
    )
    return group


def _no_finding_group(algorithm: AlgorithmIdentification) -> MeasurementsAndQualitativeEvaluations:
    """Return the group that states that no nodule was found. A report without a group would be invalid."""
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
        manufacturer=MANUFACTURER,
    )


def _observer(model: ModelSummary) -> ObserverContext:
    """Return the observer. Its UID (under 2.25) comes from the checksum, so that equal weights are one observer."""
    return ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{int(model.sha256[:32] or '0', 16)}",
            name=f"gcnn {__version__}",
            manufacturer_name=MANUFACTURER,
            model_name=model.name,
        ),
    )
