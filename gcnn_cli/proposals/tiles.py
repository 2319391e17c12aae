"""Tiles: pieces of scenes, turned and varied, with the targets of the map that a network makes of them.

A place of the map is positive near a nodule's center and negative away from every nodule. It is neither in between,
where detection would not search, and where nothing was measured.

Chunks and cut-outs are small: beyond them their border is repeated, or continued along z (`slabs`). If that happened
around nodules only, a network would learn it. Tiles of scans are therefore narrowed to a box or slab of similar size
about as often, and places beside the nodule in a chunk are negatives in the same surroundings.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.proposals.scenes import Marks, Scene
from gcnn_cli.samples.slabs import extend_slab

Cube = NDArray[np.float32]

_SURE_RADIUS = 0.45  # share of a nodule's radius within which a place is positive
_SURE_VOX = 1.8  # at least this radius, which holds a place of the map wherever a nodule lies
_CLEAR_VOX = 3.0  # places nearer to a nodule's center than this, or than its radius plus 1, are not negatives
_BOX_SHARE, _SLAB_SHARE = 0.3, 0.15  # shares of the tiles of scans that are narrowed
_INTERPOLATED_SHARE = 0.6
_THICK_SHARE, _BLUR_SHARE, _NOISE_SHARE = 0.35, 0.15, 0.5
_TURN_DEGREES, _SCALE = 20.0, 0.15
_HU_OFFSET, _HU_SCALE, _NOISE_HU = 15.0, 0.03, 30.0
_ROOM = 20  # voxels by which a cube is larger than its tile, for turning and scaling


@dataclass(frozen=True)
class TileGeometry:
    """The size of a tile and the places of its map.

    side:  voxels along each axis of a tile
    first: voxel index of the map's first place along each axis
    step:  voxels between places
    count: places along each axis
    """

    side: int
    first: float
    step: int
    count: int

    @property
    def reach(self) -> float:
        """Distance in voxels from the middle of the tile to its outermost places, along each axis."""
        return (self.side - 1) / 2 - self.first

    @property
    def cube_side(self) -> int:
        """Side of the cube that is cut from a scene to make a tile."""
        return self.side + _ROOM

    def places(self) -> NDArray[np.float64]:
        """Return the places of the map relative to the middle of the tile, [count, count, count, 3]."""
        axis = self.first + self.step * np.arange(self.count) - (self.side - 1) / 2
        return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


@dataclass(frozen=True, eq=False)
class Tile:
    """One training tile.

    hu:       [side, side, side]
    positive: [count, count, count]; the places of one nodule sum to 1, all others are 0
    negative: bool [count, count, count]
    """

    hu: Cube
    positive: NDArray[np.float32]
    negative: NDArray[np.bool_]


@dataclass(eq=False)
class _Cut:
    """A cube of a scene from voxel `start`. Only its part between `low` and `high`, in scene voxels, was measured."""

    hu: Cube
    start: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def cut_cube(scene: Scene, center: NDArray[np.float64], geometry: TileGeometry) -> tuple[Cube, NDArray[np.int64]]:
    """Return a cube around a place, with the scene's border repeated beyond it, and its first voxel (z, y, x)."""
    start = np.floor(center).astype(int) - geometry.cube_side // 2 + 1
    return _repeated(scene.hu, start, geometry.cube_side), start


def make_tile(
    scene: Scene,
    cube: Cube,
    start: NDArray[np.int64],
    nodules: Marks,
    geometry: TileGeometry,
    rng: np.random.Generator,
) -> Tile:
    """Return a tile, varied at random, of a cube from `cut_cube` into which a nodule may have been pasted.

    nodules: every nodule in the cube, in voxels of the scene
    """
    cut = _Cut(cube, start, np.full(3, -0.5), np.array(scene.hu.shape) - 0.5)
    _stand_in(scene, cut, nodules, geometry, rng)
    if scene.thin and scene.kind == "scan" and rng.random() < _THICK_SHARE:
        cut.hu = _in_thick_slices(cut.hu, rng)
    elif rng.random() < _BLUR_SHARE:
        cut.hu = ndimage.gaussian_filter(cut.hu, rng.uniform(0.3, 1.0))
    turn = _signed_permutation(rng)
    if rng.random() < _INTERPOLATED_SHARE:
        turn = _small_rotation(rng) @ turn * rng.uniform(1 - _SCALE, 1 + _SCALE)
        hu = _sampled(cut.hu, turn, geometry.side)
    else:
        hu = _turned(cut.hu, turn, geometry.side)
    places = geometry.places() @ turn.T + start + (geometry.cube_side - 1) / 2
    positive, negative = _targets(scene, cut, nodules, places)
    return Tile(_varied_hu(hu, rng), positive, negative)


