"""Settings -> phantom: shapes, trees and nodules are painted over each other, averaged and made noisy."""

from dataclasses import replace

import numpy as np

from gcnn_cli.phantom.canvas import CENTER_LPS_MM, Field, SubsliceGrid, draw_tube, make_grid, paint
from gcnn_cli.phantom.config import Phantom, PhantomConfig, PhantomNodule
from gcnn_cli.phantom.grain import make_noise, make_texture, noise_level
from gcnn_cli.phantom.nodules import Drawn, Sites, draw_nodule, make_shape, measure, plan_nodules
from gcnn_cli.phantom.thorax import HILA, Thorax, shape_thorax
from gcnn_cli.phantom.tissue import AIR, AIRWAY_WALL, VESSEL, paint_inside, paint_trachea, paint_wall
from gcnn_cli.phantom.trees import Piece, beside, grow_tree
from gcnn_cli.scan.volume import Source, Volume, make_affine

_LUNG_HU, _GRAVITY_HU_PER_MM = -862.0, 0.35
_SOLID_HU, _GROUND_GLASS_HU = 35.0, -600.0
_ROOT_RADIUS_MM = 3.4
_LEAST_AIRWAY_RADIUS_MM = 0.85
_TREES, _TEXTURE, _NODULES, _NOISE = range(4)  # each part draws from a stream of its own


def make_phantom(config: PhantomConfig) -> Phantom:
    """Draw the scan. Raises UsageError when the nodules do not fit."""
    grid = make_grid(config.spacing_zyx[0], config.spacing_zyx[1])
    thorax = shape_thorax(grid)
    lung = np.minimum(thorax.lungs[1], thorax.lungs[-1])
    lung_share = grid.cover(lung)
    hu = np.full(grid.shape, AIR, np.float32)
    paint_wall(grid, hu, thorax)
    paint_inside(grid, hu, thorax)
    _paint_parenchyma(grid, hu, lung_share, _stream(config, _TEXTURE))
    _paint_fissures(grid, hu, lung_share)
    paint_trachea(grid, hu)

    vessels, walls, lumens, pieces = _draw_trees(grid, thorax, lung_share, config)
    nodules = _draw_nodules(grid, thorax, lung, vessels, pieces, config)
    _paint_nodules(hu, nodules, solid=False, offset=config.nodule_offset_hu)
    paint(hu, walls, AIRWAY_WALL)
    paint(hu, vessels, VESSEL)
    paint(hu, lumens, AIR + 20)
    _paint_nodules(hu, nodules, solid=True, offset=config.nodule_offset_hu)

    to_world = _to_world(grid)
    truth = []
    for drawn in nodules:
        center, diameter = measure(grid, drawn)
        x, y, z = (round(float(v), 3) for v in center + CENTER_LPS_MM)
        truth.append(PhantomNodule((x, y, z), round(diameter, 3), drawn.kind))
    volume = Volume(_scan(grid, hu, config), to_world, Source("", "array", "phantom"))
    return Phantom(config, volume, tuple(truth), grid.average(lung_share) > 0.5)


def _scan(grid: SubsliceGrid, hu: Field, config: PhantomConfig) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    slices = grid.average(hu)
    if config.noise_hu:
        flat = replace(grid, z=grid.z[:: grid.sub])
        noise = make_noise((flat.z.size, flat.y.size, flat.x.size), grid.pixel_mm, _stream(config, _NOISE))
        slices += config.noise_hu * noise_level(slices, flat) * noise
    steps = np.round(slices / config.step_hu) * config.step_hu
    return np.clip(steps, -1024, 3071).astype(np.int16)


def _paint_parenchyma(grid: SubsliceGrid, hu: Field, lung_share: Field, rng: np.random.Generator) -> None:
    lobules = 9 * make_texture(grid, rng, 6.0) + 9 * make_texture(grid, rng, 2.5)
    paint(hu, lung_share, _LUNG_HU + _GRAVITY_HU_PER_MM * grid.y + lobules)


def _paint_fissures(grid: SubsliceGrid, hu: Field, lung_share: Field) -> None:
    """Paint thin plates: an oblique one in both lungs, a level one in the front of the right."""
    for side, level in ((1, 4.0), (-1, -2.0)):
        bend = 5 * np.cos(grid.x / 38) + 4 * np.sin(grid.y / 31)
        oblique = (grid.z - level - 0.95 * grid.y - bend) / np.hypot(1, 0.95)
        half = np.clip(0.5 + side * grid.x / grid.pixel_mm, 0, 1)
        hu += lung_share * half * 95 * np.exp(-((oblique / 0.75) ** 2))
        if side < 0:
            minor = grid.z - 6 - 4 * np.cos(grid.x / 30) - 0.1 * grid.y
            front = np.clip(0.5 + oblique / grid.pixel_mm, 0, 1) * np.clip(-grid.y / 6, 0, 1)
            hu += lung_share * half * front * 80 * np.exp(-((minor / 0.75) ** 2))


