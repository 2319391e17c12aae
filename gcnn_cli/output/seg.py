"""Reports as a DICOM segmentation (SEG): one binary segment for each nodule, on the images of the series.

A segment is coded as a nodule of the lung, made by an algorithm that is named with its version and weights. An SR of
the same run refers to the segments (`output.sr`). A SEG needs a segment: without nodules it has one, which is empty
and says so.

As an object of the study it must name the patient, as the SR does (`output.sr`), and nothing else names one.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.sr.codedict import codes

from gcnn_cli import __version__
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.regions import nodule_labels
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.output.study import DESCRIPTION, MANUFACTURER, required_headers
from gcnn_cli.scan.dicom.dataset import DAMAGE, quiet_pydicom, reason
from gcnn_cli.scan.dicom.evidence import Evidence
from gcnn_cli.scan.volume import Volume

_BINARY = "BINARY"


@dataclass(frozen=True, eq=False)
class Segments:
    """A segmentation. tracking_uids: of the nodules, in their order, by which an SR names the same lesions"""

    dataset: Any
    tracking_uids: tuple[str, ...]

    def content(self) -> bytes:
        """Return the DICOM file."""
        buffer = io.BytesIO()
        with quiet_pydicom():
            self.dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def segmentation(report: Report, volume: Volume) -> Segments:
    """Return the segmentation. Its UIDs are new each time. report: with its lungs; volume: its scan.

    Raises UsageError for a scan that is not DICOM or whose gaps were filled, InputError for headers to which no SEG can
    refer, otherwise as `nodule_labels`.
    """
    source = volume.source
    if source.kind != "dicom":
        raise UsageError("a DICOM SEG refers to a DICOM series, and this is an image file", path=source.path)
    if source.gaps_filled:
        raise UsageError(
            "slices were interpolated, and a DICOM SEG has only the images of the series; use mask", path=source.path
        )
    labels = nodule_labels(report, volume)
    evidence = required_headers(source)
    uids = tuple(str(UID()) for _ in report.nodules)
    with quiet_pydicom():
        try:
            return Segments(_dataset(report, volume, labels, evidence, uids), uids)
        except DAMAGE as error:
            raise InputError(f"its headers cannot be copied into a SEG: {reason(error)}", path=source.path) from None


def _dataset(report: Report, volume: Volume, labels: Any, evidence: Evidence, uids: tuple[str, ...]) -> Any:
    images = [header for header, _ in evidence.slices]
    frames = [frame for _, frame in evidence.slices]
    if len(evidence.headers) == 1:  # one multi-frame file, whose frames may be stored in another order
        images, order = images[:1], np.argsort([frame or 0 for frame in frames])
        labels = labels[order]
    elif not report.nodules:  # one empty frame says the same as all of them
        images, labels = images[:1], labels[:1]
    names = [f"Nodule {number}" for number in range(1, len(uids) + 1)] or ["No nodule found"]
    first = evidence.headers[0]
    for measures in _pixel_measures(images):
        if "SliceThickness" not in measures:  # required, and yet some images lack it
            measures.SliceThickness = f"{volume.spacing_zyx[0]:.9g}"
    return Segmentation(
        source_images=images,
        pixel_array=labels,
        segmentation_type=_BINARY,
        segment_descriptions=[
            _description(number, name, uid, report)
            for number, (name, uid) in enumerate(zip(names, uids or (str(UID()),), strict=True), start=1)
        ],
        series_instance_uid=UID(),
        series_number=2000 + int(first.get("SeriesNumber") or 0),
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name="gcnn",
        software_versions=__version__,
        device_serial_number=report.model.sha256[:16] or "unknown",
        content_label="NODULES",
        content_description=DESCRIPTION,
        series_description=DESCRIPTION,
        omit_empty_frames=bool(report.nodules),
    )


def _pixel_measures(images: list[Any]) -> Iterator[Any]:
    """Yield every item of the images that states the size of a pixel."""
    for image in images:
        if "PixelSpacing" in image:
            yield image
        groups = (*image.get("SharedFunctionalGroupsSequence", ()), *image.get("PerFrameFunctionalGroupsSequence", ()))
        for group in groups:
            yield from group.get("PixelMeasuresSequence", ())


def _description(number: int, name: str, uid: str, report: Report) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="gcnn",
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            source=MANUFACTURER,
            parameters={"weights": report.model.name, "sha256": report.model.sha256},
        ),
        anatomic_regions=[codes.SCT.Lung],
        tracking_uid=uid,
        tracking_id=name,
    )
