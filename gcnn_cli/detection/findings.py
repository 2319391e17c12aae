"""Candidates, nodules and the report of one scan."""

from dataclasses import dataclass, field
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.volume import Source, Volume


@dataclass(frozen=True)
class Candidate:
    """A location proposed by the candidate stage. Position in LPS mm (x, y, z)."""

    position_mm: tuple[float, float, float]
    diameter_mm: float
    strength: float  # logit of the proposal network


@dataclass(frozen=True)
class Seed:
    """Where a nodule's measurement began: its candidate, LPS mm (x, y, z). Raises InputError for a size of 0."""

    position_mm: tuple[float, float, float]
    diameter_mm: float

    def __post_init__(self) -> None:
        if not 0 < self.diameter_mm < 1000:
            raise InputError(f"a candidate's diameter must be above 0 and below 1000 mm, got {self.diameter_mm}")


@dataclass(frozen=True)
class Nodule:
    """A reported lesion. Position in LPS mm (x, y, z), the frame of the scan.

    index_zyx:   fractional voxel of the scan as it was read, (z, y, x)
    slice:       number of the nearest slice in array order, from 1
    fp_per_scan: false positives per scan with at least this probability, as counted for the weights; None if unknown
    seed:        from which its voxels are found again, for masks; None in results of earlier versions
    """

    position_mm: tuple[float, float, float]
    index_zyx: tuple[float, float, float]
    probability: float
    diameter_mm: float
    volume_mm3: float
    slice: int
    sop_instance_uid: str = ""
    fp_per_scan: float | None = None
    seed: Seed | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"a probability must lie between 0 and 1, got {self.probability}")
        if self.fp_per_scan is not None and not self.fp_per_scan > 0:
            raise InputError(f"false positives per scan must be more than 0, got {self.fp_per_scan}")

    @property
    def is_measured(self) -> bool:
        """Whether diameter and volume were measured; where nothing stands out they are the candidate's."""
        return self.seed is None or self.diameter_mm != self.seed.diameter_mm


@dataclass(frozen=True)
class ScanSummary:
    """The scan as it was read: what a reader of the report needs to trust a position."""

    source: Source
    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    to_world: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, volume: Volume) -> "ScanSummary":
        """Summarize a scan."""
        return cls(
            volume.source,
            volume.shape,
            tuple(volume.spacing_zyx.tolist()),
            tuple(tuple(row) for row in volume.to_world.tolist()),
        )


@dataclass(frozen=True)
class ModelSummary:
    """The weights that scored the candidates."""

    name: str
    sha256: str
    group: str


@dataclass(frozen=True)
class Report:
    """Result of one detection and how it was obtained. Nodules are sorted by probability, highest first.

    lungs_ml: volume of the searched region, vessels and nodules included; None in a file of an earlier version
    lungs:    mask of the searched region on the detection grid, 1 inside, for pictures; no file holds it
    """

    scan: ScanSummary
    model: ModelSummary
    nodules: tuple[Nodule, ...]
    threshold: float
    candidates: int
    options: dict[str, Any]
    device: str
    seconds: float
    warnings: tuple[str, ...] = ()
    lungs_ml: float | None = None
    lungs: Volume | None = field(default=None, repr=False, compare=False)
