"""The whole flow from scan to report, in the order in which it happens."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gcnn_cli.detection.chest import doubts, lung_volume_ml, mask_doubts
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate, ModelSummary, Nodule, Report, ScanSummary
from gcnn_cli.detection.lungs import Mask, segment_lungs
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.detection.merge import Scored, merge_duplicates
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.stages import Notify, Stage, Step, quiet
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import Calibration
from gcnn_cli.scan.resample import resample, resample_mask
from gcnn_cli.scan.volume import Volume


def detect(
    volume: Volume,
    detector: Detector,
    *,
    threshold: float | None = None,
    lung_mask: Volume | None = None,
    notify: Notify = quiet,
) -> Report:
    """Find nodules in one CT scan. Positions are in the scan's own LPS millimeters.

    threshold: lowest probability of a reported candidate; default: that of the weights
    lung_mask: where to look instead of the segmented lungs: a mask on any grid, with values above 0 inside
    notify:    called as each stage begins

    Raises InputError where no lung is found or the mask does not cover the scan.
    """
    model, scorer, config = detector.model, detector.scorer, detector.config
    threshold = model.calibration.threshold if threshold is None else threshold
    started = time.monotonic()
    notify(Step(Stage.RESAMPLING))
    grid = resample(volume, detector.spacing_mm)
    notify(Step(Stage.LUNGS))
    lungs = segment_lungs(grid, config.lungs) if lung_mask is None else _given_mask(lung_mask, grid)
    notify(Step(Stage.CANDIDATES))
    proposed = detector.proposer.propose(grid, lungs, config.proposals)
    notify(Step(Stage.SCORING, len(proposed)))
    same = model.input.spacing_mm == detector.spacing_mm
    candidates, logits = _score(grid if same else resample(volume, model.input.spacing_mm), proposed, detector)
    probabilities = [model.calibration.probability(float(logit)) for logit in logits]
    notify(Step(Stage.MEASURING))
    scored = [
        Scored(measure_nodule(grid, lungs, candidate), probability)
        for candidate, probability in zip(candidates, probabilities, strict=True)
        if probability >= threshold
    ]
    nodules = tuple(_report_nodule(volume, s, model.calibration) for s in merge_duplicates(scored, config.merge))
    unusual = doubts(lungs, grid) if lung_mask is None else mask_doubts(lung_mask, grid)
    to_world = grid.to_world
    del grid  # the largest array, which nothing needs any more
    return Report(
        scan=ScanSummary.of(volume),
        model=ModelSummary(model.name, model.sha256, model.group),
        nodules=nodules,
        threshold=threshold,
        candidates=len(proposed),
        options=report_options(detector, volume, lung_mask),
        device=str(scorer.device) + (" bfloat16" if scorer.bfloat16 else " float32"),
        seconds=time.monotonic() - started,
        warnings=volume.source.warnings + unusual,
        lungs_ml=lung_volume_ml(lungs, detector.spacing_mm),
        lungs=Volume(lungs.astype(np.int16), to_world),
    )


def report_options(detector: Detector, volume: Volume, lung_mask: Volume | None = None) -> dict[str, Any]:
    """Return all that decides a result besides voxels, weights and threshold, as plain data for the report.

    It is known before detection, so that a result made with other options is recognized.
    """
    return {
        **detector.options,
        "lung_mask": lung_mask.source.sha256 if lung_mask else "",
        "gaps_filled": volume.source.gaps_filled,
    }


def _score(grid: Volume, proposed: list[Candidate], detector: Detector) -> tuple[list[Candidate], NDArray[np.float32]]:
    """Return the candidates that are scored in full, in their order, with their logits.

    Which they are, `DetectionConfig` says (`screened`, `unlikely`).

    grid: the scan on the grid of the scoring network
    """
    scorer, config, candidates = detector.scorer, detector.config, proposed

    def patches() -> Iterator[Tensor]:
        return patch_batches(grid, [c.position_mm for c in candidates], detector.model.input, config.batch_size)

    if scorer.passes > 1 and len(candidates) > config.screened:
        logits, probability = scorer.screen(patches()), detector.model.calibration.probability
        best = np.sort(np.argsort(-logits, kind="stable")[: config.screened])
        candidates = [proposed[n] for n in best if probability(float(logits[n])) >= config.unlikely]
    return candidates, scorer.score(patches())


def _given_mask(mask: Volume, grid: Volume) -> Mask:
    lungs = resample_mask(mask, grid)
    if not lungs.any():
        raise InputError("the lung mask does not cover any part of the scan", path=mask.source.path)
    return lungs


def _report_nodule(volume: Volume, scored: Scored, calibration: Calibration) -> Nodule:
    measurement = scored.measurement
    index = volume.index_zyx(np.array(measurement.position_mm))
    slice_index = int(np.clip(np.round(index[0]), 0, volume.shape[0] - 1))
    uids = volume.source.slice_uids
    return Nodule(
        position_mm=measurement.position_mm,
        index_zyx=(float(index[0]), float(index[1]), float(index[2])),
        probability=scored.probability,
        diameter_mm=measurement.diameter_mm,
        volume_mm3=measurement.volume_mm3,
        slice=slice_index + 1,
        sop_instance_uid=uids[slice_index] if uids else "",
        fp_per_scan=calibration.fp_per_scan(scored.probability),
        seed=measurement.seed,
    )
