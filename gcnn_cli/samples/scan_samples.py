"""Labeled and unlabeled scans -> samples: marks, candidates away from every mark, transplants and shams.

Cubes are cut with `detection.patches.cut_patch`, as in detection. In unlabeled scans the strongest candidates are
left out: they may be nodules that nobody marked.
"""

import logging
import math
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.detection.patches import cut_patch
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.marks import radius_mm
from gcnn_cli.samples.donors import Donor
from gcnn_cli.samples.preprocessed import PreprocessedScan
from gcnn_cli.samples.rare_kinds import RareKinds, vary_kind
from gcnn_cli.samples.sample import Cube, Sample, SampleConfig
from gcnn_cli.samples.transplant import PLACE_KINDS, blend, match_noise

log = logging.getLogger("gcnn")

_CLEAR_MM = 5.0  # negatives keep this far from the rim of every mark
_NODULE_WEIGHT = 0.9  # voxels of a softened mask from this weight on are the nodule's
_UNLABELED_SKIP = 30  # strongest candidates of a scan without labels, which are not used


def scan_samples(
    scan: PreprocessedScan,
    entry: ScanEntry,
    donors: list[Donor],
    config: SampleConfig,
    seed: int,
    *,
    held_out: bool = False,
) -> list[Sample]:
    """Return all samples of one scan: its marks, its candidates, transplants into it and shams.

    held_out: keep the transplants near marks too. They are positives wherever they lie, and experiments that go on
              need the test set that they began with.
    """
    marks = np.array([mark[:3] for mark in entry.nodules]).reshape(-1, 3)
    samples = [
        _sample(scan, index, 1, "mark", entry, config, nodule[3] if nodule[3] > 0 else math.nan)
        for index, nodule in zip(scan.index_zyx(marks), entry.nodules, strict=True)
    ]
    negatives = [*scan.candidates[0 if entry.labelled else _UNLABELED_SKIP :]]
    # LUNA16's own candidates of class 0.
    negatives += [*scan.index_zyx(entry.candidates[entry.candidates[:, 3] == 0][:, :3])]
    samples += _false_candidates(scan, np.array(negatives).reshape(-1, 3), entry, config)
    # A sharp nodule in a scan blurred by thick slices would be known by its sharpness.
    if donors and scan.spacing_mm <= config.max_host_spacing_mm:
        samples += _transplants(scan, entry, donors, config, np.random.default_rng([seed, 4]), held_out)
    log.info(
        "%s: %d marks, %d candidates, %d transplants, %d shams",
        entry.name,
        *(sum(s.kind == kind for s in samples) for kind in ("mark", "candidate", "transplant", "sham")),
    )
    return samples


def scored_samples(scan: PreprocessedScan, entry: ScanEntry, config: SampleConfig) -> list[Sample]:
    """Return the false candidates among those that detection scores in a labeled scan."""
    return _false_candidates(scan, scan.scored, entry, config)


def _false_candidates(
    scan: PreprocessedScan, indices: NDArray[np.float64], entry: ScanEntry, config: SampleConfig
) -> list[Sample]:
    """Return samples of those candidates [N, 3] that are away from every mark."""
    clear = _away_from_marks(scan, indices, entry)
    return [_sample(scan, index, 0, "candidate", entry, config) for index in indices[clear]]


def _away_from_marks(scan: PreprocessedScan, indices: NDArray[Any], entry: ScanEntry) -> NDArray[np.bool_]:
    """Return which voxels [N, 3] are away from every mark, [N]."""
    positions = scan.position_mm(indices.astype(float))
    clear = np.ones(len(indices), bool)
    for x, y, z, diameter in (*entry.nodules, *entry.excluded):
        clear &= np.linalg.norm(positions - (x, y, z), axis=1) > radius_mm(diameter) + _CLEAR_MM
    return clear


def _sample(
    scan: PreprocessedScan,
    index: NDArray[np.float64],
    label: int,
    kind: str,
    entry: ScanEntry,
    config: SampleConfig,
    diameter_mm: float = math.nan,
) -> Sample:
    cut = partial(cut_patch, scan.hu, index, config.sides)
    return Sample(cut, config.side, label, kind, entry.patient, entry.name, 0, config.sides[0], diameter_mm)


def _transplants(
    scan: PreprocessedScan,
    entry: ScanEntry,
    donors: list[Donor],
    config: SampleConfig,
    rng: np.random.Generator,
    held_out: bool,
) -> list[Sample]:
    samples = []
    clear_places, clear_pieces = (_away_from_marks(scan, at, entry) for at in (scan.places, scan.pieces))
    rare = config.ground_glass_share + config.cavity_share > 0
    for n, (place, place_kind, piece) in enumerate(zip(scan.places, scan.place_kinds, scan.pieces, strict=False)):
        donor = donors[rng.integers(len(donors))]
        axes, flips = _axes(config, rng), tuple(axis for axis in range(3) if rng.integers(2))
        sham = n >= config.transplants_per_scan
        # Drawn only where it is used: the transplants of earlier recipes stay as they are.
        kind_seed = int(rng.integers(2**32)) if rare else None
        # After the draws: the samples at other places stay as they are.
        if not (clear_places[n] and clear_pieces[n] if sham else clear_places[n] or held_out):
            continue
        cut = partial(_transplanted, scan, place, donor, axes, flips, config, piece if sham else None, kind_seed)
        kind, patient = ("sham", entry.patient) if sham else ("transplant", donor.patient)
        diameter_mm, where = (math.nan, "") if sham else (donor.diameter_mm, PLACE_KINDS[place_kind])
        samples.append(
            Sample(cut, config.side, int(not sham), kind, patient, entry.name, 0, config.sides[0], diameter_mm, where)
        )
    return samples


def _axes(config: SampleConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw an order of axes in which a cube keeps its shape and spacing."""
    alike = [*zip(config.sides, config.spacing_zyx, strict=True)]
    if len(set(alike)) == 1:
        return rng.permutation(3)
    orders = [order for order in permutations(range(3)) if all(alike[a] == alike[n] for a, n in enumerate(order))]
    return np.array(orders[rng.integers(len(orders))])


def _transplanted(
    scan: PreprocessedScan,
    place: NDArray[np.int64],
    donor: Donor,
    axes: NDArray[np.int64],
    flips: tuple[int, ...],
    config: SampleConfig,
    piece: NDArray[np.int64] | None,
    kind_seed: int | None,
) -> Cube:
    """Return the scan around a place with the donor blended in, or another piece of the same scan (a sham).

    kind_seed: decides whether the nodule is made ground glass or hollow; None: it stays as it is
    """
    sides = config.sides
    nodule, weight = donor.turned(axes, flips)
    host, pasted = cut_patch(scan.hu, place.astype(float), sides).astype(np.float32), nodule.astype(np.float32)
    if piece is not None:
        pasted = cut_patch(scan.hu, piece.astype(float), sides).astype(np.float32)
    else:
        if kind_seed is not None:
            kinds = RareKinds(config.ground_glass_share, config.cavity_share)
            pasted = vary_kind(pasted, weight > _NODULE_WEIGHT, kinds, np.random.default_rng(kind_seed))
        if donor.noise:
            pasted = match_noise(pasted, donor.noise, host)
    return np.round(blend(host, pasted, weight.astype(np.float32))).astype(np.int16)
