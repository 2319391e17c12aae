"""Training batches: cubes -> patches, varied as scans vary.

At random, a complete cube loses slices as stacks do (`samples.slabs`) or the rim that chunks lack (`samples.rims`),
and a cube is smoothed as by thicker slices and softer kernels. Its patch is turned by an element of Oh, shifted, and
often turned by a small angle and scaled. Its HU values are shifted and scaled slightly, and noise is added.

Every choice comes from a generator seeded with (seed, step), so that a batch does not depend on earlier draws.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gcnn_cli.detection.patches import scale_hu
from gcnn_cli.errors import InputError
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.samples.rims import narrow
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.slabs import extend_slab
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import make_group


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the random variations."""

    slab_share: float = 0.45  # share of the samples of each class that lack slices
    shift_mm: float = 1.0  # standard deviation along each axis
    turn_degrees: float = 20.0
    scale: float = 0.15
    hu_offset: float = 15.0
    hu_scale: float = 0.03
    noise_hu: float = 30.0
    blur_mm: float = 0.0  # largest standard deviation, drawn apart along z and in the plane; half stay unsmoothed
    turn_group: str = "Oh"  # patches are turned by its elements; "trivial": no turns
    interpolated_share: float = 0.6  # the others are cut without interpolation, as in detection

    def __post_init__(self) -> None:
        shares, ranges = (self.slab_share, self.interpolated_share), (self.shift_mm, self.turn_degrees, self.noise_hu)
        if not (all(0 <= s <= 1 for s in shares) and min(*ranges, self.hu_offset, self.hu_scale) >= 0):
            raise InputError(f"[augment] must have shares from 0 to 1 and ranges of at least 0, got {self}")
        if not 0 <= self.scale < 1:
            raise InputError(f"[augment] must have a scale from 0 to below 1, got {self.scale}")
        make_group(self.turn_group)  # raises for an unknown name


@dataclass(frozen=True)
class Chances:
    """Chances of (negatives, positives) to lose slices or rims, so that a loss says nothing about the class.

    slab: chance of a complete cube to lose slices as stacks do (`slabs`)
    rim:  chance of a cube that is not from a chunk to lose its rim (`rims`)
    """

    slab: tuple[float, float] = (0.0, 0.0)
    rim: tuple[float, float] = (0.0, 0.0)


