"""One patient from a seed: chest, trees, nodules, blur, noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.errors import UsageError
from gcnn_cli.phantom.anatomy import AIR_HU, BLOOD_HU, Body, draw_chest
from gcnn_cli.phantom.lesions import Kind, PhantomNodule, draw_nodule, make_shape
from gcnn_cli.phantom.noise import make_grain
from gcnn_cli.phantom.trees import Segment, Vector, draw_segments, grow_tree
from gcnn_cli.scan.volume import Source, Volume, make_affine

# The nodules of a phantom, in turn: all kinds, from small to large.
_PLAN: tuple[tuple[Kind, float], ...] = (
    ("solid", 8.0),
    ("juxtapleural", 9.0),
    ("part-solid", 12.0),
    ("vessel-attached", 7.0),
    ("ground-glass", 13.0),
    ("solid", 5.5),
    ("solid", 14.0),
    ("juxtapleural", 12.0),
    ("solid", 4.0),
    ("vessel-attached", 10.0),
    ("ground-glass", 10.0),
    ("solid", 6.5),
)
_EXTENT_MM = (236.0, 226.0, 300.0)  # z, y, x
_CLEARANCE_MM = 6.0


@dataclass(frozen=True)
class PhantomConfig:
    """What to make. Lengths in mm, noise as its standard deviation in HU."""

    seed: int = 7
    spacing_zyx: tuple[float, float, float] = (2.5, 1.25, 1.25)
    nodules: int = 9
    noise_hu: float = 22.0
    step_hu: int = 8  # values are rounded to this, so that files compress

    def __post_init__(self) -> None:
        if self.seed < 0 or not all(0.3 <= s <= 5 for s in self.spacing_zyx):
            raise UsageError(f"phantom: need seed >= 0 and spacings of 0.3 to 5 mm, got {self}")
        if not 0 <= self.nodules <= len(_PLAN) or self.noise_hu < 0 or self.step_hu < 1:
            raise UsageError(f"phantom: at most {len(_PLAN)} nodules, noise and step not negative, got {self}")


@dataclass(frozen=True, eq=False)
class Phantom:
    """The scan and its truth. lungs: bool [D, H, W]."""

    volume: Volume
    nodules: tuple[PhantomNodule, ...]
    lungs: NDArray[np.bool_]
    config: PhantomConfig


def make_phantom(config: PhantomConfig) -> Phantom:
    """The same scan for the same config, bit for bit on one machine."""
    rng = np.random.default_rng(config.seed)
    body = Body()
    spacing = np.array(config.spacing_zyx)
    shape = np.round(np.array(_EXTENT_MM) / spacing).astype(int)
    first = -(shape - 1) / 2 * spacing + np.array([0.0, 8.0, 0.0])  # the table needs room at the back
    z, y, x = (
        (first[a] + spacing[a] * np.arange(shape[a])).reshape([-1 if a == b else 1 for b in range(3)]) for a in range(3)
    )
    origin, spacing_xyz = first[::-1], spacing[::-1]

    hu = draw_chest(body, x, y, z, float(spacing.mean()))
    lung = body.lung(*np.broadcast_arrays(x, y, z))
    inside = lung < 0
    hu[inside] += ndimage.gaussian_filter(rng.normal(size=hu.shape), 2.5 / spacing)[inside] * 120
    vessels, airways = _grow(body, rng)
    _draw_trees(hu, lung, vessels, airways, origin, spacing_xyz)
    nodules = _place_nodules(config, body, hu, lung, vessels, origin, spacing_xyz, rng)

    hu = ndimage.gaussian_filter(hu, 0.55 / spacing * np.array([0.5, 1, 1]))
    # Fewer photons arrive through tissue than through air and lung.
    level = 0.4 + 0.6 * np.clip((hu - AIR_HU) / 1000, 0, 1)
    hu += level * make_grain(hu.shape, spacing, config.noise_hu, rng)
    hu = np.round(np.maximum(hu, -1024) / config.step_hu) * config.step_hu
    direction = np.eye(3)[:, ::-1]
    source = Source(path="phantom", kind="array", series_uid=f"phantom-{config.seed}")
    volume = Volume(np.clip(hu, -1024, 3071).astype(np.int16), make_affine(spacing, direction, origin), source)
    return Phantom(volume, tuple(nodules), inside, config)


def _grow(body: Body, rng: np.random.Generator) -> tuple[list[Segment], list[Segment]]:
    """Vessels and airways of both lungs, from the hila."""
    vessels: list[Segment] = []
    airways: list[Segment] = []
    for side in (-1.0, 1.0):
        hilum = np.array([side * 30.0, 4.0, 2.0])
        for _ in range(8):
            heading = np.array([side * 1.0, rng.normal(0, 0.9), rng.normal(0, 1.1)])
            start = hilum + rng.normal(0, 6, 3) * np.array([0.3, 1, 1])
            vessels += grow_tree(start, heading, rng.uniform(2.6, 4.2), 0.5, body.lung, rng)
        for _ in range(2):
            heading = np.array([side * 1.0, rng.normal(0, 0.5), rng.normal(-0.3, 0.7)])
            airways += grow_tree(hilum + rng.normal(0, 3, 3), heading, 3.0, 1.2, body.lung, rng)
        carina = np.array([0.0, 6.0, 24.0])
        airways.append(Segment(carina, hilum, 6.0, 4.5))
    return vessels, airways


def _draw_trees(
    hu: NDArray[np.float64],
    lung: NDArray[np.float64],
    vessels: list[Segment],
    airways: list[Segment],
    origin: Vector,
    spacing: Vector,
) -> None:
    blood, wall, lumen = (np.zeros(hu.shape) for _ in range(3))
    draw_segments(blood, vessels, origin, spacing)
    draw_segments(wall, airways, origin, spacing, widen_mm=0.9)
    draw_segments(lumen, airways, origin, spacing)
    blood[lung > 1] = 0
    for share, value in ((blood, BLOOD_HU), (wall, -60.0), (lumen, AIR_HU + 20)):
        brighter = share * (value - hu)
        hu += np.where((value > 0) & (hu > value), 0.0, brighter)


def _place_nodules(
    config: PhantomConfig,
    body: Body,
    hu: NDArray[np.float64],
    lung: NDArray[np.float64],
    vessels: list[Segment],
    origin: Vector,
    spacing: Vector,
    rng: np.random.Generator,
) -> list[PhantomNodule]:
    """Draw the planned nodules, none near another; each kind where its name says."""
    clear_of_vessels = ndimage.distance_transform_edt(~((lung < 0) & (hu > -500)), sampling=spacing[::-1])
    placed: list[PhantomNodule] = []
    for kind, diameter in _PLAN[: config.nodules]:
        for _ in range(400):
            center = _propose(kind, diameter / 2, body, lung, clear_of_vessels, vessels, origin, spacing, rng)
            if center is None or any(
                np.linalg.norm(center - n.position_mm) < (diameter + n.diameter_mm) / 2 + _CLEARANCE_MM for n in placed
            ):
                continue
            nodule = draw_nodule(hu, origin, spacing, make_shape(center, diameter, rng), kind, body.lung)
            if nodule is not None:
                placed.append(nodule)
                break
    return placed


def _propose(
    kind: Kind,
    radius: float,
    body: Body,
    lung: NDArray[np.float64],
    clear_of_vessels: NDArray[np.float64],
    vessels: list[Segment],
    origin: Vector,
    spacing: Vector,
    rng: np.random.Generator,
) -> Vector | None:
    """A random center that suits the kind, or None for a bad draw."""
    if kind == "vessel-attached":
        thick = [s for s in vessels if 0.9 < s.end_radius < 1.8]
        segment = thick[rng.integers(len(thick))]
        aside = np.cross(segment.end - segment.start, rng.normal(size=3))
        center = segment.end + aside / np.linalg.norm(aside) * (0.8 * radius + segment.end_radius)
        depth = -float(body.lung(*center.reshape(3, 1))[0])
        return center if depth > radius + 4 else None
    index = np.array([rng.integers(n) for n in lung.shape])
    center = origin + spacing * index[::-1]
    depth = -float(lung[tuple(index)])
    if kind == "juxtapleural":
        outer_wall = abs(center[0]) > 70 and abs(center[2]) < 70
        return center if outer_wall and 0.2 * radius < depth < 0.55 * radius else None
    return center if depth > radius + 5 and clear_of_vessels[tuple(index)] > radius + 0.5 else None
