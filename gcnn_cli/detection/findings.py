"""What is looked for and what is reported."""

from dataclasses import dataclass
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.scan.volume import Source


@dataclass(frozen=True)
class Candidate:
    """A place proposed by the candidate stage; position in LPS mm (x, y, z)."""

    position_mm: tuple[float, float, float]
    diameter_mm: float
    strength: float  # HU, of the blob filter


@dataclass(frozen=True)
class Nodule:
    """A reported lesion. Position in LPS mm (x, y, z), the frame of the scan.

    index_zyx:  voxel of the scan as it was read, fractional, (z, y, x)
    slice:      1-based number of the nearest slice in array order
    """

    position_mm: tuple[float, float, float]
    index_zyx: tuple[float, float, float]
    probability: float
    diameter_mm: float
    volume_mm3: float
    slice: int
    sop_instance_uid: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"a probability lies between 0 and 1, got {self.probability}")


@dataclass(frozen=True)
class ScanSummary:
    """The scan that was searched, as read: what a reader needs to trust a position."""

    source: Source
    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]
    to_world: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ModelSummary:
    """The weights that scored the candidates."""

    name: str
    sha256: str
    group: str


@dataclass(frozen=True)
class Report:
    """Everything one detection found, and how. Nodules are sorted by probability, highest first."""

    scan: ScanSummary
    model: ModelSummary
    nodules: tuple[Nodule, ...]
    threshold: float
    candidates: int
    options: dict[str, Any]
    device: str
    seconds: float
    warnings: tuple[str, ...] = ()