def make_batch(
    samples: list[Sample],
    spec: InputSpec,
    config: AugmentConfig,
    chances: Chances,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Make patches [B, 1, *spec.sides] and labels [B]."""
    cubes = np.stack([_cube_of(sample, spec, chances, rng) for sample in samples])
    varied = torch.from_numpy(_blur(cubes, config.blur_mm / np.array(spec.spacing_zyx), rng)).unsqueeze(1)
    patches = _cut_varied(varied, spec, config, rng)
    patches = _vary_hu(patches, config, rng)
    labels = torch.tensor([float(sample.label) for sample in samples])
    return scale_hu(patches, spec), labels


def plain_batch(samples: list[Sample], spec: InputSpec) -> Tensor:
    """Cut the samples' central patches without variation, missing slices filled in."""
    rng = np.random.default_rng(0)
    cubes = torch.from_numpy(np.stack([_cube_of(sample, spec, Chances(), rng) for sample in samples]))
    z, y, x = (slice(m, m + n) for m, n in zip(_margins(cubes, spec), spec.sides, strict=True))
    return scale_hu(cubes[:, z, y, x], spec).unsqueeze(1)


def _margins(cubes: Tensor, spec: InputSpec) -> list[int]:
    """Return how many voxels cubes [..., D, H, W] have before a central patch, along each axis."""
    return [(whole - part) // 2 for whole, part in zip(cubes.shape[-3:], spec.sides, strict=True)]


def _cube_of(sample: Sample, spec: InputSpec, chances: Chances, rng: np.random.Generator) -> NDArray[np.float32]:
    cube = _with_slab(sample, chances.slab[sample.label], spec, rng)
    if "chunk" not in sample.kind and (chance := chances.rim[sample.label]) and rng.random() < chance:
        return narrow(cube, spec.spacing_zyx, rng)
    return cube


def _with_slab(sample: Sample, chance: float, spec: InputSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    cube = sample.hu.astype(np.float32)
    slice_mm, pixel_mm, _ = spec.spacing_zyx
    if not sample.complete:
        return extend_slab(cube, sample.first, sample.stop, rng, pixel_mm)
    if rng.random() >= chance:
        return cube
    # Heights like those of the stacks, whose median is 7.5 mm and upper quartile 12 mm.
    height = min(len(cube), round(np.clip(rng.lognormal(np.log(8.0), 0.5), 4, 30) / slice_mm))
    first = (len(cube) - height) // 2
    return extend_slab(cube, first, first + height, rng, pixel_mm)


def _blur(cubes: NDArray[np.float32], most_vox: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth each cube of [B, D, H, W] by Gaussians of its own widths along z and in the plane.

    most_vox: the largest width along each axis, in voxels
    """
    if not most_vox.any():
        return cubes
    along, across = rng.uniform(0, 1, (2, len(cubes))) * (rng.random((2, len(cubes))) < 0.5)
    widths = np.stack([along, across, across], axis=1) * most_vox
    return np.stack([gaussian_filter(cube, width, mode="nearest") for cube, width in zip(cubes, widths, strict=True)])


def _cut_varied(cubes: Tensor, spec: InputSpec, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    margins, voxel_mm = np.array(_margins(cubes, spec)), np.array(spec.spacing_zyx)
    elements = make_group(config.turn_group).matrices
    patches = torch.empty(len(cubes), 1, *spec.sides)
    interpolated = rng.random(len(cubes)) < config.interpolated_share
    for n in np.flatnonzero(~interpolated):
        shift = np.clip(np.round(rng.normal(0, config.shift_mm, 3) / voxel_mm), -margins, margins).astype(int)
        z, y, x = (slice(m, m + side) for m, side in zip(margins + shift, spec.sides, strict=True))
        patches[n, 0] = cubes[n, 0, z, y, x]
    moved = np.flatnonzero(interpolated)
    if len(moved):
        grid = torch.stack([_sampling_grid(tuple(cubes.shape[-3:]), spec, config, rng) for _ in moved])
        patches[moved] = F.grid_sample(cubes[moved], grid, align_corners=False, padding_mode="border")
    return torch.stack([rotate(patch, elements[rng.integers(len(elements))]) for patch in patches])


def _sampling_grid(
    cube_sides: tuple[int, ...], spec: InputSpec, config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """Return where to read a patch in a cube, [*sides, 3] in grid_sample's coordinates (x, y, z), -1 to 1.

    The turn, the scale and the shift are those of millimeters.
    """
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(-config.turn_degrees, config.turn_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    scale = rng.uniform(1 - config.scale, 1 + config.scale)
    voxel_mm = np.array(spec.spacing_zyx[::-1])
    patch_mm, cube_mm = np.array(spec.sides[::-1]) * voxel_mm, np.array(cube_sides[::-1]) * voxel_mm
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = torch.from_numpy(turn * scale * patch_mm / cube_mm[:, None])
    theta[0, :, 3] = torch.from_numpy(rng.normal(0, config.shift_mm, 3) * 2 / cube_mm)
    return F.affine_grid(theta, [1, 1, *spec.sides], align_corners=False)[0]


def _vary_hu(patches: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    shape = (len(patches), 1, 1, 1, 1)
    scale = torch.from_numpy(rng.normal(1, config.hu_scale, shape)).float()
    offset = torch.from_numpy(rng.normal(0, config.hu_offset, shape)).float()
    level = torch.from_numpy(rng.uniform(0, config.noise_hu, shape) * (rng.random(shape) < 0.5)).float()
    noise = torch.from_numpy(rng.standard_normal(tuple(patches.shape), dtype=np.float32))
    # Scaled about the HU of lung, so that air and tissue move in opposite directions.
    return (patches + 850) * scale - 850 + offset + level * noise