def _draw_trees(
    grid: SubsliceGrid, thorax: Thorax, lung_share: Field, config: PhantomConfig
) -> tuple[Field, Field, Field, list[Piece]]:
    """Return the shares of vessels, airway walls and lumens, and the pieces of the vessels."""
    rng = _stream(config, _TREES)
    vessels, walls, lumens = (np.zeros(grid.shape, np.float32) for _ in range(3))
    pieces: list[Piece] = []
    near_hilum = np.zeros(grid.shape, np.float32)
    for side, hilum in HILA.items():
        root = np.array(hilum)
        distance = np.sqrt(sum((a - c) ** 2 for a, c in zip((grid.x, grid.y, grid.z), hilum, strict=True)))
        near_hilum = np.maximum(near_hilum, grid.cover(distance - 24))
        for offset in ((2.0 * side, 2.0, 6.0), (2.0 * side, -4.0, -14.0)):  # arteries, veins
            targets = _targets(grid, thorax.lungs[side], config.vessels_per_tree, rng)
            tree = grow_tree(root + offset, targets, _ROOT_RADIUS_MM, rng)
            pieces += tree
            if offset[2] < 0:
                continue
            for airway in beside(tree, _LEAST_AIRWAY_RADIUS_MM):
                start, end, r, s = airway.start, airway.end, airway.radius_start, airway.radius_end
                draw_tube(grid, lumens, start, end, r, s)
                draw_tube(grid, walls, start, end, 1.2 * r + 0.35, 1.2 * s + 0.35)
    for piece in pieces:
        draw_tube(grid, vessels, piece.start, piece.end, piece.radius_start, piece.radius_end)
    # A branch that cuts a corner of the heart, the wall or the diaphragm is not drawn there.
    allowed = np.maximum(lung_share, near_hilum)
    return vessels * allowed, walls * allowed, lumens * allowed, pieces


def _targets(grid: SubsliceGrid, lung: Field, count: int, rng: np.random.Generator) -> Field:
    """Return places spread over the lung, far apart and at least 3 mm from its surface."""
    low, high = (
        np.array([float(a.min()) for a in (grid.x, grid.y, grid.z)]),
        np.array([float(a.max()) for a in (grid.x, grid.y, grid.z)]),
    )
    kept: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
    while len(kept) < count:
        point = rng.uniform(low, high)
        z, y, x = (
            int((value - float(axis.flat[0])) / step)
            for value, axis, step in (
                (point[2], grid.z, grid.step_mm),
                (point[1], grid.y, grid.pixel_mm),
                (point[0], grid.x, grid.pixel_mm),
            )
        )
        if lung[z, y, x] < -3:
            kept.append(point)
    return np.array(kept)


def _draw_nodules(
    grid: SubsliceGrid, thorax: Thorax, lung: Field, vessels: Field, pieces: list[Piece], config: PhantomConfig
) -> list[Drawn]:
    if not config.nodules:
        return []
    rng = _stream(config, _NODULES)
    sites = Sites(grid, thorax, vessels, pieces, rng)
    plan = plan_nodules(config.nodules, rng)
    drawn: dict[int, Drawn] = {}
    for i in sorted(range(len(plan)), key=lambda i: -plan[i][1]):  # the largest are hardest to place
        kind, diameter = plan[i]
        drawn[i] = draw_nodule(grid, make_shape(sites.choose(kind, diameter), diameter, rng), kind, lung)
    return [drawn[i] for i in range(len(plan))]


def _paint_nodules(hu: Field, nodules: list[Drawn], *, solid: bool, offset: float) -> None:
    """Paint ground glass under the vessels, which stay visible in it, and solid parts over them."""
    for drawn in nodules:
        box = hu[drawn.box]
        if solid:
            paint(box, drawn.core, _SOLID_HU)
            box += offset * drawn.share
        elif drawn.kind in ("part-solid", "ground-glass"):
            paint(box, drawn.share, _GROUND_GLASS_HU)


def _to_world(grid: SubsliceGrid) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    spacing = np.array([grid.step_mm * grid.sub, grid.pixel_mm, grid.pixel_mm])
    first_slice = float(grid.z[: grid.sub].mean())
    origin = np.array([float(grid.x.flat[0]), float(grid.y.flat[0]), first_slice]) + CENTER_LPS_MM
    return make_affine(spacing, np.eye(3)[:, ::-1], origin)


def _stream(config: PhantomConfig, part: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, part])