def _targets(
    scene: Scene, cut: _Cut, nodules: Marks, places: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    measured = ((places >= cut.low + 1) & (places <= cut.high - 1)).all(axis=-1)
    nearest = np.clip(np.round(places), 0, np.array(scene.hu.shape) - 1).astype(int)
    negative = measured & scene.searched[tuple(np.moveaxis(nearest, -1, 0))]
    positive = np.zeros(places.shape[:3], np.float32)
    for *center, diameter in nodules:
        distance = np.linalg.norm(places - center, axis=-1)
        negative &= distance > max(_CLEAR_VOX, diameter / 2 + 1)
        near = measured & (distance <= max(_SURE_VOX, _SURE_RADIUS * diameter / 2))
        positive += near / max(1, near.sum())
    for *center, diameter in scene.unsure:
        negative &= np.linalg.norm(places - center, axis=-1) > max(_CLEAR_VOX, diameter / 2 + 3)
    return positive, negative


def _stand_in(scene: Scene, cut: _Cut, nodules: Marks, geometry: TileGeometry, rng: np.random.Generator) -> None:
    """Replace the slices that a cut-out lacks; narrow the tiles of scans to boxes and slabs at random."""
    side = geometry.cube_side
    middle = cut.start + (side - 1) / 2
    if scene.kind == "cut-out":
        first, stop = max(0, -int(cut.start[0])), min(side, scene.hu.shape[0] - int(cut.start[0]))
        if first < stop:
            cut.hu = extend_slab(cut.hu, first, stop, rng)
        return
    if scene.kind != "scan":
        return
    chance = rng.random()
    # Around a nodule of the tile as in a chunk, or anywhere.
    reach = 0.8 * geometry.reach
    center = middle + rng.uniform(-reach, reach, 3)
    near = np.flatnonzero((np.abs(nodules[:, :3] - middle) <= geometry.reach).all(axis=1))
    if len(near):
        center = nodules[near[0], :3] + rng.normal(0, 1, 3)
    if chance < _BOX_SHARE:
        half = np.array([rng.uniform(8, 30), *rng.uniform(12, 24, 2)])
        _narrow(cut, center - half, center + half)
    elif chance < _BOX_SHARE + _SLAB_SHARE:
        height = int(np.clip(rng.lognormal(np.log(9), 0.5), 4, 40))
        first = int(np.clip(np.round(center[0] - height / 2) - cut.start[0], 0, side - 2))
        stop = min(first + height, side)
        cut.hu = extend_slab(cut.hu, first, stop, rng)
        cut.low[0] = max(cut.low[0], cut.start[0] + first - 0.5)
        cut.high[0] = min(cut.high[0], cut.start[0] + stop - 0.5)


def _narrow(cut: _Cut, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    """Narrow a cube to a box of the scene: outside it, its border is repeated."""
    cut.low, cut.high = np.maximum(cut.low, np.floor(low) - 0.5), np.minimum(cut.high, np.floor(high) + 0.5)
    last = len(cut.hu) - 1
    index = []
    for a, b, start in zip(cut.low, cut.high, cut.start, strict=True):
        first, stop = np.clip([a + 0.5 - start, b - 0.5 - start], 0, last).astype(int)
        index.append(np.clip(np.arange(last + 1), first, max(first, stop)))
    cut.hu = cut.hu[np.ix_(*index)]


def _repeated(hu: NDArray[np.int16], start: NDArray[np.int64], side: int) -> Cube:
    index = [np.clip(np.arange(s, s + side), 0, n - 1) for s, n in zip(start, hu.shape, strict=True)]
    return np.asarray(hu[np.ix_(*index)], np.float32)


def _in_thick_slices(cube: Cube, rng: np.random.Generator) -> Cube:
    """Return the cube as a scan with slices of 2 to 4 voxels looks after resampling: means, and lines between them."""
    step = int(rng.integers(2, 5))
    first = int(rng.integers(step))
    means = ndimage.uniform_filter1d(cube, step, axis=0, mode="nearest")[first::step]
    middle = first - (0.5 if step % 2 == 0 else 0)  # of the first mean: an even window reaches one voxel farther back
    at = np.clip((np.arange(len(cube)) - middle) / step, 0, len(means) - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(means) - 1)
    share = (at - below)[:, None, None].astype(np.float32)
    return np.asarray(means[below] * (1 - share) + means[above] * share)


def _signed_permutation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random element of Oh."""
    matrix = np.zeros((3, 3))
    matrix[np.arange(3), rng.permutation(3)] = rng.choice([-1, 1], 3)
    return matrix


def _small_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(-_TURN_DEGREES, _TURN_DEGREES))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)  # Rodrigues


def _turned(cube: Cube, turn: NDArray[np.float64], side: int) -> Cube:
    """Return the cube's middle, turned without interpolation: voxel p of the tile is voxel turn @ p of the cube."""
    margin = (len(cube) - side) // 2
    axes = np.abs(turn).argmax(axis=0)
    flips = tuple(n for n in range(3) if turn[axes[n], n] < 0)
    inner = slice(margin, margin + side)
    return np.asarray(np.flip(cube[inner, inner, inner].transpose(axes), flips))


def _sampled(cube: Cube, turn: NDArray[np.float64], side: int) -> Cube:
    theta = torch.zeros(1, 3, 4)
    theta[0, :, :3] = torch.from_numpy(np.ascontiguousarray(np.flip(turn * (side / len(cube)))))  # in (x, y, z)
    grid = F.affine_grid(theta, [1, 1, side, side, side], align_corners=False)
    sampled = F.grid_sample(torch.from_numpy(cube)[None, None], grid, align_corners=False, padding_mode="border")
    return np.asarray(sampled[0, 0].numpy())


def _varied_hu(hu: Cube, rng: np.random.Generator) -> Cube:
    # Scaled about the HU of lung, so that air and tissue move in opposite directions.
    varied = (hu + 850) * rng.normal(1, _HU_SCALE) - 850 + rng.normal(0, _HU_OFFSET)
    if rng.random() < _NOISE_SHARE:
        varied = varied + rng.uniform(0, _NOISE_HU) * rng.standard_normal(hu.shape, dtype=np.float32)
    return np.ascontiguousarray(varied, np.float32)
