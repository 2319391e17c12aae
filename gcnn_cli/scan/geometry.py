"""The geometry gate: do these slices form one regular, unsheared stack?

A volume has one affine for all its voxels. Slices carry a position each, and the two agree only
if the slices are parallel, equally spaced along their normal and not displaced in their plane.
Where they are not, every position after the defect would be wrong without a sign of it, so the
stack is refused.

Slices are ordered along their normal, n = row x column; file names and InstanceNumber are not asked.
Frame: LPS mm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.scan.volume import Array, make_affine

_SAME_PLACE_MM = 1e-3
# How far a slice may lie from its place along the normal: some headers round positions to 0.1 mm.
_ROUNDING_MM = 0.1
_SPACING_TOLERANCE = 0.01  # of the spacing, besides
_MAX_SPACING_MM = 6.0
_ORIENTATION_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Plane:
    """Where one slice lies: the center of its first voxel, its axes, its pixels (row, column spacing)."""

    position: tuple[float, float, float]
    row_direction: tuple[float, float, float]  # in which the column index grows
    column_direction: tuple[float, float, float]  # in which the row index grows
    pixel_spacing: tuple[float, float]  # between rows, between columns
    rows: int
    columns: int


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `problem` is empty when the stack is sound; then order and to_world hold.

    order: indices of the slices to keep, along the normal
    """

    problem: str = ""
    checks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    to_world: Array | None = None


def check_stack(planes: Sequence[Plane], same_pixels: Callable[[int, int], bool]) -> Verdict:
    """Judge a stack. same_pixels(a, b) is asked only for slices at one and the same place."""
    problem = _mixed(planes)
    if problem:
        return Verdict(problem)
    row, column = (np.array(d) for d in (planes[0].row_direction, planes[0].column_direction))
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    if max(abs(float(n) - 1) for n in lengths) > _ORIENTATION_TOLERANCE or abs(row @ column) > _ORIENTATION_TOLERANCE:
        return Verdict("the direction cosines of the slices are not orthonormal")
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    positions = np.array([plane.position for plane in planes])
    along = positions @ normal
    order = [int(n) for n in np.argsort(along, kind="stable")]

    order, repeated, problem = _without_repeats(order, positions, same_pixels)
    if problem:
        return Verdict(problem)
    if len(order) < 2:
        return Verdict("a single slice has no thickness that could be measured")
    step = float(along[order[-1]] - along[order[0]]) / (len(order) - 1)
    problem = _irregular(along[order]) or _sheared(positions[order], normal, planes[0].pixel_spacing)
    if not problem and step > _MAX_SPACING_MM:
        problem = f"slices are {step:.2f} mm apart: too coarse to measure nodules (at most {_MAX_SPACING_MM:g} mm)"
    if not problem and min(planes[0].pixel_spacing) <= 0:
        problem = f"pixel spacing must be positive, got {list(planes[0].pixel_spacing)} mm"
    if problem:
        return Verdict(problem)

    spacing = np.array([step, *planes[0].pixel_spacing])
    to_world = make_affine(spacing, np.stack([normal, column, row], axis=1), positions[order[0]])
    checks = (
        f"{len(order)} slices, {step:.4g} mm apart along their normal",
        "one orientation and matrix size",
        "no gap, no shear",
    )
    warnings = (f"{repeated} repeated slices with equal pixels were dropped",) if repeated else ()
    return Verdict("", checks, warnings, tuple(order), to_world)


def _mixed(planes: Sequence[Plane]) -> str:
    first = planes[0]
    sizes: set[tuple[float, ...]] = {(p.rows, p.columns) for p in planes}
    spacings: set[tuple[float, ...]] = {tuple(round(s, 4) for s in p.pixel_spacing) for p in planes}
    for what, values in (("matrix sizes", sizes), ("pixel spacings", spacings)):
        if len(values) > 1:
            return f"the series mixes {what}: {' and '.join(str(list(v)) for v in sorted(values)[:3])}"
    axes = np.array([[*p.row_direction, *p.column_direction] for p in planes])
    if np.abs(axes - [*first.row_direction, *first.column_direction]).max() > _ORIENTATION_TOLERANCE:
        return "the series mixes slice orientations"
    return ""


def _without_repeats(
    order: list[int], positions: NDArray[np.float64], same_pixels: Callable[[int, int], bool]
) -> tuple[list[int], int, str]:
    """The order with each place once; how many were dropped; a problem if two at one place differ."""
    kept: list[int] = []
    for n in order:
        if kept and np.linalg.norm(positions[n] - positions[kept[-1]]) < _SAME_PLACE_MM:
            if not same_pixels(kept[-1], n):
                return (
                    kept,
                    0,
                    f"two different slices lie at the same place (slice {len(kept)}, {_mm(positions[n])})",
                )
        else:
            kept.append(n)
    return kept, len(order) - len(kept), ""


def _irregular(along: NDArray[np.float64]) -> str:
    """A gap or uneven spacing, named by its two slices (numbered from 1 along the normal)."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    tolerance = _ROUNDING_MM + _SPACING_TOLERANCE * usual
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > tolerance:
        return (
            f"slices {worst + 1} and {worst + 2} (at {along[worst]:.2f} and {along[worst + 1]:.2f} mm)"
            f" are {gaps[worst]:.4g} mm apart, the others {usual:.4g} mm; is the series complete?"
        )
    drift = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    if drift.max() > tolerance:
        worst = int(drift.argmax())
        return f"the slice spacing changes along the stack: slice {worst + 1} is {drift[worst]:.2f} mm from its place"
    return ""


def _sheared(positions: NDArray[np.float64], normal: NDArray[np.float64], pixel_spacing: tuple[float, float]) -> str:
    """Slices displaced in their own plane: a gantry tilt when steady, a defect when not."""
    offsets = positions - positions[0]
    in_plane = offsets - np.outer(offsets @ normal, normal)
    tolerance = 0.5 * max(pixel_spacing)
    steps = np.diff(in_plane, axis=0)
    jumps = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    if jumps.max() > tolerance:
        worst = int(jumps.argmax())
        return f"slices {worst + 1} and {worst + 2} are displaced by {jumps[worst]:.1f} mm in their plane"
    displaced = np.linalg.norm(in_plane, axis=1)
    if displaced.max() > tolerance:
        worst = int(displaced.argmax())
        angle = math.degrees(math.atan2(displaced[worst], abs(float(offsets[worst] @ normal))))
        return (
            f"the stack is sheared by {angle:.1f} degrees (gantry tilt): slice {worst + 1} is displaced by"
            f" {displaced[worst]:.1f} mm in its plane"
        )
    return ""


def _mm(position: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{p:.2f}" for p in position) + ") mm"
