"""gcnn from Python: one call for detection, one for evaluation.

    import gcnn_cli as gcnn

    report = gcnn.detect("scan.mhd")
    report.nodules[0].diameter_mm
    report.save("results", "csv,json,html")

Everything is done as by the commands of the same names, and raises `GcnnError` where they end with an exit code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gcnn_cli.detection import pipeline
from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.stages import Notify, quiet
from gcnn_cli.errors import UsageError
from gcnn_cli.evaluation.evaluation import EvaluationConfig
from gcnn_cli.evaluation.inputs import from_files, from_reports
from gcnn_cli.evaluation.run import EvaluationRun, run_evaluation
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weight_files import DEFAULT_MODEL
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.output.formats import check_formats, named_paths, output_name, parse_formats, write_report
from gcnn_cli.output.json_format import report_data
from gcnn_cli.output.notebook import notebook_html
from gcnn_cli.scan.arrays import Scan, as_volume
from gcnn_cli.scan.images.image_file import read_mask
from gcnn_cli.scan.volume import Volume


@dataclass(frozen=True)
class ScanReport(Report):
    """A report together with its scan: it can be saved in every format, and a notebook shows it.

    volume: the scan, which stays in memory as long as the report
    """

    volume: Volume = field(kw_only=True, repr=False, compare=False)

    @classmethod
    def of(cls, report: Report, volume: Volume) -> "ScanReport":
        """Join a report and its scan."""
        return cls(**{f.name: getattr(report, f.name) for f in fields(Report)}, volume=volume)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, with the fields of the JSON file."""
        return report_data(self)

    def save(
        self, folder: str | Path = ".", formats: str | Iterable[str] = "csv,json", *, overwrite: bool = False
    ) -> dict[str, Path]:
        """Write the report into a folder, named after the scan. Return the path of each format.

        formats: names as of `gcnn detect --format`, as a list or separated by commas

        Raises UsageError for an unknown format, one that this scan cannot have, or an existing file without
        `overwrite`; OutputError. Then nothing is written.
        """
        names = parse_formats(formats if isinstance(formats, str) else ",".join(formats))
        source = self.scan.source
        if source.path:
            check_formats(names, Path(source.path))
        name = output_name(Path(source.path)) if source.path else source.series_uid.replace("/", "_")
        paths = named_paths(name, Path(folder), names)
        write_report(self, paths, scan=self.volume, overwrite=overwrite)
        return paths

    def _repr_html_(self) -> str:
        return notebook_html(self, self.volume)


def detect(
    scan: Scan,
    detector: Detector | None = None,
    *,
    model: str | Path | TrainedModel | None = None,
    threshold: float | None = None,
    fp_per_scan: float | None = None,
    spacing_zyx: Sequence[float] | None = None,
    origin_mm: Sequence[float] | None = None,
    name: str | None = None,
    series: str | None = None,
    allow_gaps: bool = False,
    lung_mask: str | Path | Volume | None = None,
    device: str | None = None,
    notify: Notify = quiet,
) -> ScanReport:
    """Find nodules in one CT scan. Positions are in the scan's own LPS millimeters.

    scan:        path, Volume, SimpleITK image, or array [D, H, W] of HU with `spacing_zyx`; see `as_volume`
    detector:    networks that are ready, for many scans (`make_detector`); then without `model` and `device`
    model:       name of shipped weights, path of a weights file, or loaded weights (default: that of `gcnn detect`)
    threshold:   lowest probability that is reported (default: that of the weights)
    fp_per_scan: operating point of the weights instead of a threshold
    spacing_zyx, origin_mm, name: of an array, as in `as_volume`
    series:      SeriesInstanceUID or '#N', to choose among several DICOM series of a path
    allow_gaps:  interpolate over small gaps of a DICOM series
    lung_mask:   where to look instead of the segmented lungs: a mask file, or a Volume with values above 0 inside
    device:      auto, cpu, cuda, cuda:N or mps (default: auto)
    notify:      called as each stage begins

    Raises GcnnError: InputError, GeometryError and SeriesChoiceError for the scan, ModelError, DeviceError, UsageError
    for arguments that contradict each other.
    """
    if threshold is not None and fp_per_scan is not None:
        raise UsageError("threshold and fp_per_scan exclude each other")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"a threshold is a probability from 0 to 1, got {threshold}")
    if detector is not None and (model is not None or device is not None):
        raise UsageError("a detector has its weights and device; leave out model and device")
    volume = as_volume(
        scan, spacing_zyx=spacing_zyx, origin_mm=origin_mm, name=name, series=series, allow_gaps=allow_gaps
    )
    mask = lung_mask if lung_mask is None or isinstance(lung_mask, Volume) else read_mask(Path(lung_mask))
    ready = detector or make_detector(_weights(model), choose_device(device or "auto"))
    if fp_per_scan is not None:
        threshold = ready.model.calibration.threshold_at(fp_per_scan)
    report = pipeline.detect(volume, ready, threshold=threshold, lung_mask=mask, notify=notify)
    return ScanReport.of(report, volume)


def evaluate(
    predictions: str | Path | Sequence[Report],
    annotations: str | Path,
    *,
    excluded: str | Path | None = None,
    series: str | Path | None = None,
    config: EvaluationConfig | None = None,
    calibrate: bool = False,
) -> EvaluationRun:
    """Compare predictions with reference nodules: FROC, CPM and intervals by LUNA16's rules.

    predictions: reports of `detect`, whose scans are then the evaluated ones; or a file or folder as of
                 `gcnn evaluate --predictions`. For whole curves, detect with a threshold of 0
    annotations: reference nodules, LUNA16's columns; a report's seriesuid is its file's stem or its series UID
    excluded:    marks that count neither as nodules nor as false positives
    series:      list of the evaluated scans (default: the reports' scans, or those that the tables name)
    calibrate:   measure reliability and fit Platt's map, too

    The figures are in `.evaluation`; `.data()` returns all of them as plain data, `.write(folder, overwrite=False)`
    writes them. Raises InputError for damaged tables, and where no scan has a nodule.
    """
    reference = (Path(annotations), Path(excluded) if excluded else None, Path(series) if series else None)
    if isinstance(predictions, (str, Path)):
        inputs = from_files(Path(predictions), *reference)
    else:
        inputs = from_reports(list(predictions), *reference)
    return run_evaluation(inputs, config or EvaluationConfig(), calibrate=calibrate)


def _weights(model: str | Path | TrainedModel | None) -> TrainedModel:
    return model if isinstance(model, TrainedModel) else load_model(str(model or DEFAULT_MODEL))
